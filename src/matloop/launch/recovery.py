"""Recovery: what died is found, ended and run again; any number of processes may do it at once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from fireworks import FWAction
from fireworks.core.launchpad import LockedWorkflowError
from pymongo.errors import PyMongoError

from matloop.documents.campaign import CampaignRecord
from matloop.errors import MatloopError
from matloop.jobs.place import Place
from matloop.jobs.placement import TAG
from matloop.jobs.sharding import segments
from matloop.jobs.stage import StageWork
from matloop.jobs.survey import Survey
from matloop.launch import evidence, transitions, wreckage
from matloop.launch.control import enforce
from matloop.launch.site import Site
from matloop.launch.transitions import AT_WORK, LOST, MOST_LAUNCHES
from matloop.ledger.interface import Ledger

if TYPE_CHECKING:
    from fireworks import LaunchPad

VERBS = frozenset({"propose", "evaluate", "decide", "learn", "advance", "prepare", "submit"})
"""First words of the names of jobs without which a campaign cannot go on."""

What = Literal["rerun", "given up", "failed", "stalled", "repaired", "released", "held", "busy"]

_log = logging.getLogger("matloop.recovery")


@dataclass(frozen=True)
class Finding:
    """One thing that was wrong, and what became of it.

    Attributes
    ----------
    what
        ``rerun``: a dead launch was ended and its firework runs again; ``given up``: it has died
        too often; ``failed``: a firework that failed runs again; ``stalled``: it has failed too
        often, and its campaign waits for a person; ``repaired``: a half-written change was
        finished or undone; ``released``: a stage goes on without the rest; ``held``: fireworks of
        a paused or stopped campaign were taken from the workers; ``busy``: another process was at
        it, the next heal looks again.
    campaign_id
        The campaign.
    fw_id, name
        The firework.
    reason
        Why, in one line.
    """

    what: What
    campaign_id: str
    fw_id: int
    name: str
    reason: str


@dataclass(frozen=True)
class Healed:
    """What `heal` found and did.

    Attributes
    ----------
    findings
        Each thing found, in the order in which it was dealt with.
    blind
        Why SLURM could not be asked; empty if it answered.
    """

    findings: tuple[Finding, ...] = ()
    blind: str = ""

    def count(self, what: What) -> int:
        """Return how many findings are of one kind."""
        return sum(finding.what == what for finding in self.findings)

    def of(self, campaign_id: str) -> Healed:
        """Return what concerns one campaign."""
        mine = tuple(item for item in self.findings if item.campaign_id == campaign_id)
        return Healed(mine, self.blind)

    def summary(self) -> str:
        """Return the counts in one line; empty if nothing was found."""
        counts = Counter(finding.what for finding in self.findings)
        return ", ".join(f"{count} {what}" for what, count in counts.items())


def lost(
    launchpad: LaunchPad,
    fw_id: int,
    launch_id: int,
    reason: str,
    *,
    most: int = MOST_LAUNCHES,
    ended: datetime | None = None,
) -> transitions.Outcome:
    """End a dead launch and let its firework run again, unless it has died too often.

    Whoever comes second changes nothing. A process that was thought dead and comes back cannot do
    harm either: its launch belongs to no firework any more.

    Parameters
    ----------
    launchpad
        The LaunchPad.
    fw_id, launch_id
        The firework and its dead launch.
    reason
        Why it is known to be dead.
    most
        Launches after which the firework is fizzled with that reason.
    ended
        When the launch ended, if that is known (UTC).

    Returns
    -------
    str
        ``rerun``, ``given up``, or nothing where there was nothing left to do.
    """
    launch = launchpad.launches.find_one({"launch_id": launch_id}, {"state": 1, "state_history": 1})
    if launch is None:
        return ""
    _end_launch(launchpad, launch_id, launch, reason, ended)
    if launchpad.workflows.find_one({"nodes": fw_id}, {"_id": 1}) is None:
        return ""
    return transitions.end_run(launchpad, fw_id, launch_id, most)


def lost_at(site: Site) -> Callable[[LaunchPad, int, int, str], transitions.Outcome]:
    """Return `lost` with the limits of a site's kinds of workers, for its workers."""

    def lost_there(
        launchpad: LaunchPad, fw_id: int, launch_id: int, reason: str, /
    ) -> transitions.Outcome:
        firework = launchpad.fireworks.find_one({"fw_id": fw_id}, {f"spec.{TAG}": 1})
        tag = ((firework or {}).get("spec") or {}).get(TAG) or {}
        return lost(launchpad, fw_id, launch_id, reason, most=_most(site, tag))

    return lost_there


