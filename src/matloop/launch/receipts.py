"""What ended launches took from the machine, written to the ledger once each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from matloop.documents.operation import Receipt
from matloop.jobs.placement import TAG
from matloop.launch.evidence import moment, runs
from matloop.launch.site import Site
from matloop.launch.transitions import AT_WORK, LOST
from matloop.ledger.interface import Ledger

if TYPE_CHECKING:
    from fireworks import LaunchPad

MARKS = "matloop_settled"
"""Collection of the LaunchPad's database that says how far launches are settled."""

_GAP = timedelta(hours=1)  # within it a launch appears whose number has been given out
_MOST = 1000  # launches read at a time
_FIELDS = {
    "launch_id": 1, "fw_id": 1, "state": 1, "state_history": 1, "fworker.name": 1, "time_end": 1,
    "runtime_secs": 1, "action.detours.fws.name": 1, "action.detours.name": 1,
    f"action.stored_data.{LOST}": 1,
}  # fmt: skip


def settle(site: Site, launchpad: LaunchPad, ledger: Ledger) -> int:
    """Write a receipt for every launch of a campaign's job that has ended, and return how many.

    The numbers of launches only grow. A mark says up to which number all are settled, except for
    a few that it names because they had not ended; so a call reads those, and what is new. Every
    mark is true by itself, therefore it does not matter whose comes last.

    Parameters
    ----------
    site
        The site: its kinds say how many cores a launch held.
    launchpad, ledger
        The site's.
    """
    marks = launchpad.db[MARKS]
    mark = marks.find_one({"_id": "mark"}) or {"upto": 0, "open": [], "gaps": {}}
    newest = launchpad.launches.find_one({}, {"launch_id": 1}, sort=[("launch_id", -1)])
    last = max(mark["upto"], newest["launch_id"] if newest else 0)
    now = datetime.now(UTC)
    gaps = {
        int(launch_id): since
        for launch_id, since in mark["gaps"].items()
        if now - datetime.fromisoformat(since) < _GAP
    }
    asked = [*mark["open"], *gaps, *range(mark["upto"] + 1, last + 1)]
    count, still, seen = 0, [], set[int]()
    for start in range(0, len(asked), _MOST):
        wanted = {"launch_id": {"$in": asked[start : start + _MOST]}}
        launches = list(launchpad.launches.find(wanted, _FIELDS))
        seen |= {launch["launch_id"] for launch in launches}
        still += [launch["launch_id"] for launch in launches if launch["state"] in AT_WORK]
        count += _write(site, launchpad, ledger, launches)
    missing = {
        str(launch_id): gaps.get(launch_id, now.isoformat())
        for launch_id in asked
        if launch_id not in seen
    }
    content = {"upto": last, "open": sorted(still), "gaps": missing}
    if content != {name: mark[name] for name in content}:
        marks.replace_one({"_id": "mark"}, content, upsert=True)
    return count


def shares(
    site: Site, launchpad: LaunchPad, ledger: Ledger, campaign_ids: Collection[str], days: float = 7
) -> dict[str, float]:
    """Return the core-hours that campaigns have taken lately, what runs now included.

    Parameters
    ----------
    site
        The site.
    launchpad, ledger
        The site's.
    campaign_ids
        The campaigns.
    days
        How far back.
    """
    now = datetime.now(UTC)
    taken = {
        name: sum(r.core_hours for r in ledger.receipts(name, now - timedelta(days=days)))
        for name in campaign_ids
    }
    for run in runs(launchpad):
        name = run.tag["campaign"]
        if name in taken and not run.reserved:
            cores, _ = held(site, run.tag.get("kind", ""))
            taken[name] += cores * (now - run.began).total_seconds() / 3600
    return taken


def held(site: Site, kind: str) -> tuple[float, float]:
    """Return the cores and GPUs that one rocket process of a kind holds.

    The processes of a job, one per GPU, share its cores.
    """
    known = site.kinds.get(kind)
    if known is None:
        return 1.0, 0.0
    processes = max(known.gpus, 1)
    return known.nodes * known.cores / processes, known.nodes * known.gpus / processes


def _write(
    site: Site, launchpad: LaunchPad, ledger: Ledger, launches: Collection[Mapping[str, Any]]
) -> int:
    ended = [launch for launch in launches if launch["state"] in ("COMPLETED", "FIZZLED")]
    query = {
        "fw_id": {"$in": [launch["fw_id"] for launch in ended]},
        f"spec.{TAG}": {"$exists": True},
    }
    fields = {"fw_id": 1, "name": 1, f"spec.{TAG}": 1}
    fireworks = {item["fw_id"]: item for item in launchpad.fireworks.find(query, fields)}
    count = 0
    for launch in ended:
        if launch["fw_id"] in fireworks:
            ledger.add_receipt(_receipt(site, launch, fireworks[launch["fw_id"]]))
            count += 1
    return count


def _receipt(site: Site, launch: Mapping[str, Any], firework: Mapping[str, Any]) -> Receipt:
    tag, worker = firework["spec"][TAG], launch["fworker"]["name"]
    kind = worker.partition("@")[0] if "@" in worker else tag.get("kind", "")
    cores, gpus = held(site, kind)
    began = [item["created_on"] for item in launch["state_history"] if item["state"] == "RUNNING"]
    first = moment(began[0] if began else launch["state_history"][0]["created_on"])
    return Receipt(
        receipt_id=f"launch-{launch['launch_id']}",
        campaign_id=tag["campaign"],
        iteration=tag["iteration"],
        job=_job(firework["name"], tag.get("stage", "")),
        kind=kind,
        worker=worker,
        started_at=first,
        seconds=float(launch.get("runtime_secs") or 0.0),
        cores=cores,
        gpus=gpus,
        outcome=_outcome(launch, firework["name"]),
    )


def _job(name: str, stage: str) -> str:
    """Return a job's name without the number of its shard."""
    full = f"evaluate {stage}"
    return full if stage and name.startswith(f"{full} ") else name


def _outcome(launch: Mapping[str, Any], name: str) -> Literal["done", "handed on", "lost"]:
    if launch["state"] == "FIZZLED":
        return "lost"
    detours = (launch.get("action") or {}).get("detours") or []
    added = [firework.get("name") for detour in detours for firework in detour.get("fws", [])]
    return "handed on" if added == [name] else "done"
