"""The workers of a site: how many there are, and as many as there is work for."""

from __future__ import annotations

import fcntl
import math
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matloop.errors import ConfigurationError, SchedulerError
from matloop.launch import slurm
from matloop.launch.fireworks_files import log_directory, queue_adapter, write_fireworks_files
from matloop.launch.site import Site

if TYPE_CHECKING:
    from fireworks import LaunchPad

_SOON = ("COMPLETED", "RUNNING", "RESERVED")
_MANY = 10_000  # waiting fireworks looked at; more could not be given workers anyway


@dataclass(frozen=True)
class KindStatus:
    """What there is to do for one kind of worker, and who does it.

    Attributes
    ----------
    kind
        Kind of worker.
    ready
        Fireworks that could run now.
    running
        Fireworks that run.
    waiting
        Fireworks that wait for others.
    fizzled
        Fireworks that failed.
    queued_jobs
        SLURM jobs that wait for their turn.
    running_jobs
        SLURM jobs that run.
    max_jobs
        SLURM jobs the site allows.
    """

    kind: str
    ready: int
    running: int
    waiting: int
    fizzled: int
    queued_jobs: int
    running_jobs: int
    max_jobs: int


def up(
    site: Site,
    kinds: Iterable[str] = (),
    most: int | None = None,
    *,
    ahead: bool = False,
    launchpad: LaunchPad | None = None,
) -> dict[str, list[str]]:
    """Submit workers for the work there is, through FireWorks' own queue launcher.

    Queued and running jobs count: never are there more than `max_jobs` of a kind, nor more than
    there are fireworks for. Whoever calls this at the same time waits, so that two callers do
    not both fill the queue.

    Parameters
    ----------
    site
        The site.
    kinds
        Kinds of workers; by default all.
    most
        Instead of each kind's `max_jobs`, where that is less.
    ahead
        Count fireworks too that wait only for what runs now: their workers queue meanwhile.
    launchpad
        The LaunchPad; by default the site's.

    Returns
    -------
    dict[str, list[str]]
        Ids of the submitted jobs by kind.

    Raises
    ------
    SchedulerError
        If SLURM cannot be asked or refuses a job, with SLURM's reason.
    ConfigurationError
        If a kind is unknown.
    """
    names = _names(site, kinds)
    launchpad = launchpad or site.launchpad()
    write_fireworks_files(site)
    submitted: dict[str, list[str]] = {}
    with _one_at_a_time(site.directory):
        jobs = slurm.jobs(name_prefix="matloop-")
        for name in names:
            kind = site.kind(name)
            alive = len(_of_kind(site, name, jobs))
            allowed = kind.max_jobs if most is None else min(most, kind.max_jobs)
            needed = math.ceil(demand(launchpad, name, ahead=ahead) / max(kind.gpus, 1))
            count = max(0, min(allowed, needed) - alive)
            submitted[name] = [_submit(site, name, launchpad) for _ in range(count)]
    return submitted


def demand(launchpad: LaunchPad, kind: str, *, ahead: bool = False) -> int:
    """Return the number of fireworks that rocket processes of a kind could be at work on.

    Parameters
    ----------
    launchpad
        The LaunchPad.
    kind
        Kind of worker.
    ahead
        Count those too that wait only for fireworks which run now.
    """
    counts = _counts(launchpad, kind)
    now = counts["READY"] + counts["RUNNING"] + counts["RESERVED"]
    return now + _soon_ready(launchpad, kind) if ahead else now


def status(
    site: Site, kinds: Iterable[str] = (), *, launchpad: LaunchPad | None = None
) -> list[KindStatus]:
    """Return what each kind has to do and who does it.

    Raises
    ------
    SchedulerError
        If SLURM cannot be asked.
    """
    launchpad = launchpad or site.launchpad()
    jobs = slurm.jobs(name_prefix="matloop-")
    found = []
    for name in _names(site, kinds):
        counts = _counts(launchpad, name)
        own = _of_kind(site, name, jobs)
        queued = sum(job.waiting for job in own)
        found.append(
            KindStatus(
                kind=name,
                ready=counts["READY"],
                running=counts["RUNNING"] + counts["RESERVED"],
                waiting=counts["WAITING"],
                fizzled=counts["FIZZLED"],
                queued_jobs=queued,
                running_jobs=len(own) - queued,
                max_jobs=site.kind(name).max_jobs,
            )
        )
    return found


