"""Is a site fit to run campaigns? Looks here, and on a node of each kind through a small job."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from matloop.documents.base import Document
from matloop.errors import MatloopError, SchedulerError
from matloop.launch import slurm
from matloop.launch.checks import Check, Examination, compare, examine
from matloop.launch.fireworks_files import script
from matloop.launch.site import Site
from matloop.launch.worker_kind import seconds_of

WALLTIME = "00:10:00"
"""Most time a job of the doctor takes; short jobs find a place sooner."""

_POLL = 1.0
_SLOW, _LATE = 3.0, 20.0  # s; a shared folder may show the files of an ended job that late
_RESULT, _SCRIPT, _OUTPUT = "result.json", "job.sh", "output.txt"

Tell = Callable[[str], None]


class Diagnosis(Document):
    """What the doctor found at a site.

    Attributes
    ----------
    site
        Name of the site.
    machines
        This machine first, then one per kind of worker.
    """

    site: str
    machines: tuple[Examination, ...]

    @property
    def failed(self) -> bool:
        """Whether jobs would fail somewhere."""
        return any(machine.failed for machine in self.machines)

    def as_json(self) -> str:
        """Return it as `matloop site doctor --json` writes it."""
        return json.dumps({"failed": self.failed, **self.model_dump(mode="json")}, indent=2)


def diagnose_here(site: Site, kind: str = "") -> Diagnosis:
    """Look at this machine only.

    Parameters
    ----------
    site
        The site.
    kind
        The kind of worker this machine serves as; empty for where the user sits.
    """
    return Diagnosis(site=site.name, machines=(examine(site, kind),))


def diagnose(site: Site, kinds: Sequence[str], wait_seconds: float, tell: Tell) -> Diagnosis:
    """Look at this machine, and at a node of each kind.

    Parameters
    ----------
    site
        The site.
    kinds
        Kinds of workers to ask, all at the same time.
    wait_seconds
        How long a job may wait for its turn and run (s); then it is cancelled.
    tell
        Told what is being waited for.
    """
    here = examine(site)
    try:
        folder = site.directory / "doctor"
        folder.mkdir(parents=True, exist_ok=True)
        calls = [_call(site, kind, folder) for kind in kinds]
    except OSError as error:
        text = f"no job was sent: {error.filename} cannot be written: {error.strerror}"
        refused = Check(subject="job", state="failure", text=text)
        workers = [Examination(kind=kind, checks=(refused,)) for kind in kinds]
    else:
        answers = _answers(calls, wait_seconds, tell)
        workers = [_judged(here, answers[call.kind]) for call in calls]
    return Diagnosis(site=site.name, machines=(here, *workers))


@dataclass(frozen=True)
class _Call:
    """A job sent to a kind of worker; `refusal` instead of a number where SLURM took none."""

    kind: str
    folder: Path
    job_id: str = ""
    refusal: str = ""


def _call(site: Site, kind: str, folder: Path) -> _Call:
    place = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=folder))
    words = ["matloop", "site", "doctor", "--here", "--kind", kind]
    words += ["--site", str(site.file), "--output", str(place / _RESULT)]
    command = f"exec {shlex.join(words)} > {shlex.quote(str(place / _OUTPUT))} 2>&1"
    short = min(WALLTIME, site.kind(kind).walltime, key=seconds_of)
    full, quick = place / "worker.sh", place / _SCRIPT
    full.write_text(script(site, kind, place, command))
    quick.write_text(script(site, kind, place, command, short))
    try:
        _sbatch(["--test-only", full.name], place)  # what a worker asks for, without running it
        job_id = _sbatch(["--parsable", quick.name], place).partition(";")[0].strip()
    except SchedulerError as error:
        shutil.rmtree(place, ignore_errors=True)
        return _Call(kind, place, refusal=str(error))
    return _Call(kind, place, job_id)


def _sbatch(words: Sequence[str], directory: Path) -> str:
    # what SLURM set for a job around this process must not count for another
    outer = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_JOB", "SBATCH_"))}
    try:
        done = subprocess.run(
            ["sbatch", *words], cwd=directory, env=outer, capture_output=True, text=True,
            timeout=slurm.TIMEOUT, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise SchedulerError("there is no `sbatch` here") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"`sbatch` gave no answer in {slurm.TIMEOUT:.0f} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = lines[-1] if lines else f"exit status {done.returncode}"
        raise SchedulerError(f"SLURM refuses such a job: {said.removeprefix('sbatch: ')}")
    return done.stdout


def _answers(calls: Sequence[_Call], wait_seconds: float, tell: Tell) -> Mapping[str, Examination]:
    found: dict[str, Examination] = {}
    ended: dict[str, float] = {}
    deadline = time.monotonic() + wait_seconds
    for call in calls:
        if call.refusal:
            found[call.kind] = _silent(call, call.refusal)
    while waiting := [call for call in calls if call.kind not in found]:
        states = _states(waiting)
        now = time.monotonic()
        for call in waiting:
            state = states.get(call.job_id)
            if (call.folder / _RESULT).exists():
                found[call.kind] = _result(call)
            elif state and not state.alive:
                patience = _SLOW if any(call.folder.glob("*.out")) else _LATE
                if now - ended.setdefault(call.kind, now) > patience:
                    found[call.kind] = _silent(call, _epitaph(call, state))
            elif now > deadline:
                found[call.kind] = _silent(call, _given_up(call, state, wait_seconds))
        tell(
            ", ".join(
                f"{call.kind} ({states[call.job_id].state.lower()})"
                for call in waiting
                if call.job_id in states
            )
        )
        time.sleep(_POLL)
    return found


def _states(calls: Sequence[_Call]) -> Mapping[str, slurm.JobState]:
    try:
        return slurm.job_states([call.job_id for call in calls])
    except SchedulerError:  # a controller may be away for a while
        return {}


def _result(call: _Call) -> Examination:
    try:
        answer = json.loads((call.folder / _RESULT).read_text())
        found = Examination.model_validate(answer["machines"][0])
    except (ValidationError, ValueError, KeyError, IndexError, OSError) as error:
        return _silent(call, f"its answer cannot be read ({type(error).__name__})")
    shutil.rmtree(call.folder, ignore_errors=True)
    text = f"ran as job {call.job_id}; what it wrote to the shared folder is seen here"
    return found.model_copy(
        update={"checks": (Check(subject="job", state="ok", text=text), *found.checks)}
    )


def _silent(call: _Call, why: str) -> Examination:
    return Examination(kind=call.kind, checks=(Check(subject="job", state="failure", text=why),))


def _epitaph(call: _Call, state: slurm.JobState) -> str:
    """Say why a job left no answer, with its last words."""
    outputs = [call.folder / _OUTPUT, *sorted(call.folder.glob("*.error"))]
    said = [
        line.strip()
        for path in outputs
        if path.exists()
        for line in path.read_text(errors="replace").splitlines()
        if line.strip()
    ]
    how = f"job {call.job_id} ended as {state.state}"
    if not said:
        return f"{how} and wrote nothing: does a node see {call.folder}?"
    return f"{how} and says: {said[-1][:200]}; see {call.folder}"


def _given_up(call: _Call, state: slurm.JobState | None, wait_seconds: float) -> str:
    with suppress(MatloopError):
        slurm.cancel([call.job_id])
    was = f"{state.state.lower()} ({state.reason})" if state else "not to be asked about"
    return (
        f"job {call.job_id} was {was} after {wait_seconds:.0f} s and is cancelled; "
        "wait longer with --wait, or ask for less"
    )


def _judged(here: Examination, there: Examination) -> Examination:
    """Add what only a comparison shows."""
    if not there.versions:
        return there
    return there.model_copy(update={"checks": (*there.checks, compare(here, there))})
