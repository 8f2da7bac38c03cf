"""What the jobs of a campaign are doing, told truly also while things are broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from matloop.errors import SchedulerError
from matloop.jobs.placement import TAG
from matloop.launch import evidence, recovery, workers
from matloop.launch.site import Site
from matloop.launch.submission import over_budget
from matloop.ledger.interface import Ledger

if TYPE_CHECKING:
    from fireworks import LaunchPad

STATES = ("running", "ready", "waiting", "paused", "failed", "lost")
_NAMES = {
    "RUNNING": "running",
    "RESERVED": "running",
    "READY": "ready",
    "WAITING": "waiting",
    "PAUSED": "paused",
    "FIZZLED": "failed",
}


@dataclass(frozen=True)
class JobCount:
    """How many jobs of one name and kind are in each state.

    Attributes
    ----------
    job
        Name without the number of a shard.
    kind
        Kind of worker.
    running, ready, waiting, paused, failed
        As FireWorks says.
    lost
        What FireWorks believes to run, but is dead; `matloop heal` runs it again.
    """

    job: str
    kind: str
    running: int = 0
    ready: int = 0
    waiting: int = 0
    paused: int = 0
    failed: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Activity:
    """What the jobs of a campaign are doing.

    Attributes
    ----------
    jobs
        Counts of what has not ended, in the order of the workflow.
    oldest_heartbeat
        Age of the oldest sign of life of what runs (s); None if nothing runs.
    obstacles
        What keeps the campaign from going on, one line each; empty if nothing does.
    """

    jobs: tuple[JobCount, ...]
    oldest_heartbeat: float | None
    obstacles: tuple[str, ...]

    def count(self, state: str) -> int:
        """Return the number of jobs in one of `STATES`."""
        return sum(getattr(job, state) for job in self.jobs)

    def lines(self) -> list[str]:
        """Return what people should know, one line each."""
        said = []
        counts = {state: self.count(state) for state in STATES}
        if any(counts.values()):
            text = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
            running = [job for job in self.jobs if job.running]
            names = ", ".join(f"{job.job} ({job.kind})" for job in running)
            said.append(f"jobs: {text}" + (f"; at work: {names}" if names else ""))
        if self.oldest_heartbeat is not None:
            said.append(f"oldest sign of life: {self.oldest_heartbeat:.0f} s ago")
        return said + list(self.obstacles)

    def data(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def activity(site: Site, launchpad: LaunchPad, ledger: Ledger, campaign_id: str) -> Activity:
    """Return what the jobs of a campaign are doing and what keeps them from it.

    Nothing is changed, and nothing is believed that FireWorks, heartbeats or SLURM contradict.

    Parameters
    ----------
    site
        The site.
    launchpad, ledger
        The site's.
    campaign_id
        The campaign.
    """
    living = evidence.runs(launchpad, campaign_id)
    dead, blind = evidence.deaths(launchpad, living)
    lost = {death.run.fw_id: death.reason for death in dead}
    blocked = {item["fw_id"] for item in recovery.blocking(launchpad, campaign_id)}
    counts: dict[tuple[str, str], Counter[str]] = {}
    query = {f"spec.{TAG}.campaign": campaign_id, "state": {"$in": [*_NAMES]}}
    fields = {"fw_id": 1, "name": 1, "state": 1, f"spec.{TAG}": 1}
    for firework in launchpad.fireworks.find(query, fields).sort("fw_id", 1):
        tag = firework["spec"][TAG]
        state = _NAMES[firework["state"]]
        if state == "failed" and firework["fw_id"] not in blocked:
            continue  # a shard whose stage has sent out again what it left
        if firework["fw_id"] in lost:
            state = "lost"
        job = (_without_number(firework["name"], tag.get("stage", "")), tag.get("kind", ""))
        counts.setdefault(job, Counter())[state] += 1
    now = datetime.now(UTC)
    ages = [run.age(now) for run in living if not run.reserved and run.fw_id not in lost]
    jobs = tuple(JobCount(job, kind, **found) for (job, kind), found in counts.items())
    obstacles = [
        *(
            f"lost: {reason}; `matloop heal` runs it again"
            for reason in dict.fromkeys(lost.values())
        ),
        *_obstacles(site, launchpad, ledger, campaign_id, jobs),
    ]
    if blind and (jobs or living):
        obstacles.append(f"{blind}: whether the jobs live is not known")
    return Activity(jobs, max(ages) if ages else None, tuple(obstacles))


def _obstacles(
    site: Site,
    launchpad: LaunchPad,
    ledger: Ledger,
    campaign_id: str,
    jobs: tuple[JobCount, ...],
) -> list[str]:
    states = ledger.states(campaign_id)
    if states and states[-1].status == "finished":
        return []
    orders = ledger.controls(campaign_id)
    if orders and orders[-1].order != "resume":
        return []
    if why := recovery.stalled(site, launchpad, campaign_id):
        return [f"stalled: {why}; mend it, then `matloop resume {campaign_id}`"]
    found = []
    if not jobs:
        record = ledger.campaign(campaign_id)
        full = over_budget(ledger, record.campaign, datetime.now(UTC)) if record else ""
        found.append(
            f"held back: it {full}" if full else "nothing is submitted; `matloop tick` goes on"
        )
    failed = [job.job for job in jobs if job.failed]
    if failed:
        found.append(f"failed: {', '.join(failed)}; `matloop heal` runs it again")
    wanted = {job.kind for job in jobs if job.ready} - {job.kind for job in jobs if job.running}
    for kind in sorted(wanted & site.kinds.keys()):
        try:
            (status,) = workers.status(site, [kind], launchpad=launchpad)
        except SchedulerError:
            continue  # said once, of the jobs
        if not status.queued_jobs and not status.running_jobs:
            found.append(
                f"no worker of kind {kind} runs or is queued; `matloop workers up` starts them"
            )
        elif not status.running_jobs:
            found.append(f"{status.queued_jobs} workers of kind {kind} wait in the queue")
    return found


def _without_number(name: str, stage: str) -> str:
    full = f"evaluate {stage}"
    return full if stage and name.startswith(f"{full} ") else name