def heal(site: Site, launchpad: LaunchPad, ledger: Ledger) -> Healed:
    """Find what is broken in the campaigns of a site and mend it.

    Dead launches are ended and run again, half-written changes finished, failed jobs without
    which a campaign cannot go on run again, stages past their quorum or deadline released, and
    orders enforced. Each of these has its limits; beyond them a campaign stalls, and says why.

    Parameters
    ----------
    site
        The site, for its limits.
    launchpad, ledger
        The site's.

    Returns
    -------
    Healed
        What was found and done. Nothing is found where nothing is wrong.
    """
    records = {record.campaign_id: record for record in ledger.campaigns()}
    active = {name: record for name, record in records.items() if _is_active(ledger, name)}
    living = evidence.runs(launchpad)
    dead, blind = evidence.deaths(launchpad, living)
    findings: list[Finding] = []
    for death in dead:
        findings += _patiently(_bury, site, launchpad, death)
    for wreck in wreckage.wrecks(launchpad):
        findings += _patiently(_repair, site, launchpad, wreck)
    for campaign_id in records:
        failed = campaign_id in active
        findings += _patiently(_held, launchpad, ledger, campaign_id)
        if failed:
            for firework in blocking(launchpad, campaign_id):
                findings += _patiently(_retry, site, launchpad, firework)
            findings += _patiently(_release, site, launchpad, active[campaign_id])
    return Healed(tuple(findings), blind)


def blocking(launchpad: LaunchPad, campaign_id: str) -> list[Mapping[str, Any]]:
    """Return the failed fireworks that others wait for, or that come last, oldest first.

    A failed shard does not block: its stage goes on and sends out again what it left.
    """
    query = {f"spec.{TAG}.campaign": campaign_id, "state": "FIZZLED"}
    fields = {"spec._tasks": 0}
    found = []
    for firework in launchpad.fireworks.find(query, fields).sort("fw_id", 1):
        workflow = launchpad.workflows.find_one({"nodes": firework["fw_id"]}, {"links": 1})
        if workflow is None:
            continue
        children = workflow["links"].get(str(firework["fw_id"]), [])
        strict = {
            "fw_id": {"$in": children},
            "spec._allow_fizzled_parents": {"$ne": True},
            "state": "WAITING",
        }
        waits = launchpad.fireworks.find_one(strict, {"fw_id": 1}) is not None
        last = not children and not firework["spec"][TAG].get("stage")
        if waits or last:
            found.append(firework)
    return found


def stalled(site: Site, launchpad: LaunchPad, campaign_id: str) -> str:
    """Return why a campaign waits for a person; empty if it does not."""
    for firework in blocking(launchpad, campaign_id):
        if _is_verb(firework) and _spent(site, firework):
            count = transitions.launches_of(firework)
            why = transitions.failure(launchpad, firework)
            return f"{firework['name']} failed {count} times, the last time with: {why}"
    return ""


def forgive(launchpad: LaunchPad, campaign_id: str) -> int:
    """Let what a stalled campaign failed at run again, with its failures forgotten.

    Returns
    -------
    int
        How many fireworks run again.
    """
    count = 0
    for firework in blocking(launchpad, campaign_id):
        everything = {*firework["launches"], *firework["archived_launches"]}
        tag = {f"spec.{TAG}.forgiven": len(everything), f"spec.{TAG}.reruns": 0}
        launchpad.fireworks.update_one({"fw_id": firework["fw_id"]}, {"$set": tag})
        count += transitions.rerun(launchpad, firework["fw_id"], firework["launches"])
    return count


def _end_launch(
    launchpad: LaunchPad,
    launch_id: int,
    launch: Mapping[str, Any],
    reason: str,
    ended: datetime | None,
) -> None:
    """Mark a launch as ended, once; the time is that of its last sign of life or better."""
    last = launch["state_history"][-1]
    began = next(
        (item["created_on"] for item in launch["state_history"] if item["state"] == "RUNNING"), None
    )
    end = ended or evidence.moment(last.get("updated_on") or last["created_on"])
    changes: dict[str, Any] = {
        "state": "FIZZLED",
        "time_end": end.isoformat(),
        "action": FWAction(
            stored_data={LOST: reason, "_message": f"lost: {reason}"}, exit=True
        ).to_dict(),
    }
    if began is not None:
        changes["runtime_secs"] = max(0.0, (end - evidence.moment(began)).total_seconds())
    entry = {"state": "FIZZLED", "created_on": end.isoformat()}
    launchpad.launches.find_one_and_update(
        {"launch_id": launch_id, "state": {"$in": [*AT_WORK]}},
        {"$set": changes, "$push": {"state_history": entry}},
    )


def _patiently(step: Callable[..., Iterable[Finding]], *arguments: Any) -> list[Finding]:
    """Take one step; what another process holds, or this one cannot read, stops no other step."""
    try:
        return list(step(*arguments))
    except LockedWorkflowError:
        return [Finding("busy", "", 0, "", "a workflow is busy; the next heal looks at it again")]
    except (PyMongoError, MatloopError):
        raise
    except Exception as error:  # FireWorks imports what a firework names
        what = str(error).strip().splitlines()[-1:] or [""]
        reason = f"cannot be read here: {type(error).__name__}: {what[0]}"
        return [Finding("busy", "", 0, "a firework", transitions.without_secrets(reason))]


