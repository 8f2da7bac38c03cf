"""What matloop asks SLURM: the states of jobs, whose they are, and to end them."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from matloop.errors import SchedulerError
from matloop.jobs.walltime import parse_duration

TIMEOUT = 60.0
"""Seconds after which a command of SLURM counts as unanswered."""

GONE = "UNKNOWN"
"""State of a job that neither the controller nor the accounting remembers."""

_IDS_PER_CALL = 500  # command lines have an end
_CLOCK_SKEW = 10.0  # seconds by which the clocks of two nodes may differ
_WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "REVOKED", "TIMEOUT", GONE,
}  # fmt: skip
_COLUMNS = "%i|%T|%S|%e|%r|%j|%k"
_ACCOUNTED = "JobIDRaw,State,Start,End,Reason,JobName"


@dataclass(frozen=True)
class JobState:
    """What SLURM says about one job.

    Attributes
    ----------
    job_id
        SLURM's number, as text.
    state
        In SLURM's words, such as ``RUNNING`` or ``NODE_FAIL``; ``UNKNOWN`` if it has forgotten.
    alive
        Whether the job waits, runs or is being ended; what SLURM has forgotten is not alive.
    reason
        Why it waits or ended, in SLURM's words.
    name
        The job's name.
    comment
        The job's comment.
    started
        When its present or last run began (s since 1970), or is expected to; None if unknown.
    ended
        When it ended (s since 1970); None while it has not, or if that is forgotten.
    """

    job_id: str
    state: str
    alive: bool
    reason: str = ""
    name: str = ""
    comment: str = ""
    started: float | None = None
    ended: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether it waits for its turn, for the first time or again."""
        return self.state in _WAITING

    def may_hold(self, moment: float) -> bool:
        """Whether a process seen in this job at a moment may still run.

        SLURM starts a job again under the same number when its node has died. The processes
        of the run before are gone, although the job is alive.

        Parameters
        ----------
        moment
            When the process was seen, such as the start of a launch (s since 1970).
        """
        if not self.alive or self.waiting:
            return False
        return self.started is None or self.started <= moment + _CLOCK_SKEW


@dataclass(frozen=True)
class Partition:
    """One partition as `sinfo` shows it.

    Attributes
    ----------
    name
        Its name.
    available
        Whether it takes jobs.
    limit
        Longest walltime of a job (s); None if there is no limit.
    nodes
        Number of nodes.
    cores
        Most cores of one node.
    gpus
        Generic resources of its nodes, such as ``gpu:a100:4``; empty without any.
    """

    name: str
    available: bool
    limit: float | None
    nodes: int
    cores: int
    gpus: str


def job_states(job_ids: Collection[str]) -> dict[str, JobState]:
    """Return the state of each job asked for, however old it is.

    The controller is asked first; what it has forgotten is asked from the accounting, where
    there is one. A job that both have forgotten has ended long ago.

    Raises
    ------
    SchedulerError
        If the controller cannot be asked: then nothing is known about any job.
    """
    asked = sorted(set(job_ids))
    known: dict[str, JobState] = {}
    for part in _parts(asked):
        known |= {job.job_id: job for job in _queue(f"--jobs={','.join(part)}")}
    for part in _parts([job_id for job_id in asked if job_id not in known]):
        known |= {job.job_id: job for job in _accounted(part)}
    forgotten = "SLURM has forgotten this job"
    return {
        job_id: known.get(job_id) or JobState(job_id, GONE, alive=False, reason=forgotten)
        for job_id in asked
    }


def jobs(user: str | None = None, name_prefix: str = "") -> list[JobState]:
    """Return a user's living jobs whose name or comment begins with a prefix, oldest first.

    Parameters
    ----------
    user
        By default whoever runs this process.
    name_prefix
        Beginning of the name or of the comment.

    Raises
    ------
    SchedulerError
        If the controller cannot be asked.
    """
    found = _queue(f"--user={user or getpass.getuser()}")
    return [
        job
        for job in found
        if job.alive and (job.name.startswith(name_prefix) or job.comment.startswith(name_prefix))
    ]


def cancel(job_ids: Collection[str]) -> None:
    """End jobs, waiting or running; those that have ended already are passed over.

    Raises
    ------
    SchedulerError
        If the controller cannot be asked, or refuses.
    """
    for part in _parts(sorted(set(job_ids))):
        done = _run(["scancel", *part])
        refusals = [
            line
            for line in done.stderr.splitlines()
            if "Invalid job id" not in line and "already completing or completed" not in line
        ]
        if done.returncode and refusals:
            raise SchedulerError(f"scancel: {_first(refusals)}")