def down(site: Site, kinds: Iterable[str] = (), *, now: bool = False) -> dict[str, list[str]]:
    """Cancel the workers that wait in the queue, and return their job ids by kind.

    Parameters
    ----------
    site
        The site.
    kinds
        Kinds of workers; by default all.
    now
        Cancel those too that run. They are given SLURM's ``KillWait`` to end what they can; the
        rest is run again by others.

    Raises
    ------
    SchedulerError
        If SLURM cannot be asked.
    """
    jobs = slurm.jobs(name_prefix="matloop-")
    cancelled = {
        name: [job.job_id for job in _of_kind(site, name, jobs) if now or job.waiting]
        for name in _names(site, kinds)
    }
    slurm.cancel([job_id for ids in cancelled.values() for job_id in ids])
    return cancelled


def _names(site: Site, kinds: Iterable[str]) -> list[str]:
    names = list(dict.fromkeys(kinds)) or list(site.kinds)
    for name in names:
        site.kind(name)
    return names


def _of_kind(site: Site, kind: str, jobs: Iterable[slurm.JobState]) -> list[slurm.JobState]:
    """Return the workers of a kind; one that is ending takes no more work and is not counted."""
    name = queue_adapter(site, kind)["job_name"]
    return [job for job in jobs if job.name == name and job.state != "COMPLETING"]


def _counts(launchpad: LaunchPad, kind: str) -> Counter[str]:
    states = ("READY", "RUNNING", "RESERVED", "WAITING", "FIZZLED")
    return Counter(
        {
            state: launchpad.fireworks.count_documents({"spec._category": kind, "state": state})
            for state in states
        }
    )


def _soon_ready(launchpad: LaunchPad, kind: str) -> int:
    """Return how many waiting fireworks have only parents that have ended or run now."""
    query = {"spec._category": kind, "state": "WAITING"}
    waiting = {item["fw_id"] for item in launchpad.fireworks.find(query, {"fw_id": 1}).limit(_MANY)}
    if not waiting:
        return 0
    soon = 0
    workflows = launchpad.workflows.find(
        {"state": {"$in": ["RUNNING", "RESERVED"]}}, {"links": 1, "fw_states": 1}
    )
    for workflow in workflows:
        states = {int(fw_id): state for fw_id, state in workflow["fw_states"].items()}
        blocked = {
            child
            for parent, children in workflow["links"].items()
            if states[int(parent)] not in _SOON
            for child in children
        }
        soon += len((waiting & states.keys()) - blocked)
    return soon


def _submit(site: Site, kind: str, launchpad: LaunchPad) -> str:
    from fireworks.core.fworker import FWorker
    from fireworks.queue.queue_launcher import launch_rocket_to_queue
    from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter

    directory = log_directory(site, kind)
    before = set(directory.glob("launcher_*"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # FireWorks' own, of no use to a person
        job_id = launch_rocket_to_queue(
            launchpad,
            FWorker(name=f"{site.name}-{kind}", category=kind),
            CommonAdapter.from_dict(queue_adapter(site, kind)),
            launcher_dir=str(directory),
            strm_lvl="CRITICAL",
            create_launcher_dir=True,
            fill_mode=True,  # whether there is work has been seen already
        )
    if not job_id:
        made = set(directory.glob("launcher_*")) - before
        raise SchedulerError(
            f"SLURM took no job of kind {kind!r}: {_refusal(made)}; correct the kind in {site.file}"
        )
    return str(job_id)


def _refusal(launch_directories: set[Path]) -> str:
    """Return why SLURM refuses a script; FireWorks tells its log only."""
    for directory in launch_directories:
        script = directory / "FW_submit.script"
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                ["sbatch", "--test-only", str(script)],
                capture_output=True,
                text=True,
                timeout=slurm.TIMEOUT,
                check=False,
            )
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            if done.returncode and lines:
                return lines[-1].removeprefix("allocation failure: ")
    return "sbatch failed"


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """Wait for whoever submits workers now; the lock dies with its owner."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".workers.lock").open("w")
    except OSError as error:
        raise ConfigurationError(f"{directory} cannot be written: {error.strerror}") from None
    with lock:
        with suppress(OSError):  # a file system without locks: then only cron's own care helps
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