def _bury(site: Site, launchpad: LaunchPad, death: evidence.Death) -> Iterator[Finding]:
    run = death.run
    most = _most(site, run.tag)
    outcome = lost(launchpad, run.fw_id, run.launch_id, death.reason, most=most, ended=death.ended)
    if outcome:
        reason = death.reason
        if outcome == "given up":
            reason = f"launched {most} times, the last time lost because {reason}"
        _log.info("%s of %s: %s (%s)", run.name, run.tag["campaign"], outcome, reason)
        yield Finding(outcome, run.tag["campaign"], run.fw_id, run.name, reason)


def _repair(site: Site, launchpad: LaunchPad, wreck: wreckage.Wreck) -> Iterator[Finding]:
    firework = launchpad.fireworks.find_one({"fw_id": wreck.fw_id}, {"name": 1, "spec": 1})
    if firework is None:
        return
    most = _most(site, firework["spec"].get(TAG, {}))
    done = wreckage.repair(launchpad, wreck, most)
    if done:
        yield Finding("repaired", wreck.campaign_id, wreck.fw_id, firework["name"], done)


def _retry(site: Site, launchpad: LaunchPad, firework: Mapping[str, Any]) -> Iterator[Finding]:
    campaign, fw_id, name = firework["spec"][TAG]["campaign"], firework["fw_id"], firework["name"]
    why = transitions.failure(launchpad, firework)
    if not _is_verb(firework):
        if ended := transitions.end_branch(launchpad, fw_id):
            reason = f"{len(ended)} jobs that waited for it are given up with it ({why})"
            yield Finding("given up", campaign, fw_id, name, reason)
    elif _spent(site, firework):
        count = transitions.launches_of(firework)
        yield Finding("stalled", campaign, fw_id, name, f"it failed {count} times: {why}")
    elif transitions.rerun(launchpad, fw_id, firework["launches"]):
        yield Finding("failed", campaign, fw_id, name, f"it runs again after: {why}")


def _held(launchpad: LaunchPad, ledger: Ledger, campaign_id: str) -> Iterator[Finding]:
    if held := enforce(launchpad, ledger, campaign_id):
        order = ledger.controls(campaign_id)[-1].order
        reason = f"{held} fireworks follow the order to {order}"
        yield Finding("held", campaign_id, 0, "", reason)


def _release(site: Site, launchpad: LaunchPad, record: CampaignRecord) -> Iterator[Finding]:
    """Release the stages in progress that may close without the rest."""
    impatient = {
        stage.name
        for stage in record.campaign.stages
        if stage.quorum < 1 or stage.deadline is not None
    }
    query = {
        f"spec.{TAG}.campaign": record.campaign_id,
        f"spec.{TAG}.stage": {"$in": sorted(impatient)},
        "state": "WAITING",
        "spec._allow_fizzled_parents": True,
    }
    if not impatient:
        return
    for join in list(launchpad.fireworks.find(query, {"fw_id": 1, "name": 1, f"spec.{TAG}": 1})):
        tag = join["spec"][TAG]
        if join["name"] != f"evaluate {tag['stage']}":
            continue  # the verdict on one calculation waits for nothing else
        place = Place(site.ledger(), record.campaign_id, tag["iteration"], tag["stage"])
        reason = _closing(StageWork(place, elsewhere=True))
        if reason and (left := transitions.release_join(launchpad, join["fw_id"])):
            reason = f"{reason}; {len(left)} jobs may come late"
            yield Finding("released", record.campaign_id, join["fw_id"], join["name"], reason)


def _closing(work: StageWork) -> str:
    """Return why a stage may close without the rest, as its own job will see it."""
    if work.stage.quorum >= 1:
        return work.closing(0, 1)  # only the clock matters
    for segment in segments(work.evaluators):
        survey = Survey.of(work, work.find_pieces(until=segment.stop).pieces())
        if survey.judged < survey.entered:
            return work.closing(survey.judged, survey.entered)
    return ""


def _is_active(ledger: Ledger, campaign_id: str) -> bool:
    states = ledger.states(campaign_id)
    if states and states[-1].status == "finished":
        return False
    orders = ledger.controls(campaign_id)
    return not orders or orders[-1].order == "resume"


def _is_verb(firework: Mapping[str, Any]) -> bool:
    return firework["name"].partition(" ")[0] in VERBS


def _spent(site: Site, firework: Mapping[str, Any]) -> bool:
    """Whether a firework has failed as often as it may."""
    tag = firework["spec"][TAG]
    most = _most(site, tag)
    return transitions.launches_of(firework) >= most or int(tag.get("reruns", 0)) + 1 > most


def _most(site: Site, tag: Mapping[str, Any]) -> int:
    kind = site.kinds.get(tag.get("kind", ""))
    return MOST_LAUNCHES if kind is None else kind.max_launches