def seconds_left(job_id: str) -> float | None:
    """Return the seconds of walltime a job has left; None without a limit, or if it has ended.

    Raises
    ------
    SchedulerError
        If the controller cannot be asked.
    """
    lines = _squeue([f"--jobs={job_id}", "--format=%L"])
    return parse_duration(lines[0]) if lines else None


def partitions() -> dict[str, Partition]:
    """Return every partition by name.

    Raises
    ------
    SchedulerError
        If the controller cannot be asked.
    """
    found: dict[str, Partition] = {}
    for line in _answer(["sinfo", "--noheader", "--format=%R|%a|%l|%D|%c|%G"]).splitlines():
        name, available, limit, nodes, cores, gpus = line.split("|")
        before = found.get(name, Partition(name, available == "up", 0.0, 0, 0, ""))
        found[name] = Partition(
            name,
            available == "up",
            None if limit == "infinite" else parse_duration(limit),
            before.nodes + int(nodes),
            max(before.cores, int(cores.rstrip("+"))),
            before.gpus if gpus == "(null)" else gpus,
        )
    return found


def cluster() -> str:
    """Return the name of this cluster, as `SLURM_CLUSTER_NAME` tells it to its jobs.

    Raises
    ------
    SchedulerError
        If the controller cannot be asked.
    """
    for line in _answer(["scontrol", "show", "config"]).splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "ClusterName":
            return value.strip()
    return ""


def default_partition() -> str:
    """Return the partition of jobs that name none; empty where there is none.

    Raises
    ------
    SchedulerError
        If the controller cannot be asked.
    """
    marked = [
        word.removesuffix("*")
        for word in _answer(["sinfo", "--noheader", "--format=%P"]).split()
        if word.endswith("*")
    ]
    return marked[0] if marked else ""


def _queue(selection: str) -> list[JobState]:
    found = []
    for line in _squeue(["--states=all", selection, f"--format={_COLUMNS}"]):
        job_id, state, started, ended, reason, name, comment = line.split("|", 6)
        alive = state not in _ENDED
        found.append(
            JobState(
                job_id=job_id,
                state=state,
                alive=alive,
                reason=_word(reason),
                name=name,
                comment=_word(comment),
                started=_moment(started),
                ended=None if alive else _moment(ended),
            )
        )
    return sorted(found, key=lambda job: (len(job.job_id), job.job_id))


def _squeue(options: Sequence[str]) -> list[str]:
    done = _run(["squeue", "--noheader", *options])
    if done.returncode and "Invalid job id" in done.stderr:  # said only if none is known
        return []
    return _checked("squeue", done).splitlines()


def _accounted(job_ids: Sequence[str]) -> Iterator[JobState]:
    """Yield what the accounting knows; where there is none, nothing.

    The controller has answered already, so these jobs are certainly not alive, whatever the
    accounting believes.
    """
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--duplicates"]
    try:
        done = _run([*command, f"--format={_ACCOUNTED}", f"--jobs={','.join(job_ids)}"])
    except SchedulerError:
        return
    if done.returncode:
        return
    for line in done.stdout.splitlines():
        job_id, state, started, ended, reason, name = line.split("|", 5)
        yield JobState(
            job_id=job_id,
            state=state.split()[0],  # "CANCELLED by 1000"
            alive=False,
            reason=_word(reason) or state,
            name=name,
            started=_moment(started),
            ended=_moment(ended),
        )


def _answer(command: Sequence[str]) -> str:
    return _checked(command[0], _run(command))


def _checked(program: str, done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        said = _first(done.stderr.splitlines()) or f"exit status {done.returncode}"
        raise SchedulerError(f"SLURM could not be asked, {program} says: {said}")
    return done.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={**os.environ, "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise SchedulerError(f"SLURM's command {command[0]} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(
            f"SLURM could not be asked: {command[0]} gave no answer in {TIMEOUT:.0f} s"
        ) from None


def _parts(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(job_ids), _IDS_PER_CALL):
        yield job_ids[start : start + _IDS_PER_CALL]


def _moment(text: str) -> float | None:
    return float(text) if text.isdigit() and int(text) > 0 else None


def _word(text: str) -> str:
    return "" if text in {"None", "(null)", "N/A"} else text


def _first(lines: Sequence[str]) -> str:
    return next((line.strip() for line in lines if line.strip()), "")
