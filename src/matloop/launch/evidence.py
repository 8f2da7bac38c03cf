"""Which launches are dead: what heartbeats, SLURM and the worker's other launches say.

A launch counts as dead if

1. SLURM says that its job ended after the launch began, or has been started again since;
2. the same rocket process, or the one that replaced it, has begun another launch since;
3. SLURM has forgotten its job, or its process on this machine is gone, and its heartbeat is older
   than `EXPIRED`;
4. nobody can say what became of its process, and its heartbeat is older than `SILENT`.

A SLURM that cannot be asked says nothing: then only 2 to 4 count, and of 3 not SLURM's part. A job
that runs is never dead for a late heartbeat alone, for a chunk of work may keep a process busy.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from matloop.errors import SchedulerError
from matloop.jobs.placement import TAG
from matloop.launch import slurm
from matloop.launch.transitions import AT_WORK

if TYPE_CHECKING:
    from fireworks import LaunchPad

EXPIRED = 90.0
"""Age of a heartbeat after which a launch is dead if its process seems to be gone (s)."""

SILENT = 3600.0
"""Age of a heartbeat after which a launch is dead though nobody saw its process end (s).

Longer than a worker waits for a database that is away, during which there are no heartbeats.
"""

_FIELDS = {"launch_id": 1, "fw_id": 1, "state": 1, "state_history": 1, "fworker": 1, "host": 1}


@dataclass(frozen=True)
class Run:
    """A launch that has not ended.

    Attributes
    ----------
    launch_id, fw_id
        Its ids.
    name
        Name of its firework.
    tag
        What the firework's spec says of its campaign.
    worker
        Who runs it: ``KIND@JOB``, or ``KIND@HOST:PID`` outside of SLURM.
    slot
        Which rocket process of the worker; None if unknown.
    reserved
        Whether it only waits for a job that `qlaunch -r` has submitted.
    began, heartbeat
        When (UTC).
    """

    launch_id: int
    fw_id: int
    name: str
    tag: Mapping[str, Any]
    worker: str
    slot: int | None
    reserved: bool
    job_id: str
    cluster: str
    began: datetime
    heartbeat: datetime

    def age(self, now: datetime) -> float:
        """Return the age of its heartbeat (s)."""
        return (now - self.heartbeat).total_seconds()


@dataclass(frozen=True)
class Death:
    """A run that is dead, why, and when it ended if SLURM knows (UTC)."""

    run: Run
    reason: str
    ended: datetime | None = None


def runs(launchpad: LaunchPad, campaign_id: str | None = None) -> list[Run]:
    """Return the launches of campaigns that have not ended, oldest first."""
    found = []
    launches = list(launchpad.launches.find({"state": {"$in": [*AT_WORK]}}, _FIELDS))
    query: dict[str, Any] = {"fw_id": {"$in": [launch["fw_id"] for launch in launches]}}
    query[f"spec.{TAG}.campaign"] = campaign_id or {"$exists": True}
    fields = {"fw_id": 1, "name": 1, f"spec.{TAG}": 1}
    fireworks = {item["fw_id"]: item for item in launchpad.fireworks.find(query, fields)}
    for launch in launches:
        if launch["fw_id"] in fireworks:
            found.append(_run(launch, fireworks[launch["fw_id"]]))
    return sorted(found, key=lambda run: run.launch_id)


def deaths(
    launchpad: LaunchPad, living: Sequence[Run], now: datetime | None = None
) -> tuple[list[Death], str]:
    """Return which runs are dead, and why SLURM could not be asked, empty if it could.

    Parameters
    ----------
    launchpad
        The LaunchPad.
    living
        The runs to look at.
    now
        By default the present.
    """
    now = now or datetime.now(UTC)
    blind, known = "", dict[str, slurm.JobState]()
    try:
        known = slurm.job_states({run.job_id for run in living if run.job_id})
        here = slurm.cluster() if known else ""
    except SchedulerError as error:
        blind, here = str(error), ""
    found = []
    for run in living:
        state = known.get(run.job_id)
        if state is not None and run.cluster and here and run.cluster != here:
            state = None  # another cluster's job of the same number
        death = _death(launchpad, run, state, now)
        if death is not None:
            found.append(death)
    return found, blind


def _death(
    launchpad: LaunchPad, run: Run, state: slurm.JobState | None, now: datetime
) -> Death | None:
    if state is not None:
        began = run.began.timestamp()
        told = f"its job {run.job_id} {_in_words(state)}"
        if state.alive:
            if not run.reserved and not state.may_hold(began):
                return Death(run, f"its job {run.job_id} was started again")
        elif state.state != slurm.GONE:
            ended = None if state.ended is None else datetime.fromtimestamp(state.ended, UTC)
            if ended is None or state.ended is None or state.ended >= began - 10:
                return Death(run, told, ended)
        elif run.age(now) > EXPIRED:
            return Death(run, told)
    if run.slot is not None and _replaced(launchpad, run):
        return Death(run, "its rocket process was replaced by another")
    if run.reserved and not run.job_id and run.age(now) > EXPIRED:
        return Death(run, "it was reserved for a job that was never submitted")
    if _gone_here(run) and run.age(now) > EXPIRED:
        return Death(run, f"its process is gone, and so is its heartbeat for {run.age(now):.0f} s")
    unseen = state is None and (not run.reserved or not run.job_id)
    if (unseen or (state is not None and state.alive and not run.reserved)) and (
        run.age(now) > SILENT
    ):
        return Death(run, f"its heartbeat has stopped for {run.age(now):.0f} s")
    return None


def _in_words(state: slurm.JobState) -> str:
    if state.state == slurm.GONE:
        return "is unknown to SLURM"
    reason = f" ({state.reason})" if state.reason and state.reason != state.state else ""
    return f"ended as {state.state}{reason}"


def _replaced(launchpad: LaunchPad, run: Run) -> bool:
    """Whether the rocket process in the same place has begun something else; each does one."""
    query = {
        "fworker.name": run.worker,
        "fworker.env.slot": run.slot,
        "launch_id": {"$gt": run.launch_id},
    }
    return launchpad.launches.find_one(query, {"launch_id": 1}) is not None


def _gone_here(run: Run) -> bool:
    host, colon, pid = run.worker.rpartition("@")[2].rpartition(":")
    if not colon or host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _run(launch: Mapping[str, Any], firework: Mapping[str, Any]) -> Run:
    worker = launch["fworker"]["name"]
    env = launch["fworker"].get("env") or {}
    where = worker.rpartition("@")[2] if "@" in worker else ""
    reserved = launch["state"] == "RESERVED"
    reservations = [item.get("reservation_id") for item in launch["state_history"]]
    reservation = next((str(item) for item in reservations if item), "")
    last = launch["state_history"][-1]
    return Run(
        launch_id=launch["launch_id"],
        fw_id=launch["fw_id"],
        name=firework["name"],
        tag=firework["spec"][TAG],
        worker=worker,
        slot=env.get("slot"),
        reserved=reserved,
        job_id=where if where.isdigit() else reservation,
        cluster=str(env.get("cluster") or ""),
        began=moment(last["created_on"]),
        heartbeat=moment(last.get("updated_on") or last["created_on"]),
    )


def moment(value: Any) -> datetime:
    """Return a time as FireWorks stores it, with its zone."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    assert isinstance(found, datetime)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
