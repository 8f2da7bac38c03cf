"""What one machine must have to work for a site: packages, folder, database, GPUs, engines."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import Field

from matloop import registry
from matloop.atomic import whole_file
from matloop.documents.base import Document
from matloop.errors import MatloopError, SchedulerError
from matloop.generators import programs
from matloop.launch import slurm
from matloop.launch.fireworks_files import outdated
from matloop.launch.site import Site
from matloop.launch.worker_kind import WorkerKind

PACKAGES = (
    "matloop", "jobflow", "fireworks", "maggma", "pymongo", "pymatgen", "torch", "chgnet",
)  # fmt: skip
"""Packages whose versions are compared between the machines of a site."""

ENGINE_KIND = "dft"
"""The kind of worker that density-functional engines ask for."""

_TIMEOUT_MS = 10_000
_GIB = 1024**3
_LITTLE, _TOO_LITTLE = 20 * _GIB, _GIB
_CLOCK_OFF, _CLOCK_WRONG = 5.0, 60.0  # s; lost runs are told by the age of their last sign of life

State = Literal["ok", "warning", "failure"]


class Check(Document):
    """One thing that was looked at.

    Attributes
    ----------
    subject
        What, in a word or two.
    state
        ``ok``; ``warning``: works, but not as it should; ``failure``: jobs would fail.
    text
        What was found and, unless it is ok, what to do.
    """

    subject: str
    state: State
    text: str


class Examination(Document):
    """What was found on one machine.

    Attributes
    ----------
    kind
        The kind of worker; empty for the machine where the user sits.
    host
        Name of the machine; empty where none answered.
    versions
        Versions of Python and of `PACKAGES`.
    checks
        What was looked at, in order.
    """

    kind: str = ""
    host: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    checks: tuple[Check, ...]

    @property
    def failed(self) -> bool:
        """Whether jobs would fail here."""
        return any(check.state == "failure" for check in self.checks)


def examine(site: Site, kind: str = "") -> Examination:
    """Look at this machine.

    Parameters
    ----------
    site
        The site.
    kind
        The kind of worker this machine serves as; empty for where the user sits.

    Raises
    ------
    ConfigurationError
        If the site has no such kind.
    """
    steps: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("packages", _packages),
        ("shared folder", lambda: _folder(site.directory)),
        ("database", lambda: _database(site)),
        ("programs", _programs),
    ]
    if kind:
        wanted = site.kind(kind)
        steps += [
            ("cores", lambda: _cores(wanted)),
            ("time left", _time_left),
        ]
        if wanted.gpus:
            steps.append(("GPUs", lambda: _gpus(wanted)))
        if kind == ENGINE_KIND:
            steps.append(("engines", _engines))
    else:
        steps += [
            ("FireWorks' files", lambda: _fireworks_files(site)),
            ("SLURM", lambda: _scheduler(site)),
        ]
    checks = [check for subject, step in steps for check in _guarded(subject, step)]
    return Examination(
        kind=kind, host=socket.gethostname(), versions=_versions(), checks=tuple(checks)
    )


def compare(here: Examination, there: Examination) -> Check:
    """Judge the versions of another machine by those of this one."""
    other = {
        name: (here.versions.get(name), found)
        for name, found in there.versions.items()
        if _release(found) != _release(here.versions.get(name, ""))
    }
    if not other:
        text = f"as here: {len(there.versions)} versions are equal"
        return Check(subject="versions", state="ok", text=text)
    named = ", ".join(f"{name} {found} (here {mine})" for name, (mine, found) in other.items())
    text = f"{named}; install the same versions, or activate the same environment under `setup`"
    # another matloop may read and write other documents; the rest changes numbers at most
    state: State = "failure" if "matloop" in other else "warning"
    return Check(subject="versions", state=state, text=text)


def _guarded(subject: str, step: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """Yield what a step finds; what it raises is a failure of its subject."""
    try:
        yield from step()
    except MatloopError as error:
        yield Check(subject=subject, state="failure", text=" ".join(str(error).split()))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        text = f"{place}{error.strerror or type(error).__name__}"
        yield Check(subject=subject, state="failure", text=text)
    except Exception as error:  # its text is not repeated: it may quote the connection string
        yield Check(subject=subject, state="failure", text=f"{type(error).__name__} was raised")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def _release(text: str) -> str:
    """Return a version without what only says how it was built, such as ``+cu128``."""
    return text.partition("+")[0]


def _packages() -> Iterator[Check]:
    found = _versions()
    missing = [name for name, text in found.items() if text == "missing"]
    if missing:
        text = f"missing: {', '.join(missing)}; pip install 'matloop[cluster,mongo]'"
        yield Check(subject="packages", state="failure", text=text)
    else:
        named = ", ".join(f"{name} {text}" for name, text in found.items())
        yield Check(subject="packages", state="ok", text=named)


def _folder(directory: Path) -> Iterator[Check]:
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory / f".doctor-{uuid4().hex[:12]}"
    try:
        with whole_file(probe) as partial:
            partial.write_text("probe")
        with probe.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                text = f"{directory} knows no locks ({error.strerror}); mount it with flock"
                yield Check(subject="shared folder", state="failure", text=text)
                return
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(directory).free
    text = f"{directory} can be written, {free / _GIB:.0f} GB free"
    if free < _LITTLE:
        state: State = "failure" if free < _TOO_LITTLE else "warning"
        text = f"{directory} has only {free / _GIB:.1f} GB free; make room, or choose another"
        yield Check(subject="shared folder", state=state, text=text)
    else:
        yield Check(subject="shared folder", state="ok", text=text)


def _database(site: Site) -> Iterator[Check]:
    from pymongo import MongoClient
    from pymongo.errors import (
        ConfigurationError as PyMongoConfigurationError,
    )
    from pymongo.errors import InvalidURI, OperationFailure, PyMongoError

    address = site.uri()
    try:
        client: MongoClient[dict[str, Any]] = MongoClient(
            address, serverSelectionTimeoutMS=_TIMEOUT_MS, tz_aware=True
        )
    except (InvalidURI, PyMongoConfigurationError, ValueError):
        text = "the connection string cannot be read: write mongodb://USER:PASSWORD@HOST/"
        yield Check(subject="database", state="failure", text=text)
        return
    with client:
        try:
            client.admin.command("ping")
            begun = time.time()
            answer = client.admin.command("hello")
            ended = time.time()
            number = client.server_info()["version"]
            took = f"{1000 * (ended - begun):.0f} ms"
            text = f"MongoDB protocol, version {number}, answers in {took}"
            yield Check(subject="database", state="ok", text=text)
            yield from _clock(answer, (begun + ended) / 2)
            yield from _unique_keys(client[site.database.name]["doctor"])
        except OperationFailure as error:
            text = (
                f"the server refuses (code {error.code}): user and password must be right, and "
                f"may read and write the database {site.database.name!r}"
            )
            yield Check(subject="database", state="failure", text=text)
        except PyMongoError as error:
            text = (
                f"the server does not answer from here ({type(error).__name__}): is it running, "
                "and may this machine reach its port?"
            )
            yield Check(subject="database", state="failure", text=text)


def _programs() -> Iterator[Check]:
    """Look for the outside programs that this environment names; usually none."""
    for subject, text, usable in programs.named():  # a campaign may do without
        yield Check(subject=subject, state="ok" if usable else "warning", text=text)


def _clock(answer: dict[str, Any], mine: float) -> Iterator[Check]:
    moment = answer.get("localTime")
    if moment is None:
        return
    theirs = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    off = abs(theirs.timestamp() - mine)
    if off <= _CLOCK_OFF:
        yield Check(subject="clock", state="ok", text=f"{off:.1f} s off the database's")
    else:
        state: State = "failure" if off > _CLOCK_WRONG else "warning"
        text = f"{off:.0f} s off the database's: living workers could be taken for lost; use NTP"
        yield Check(subject="clock", state=state, text=text)


def _unique_keys(collection: Any) -> Iterator[Check]:
    from pymongo.errors import DuplicateKeyError

    collection.create_index("token", unique=True)
    token = uuid4().hex
    try:
        collection.insert_one({"token": token})
        collection.insert_one({"token": token})
    except DuplicateKeyError:
        yield Check(subject="unique keys", state="ok", text="a second writer is refused")
    else:
        text = "the database took a document twice; matloop needs unique indexes"
        yield Check(subject="unique keys", state="failure", text=text)
    finally:
        collection.delete_many({"token": token})


def _cores(wanted: WorkerKind) -> Iterator[Check]:
    found = len(os.sched_getaffinity(0))
    if found < wanted.cores:
        text = f"{found}, but the kind asks for {wanted.cores}; lower `cores`, or see `extra`"
        yield Check(subject="cores", state="failure", text=text)
    else:
        yield Check(subject="cores", state="ok", text=f"{found}, {wanted.cores} asked for")


def _time_left() -> Iterator[Check]:
    from matloop.jobs.walltime import seconds_left

    if seconds_left() is None:
        text = "SLURM does not say how long this job may run; work may be cut off by its end"
        yield Check(subject="time left", state="warning", text=text)
    else:
        yield Check(subject="time left", state="ok", text="SLURM says how long a job may run")


def _gpus(wanted: WorkerKind) -> Iterator[Check]:
    import torch

    found = torch.cuda.device_count()
    names = ", ".join(sorted({torch.cuda.get_device_name(card) for card in range(found)}))
    if found < wanted.gpus:
        text = f"torch sees {found}, but the kind asks for {wanted.gpus}: " + (
            "is this torch built for CPUs?" if torch.version.cuda is None else "see `gpus`, `extra`"
        )
        yield Check(subject="GPUs", state="failure", text=text)
    elif found > wanted.gpus:
        text = f"torch sees {found} ({names}), {wanted.gpus} asked for: jobs may share a card"
        yield Check(subject="GPUs", state="warning", text=text)
    else:
        yield Check(subject="GPUs", state="ok", text=f"torch sees {found} ({names})")


def _engines() -> Iterator[Check]:
    found = {name: _lacks(name) for name in registry.names("engines")}
    if not found:
        text = "none is installed; a stage with `calculate` cannot run"
        yield Check(subject="engines", state="warning", text=text)
    # a campaign may do without an engine, but not without all of them
    state: State = "warning" if not all(found.values()) else "failure"
    for name, problems in found.items():
        for problem in problems:
            yield Check(subject=name, state=state, text=problem)
        if not problems:
            yield Check(subject=name, state="ok", text="can calculate")


def _lacks(name: str) -> list[str]:
    try:
        return list(registry.build("engines", name, {}).problems())
    except (MatloopError, ImportError, AttributeError) as error:
        return [" ".join(str(error).split())]


def _fireworks_files(site: Site) -> Iterator[Check]:
    if old := outdated(site):
        text = f"{', '.join(old)} in {site.fireworks}: not as the site says; `matloop site update`"
        yield Check(subject="FireWorks' files", state="failure", text=text)
    else:
        yield Check(subject="FireWorks' files", state="ok", text=f"lpad -c {site.fireworks}")


def _scheduler(site: Site) -> Iterator[Check]:
    if not shutil.which("sbatch"):
        raise SchedulerError("there is no `sbatch` here; run this where jobs are submitted")
    known, usual = slurm.partitions(), slurm.default_partition()
    slurm.jobs()
    yield Check(subject="SLURM", state="ok", text=f"partitions: {', '.join(known)}")
    for name, kind in site.kinds.items():
        yield _partition(name, kind.queue or usual, kind, known)


def _partition(name: str, queue: str, kind: WorkerKind, known: dict[str, slurm.Partition]) -> Check:
    subject = f"queue of {name}"
    if queue not in known:
        wrong = f"there is no partition {queue!r}" if queue else "there is no default partition"
        text = f"{wrong}; choose of {', '.join(known)}"
        return Check(subject=subject, state="failure", text=text)
    found = known[queue]
    if found.limit is not None and kind.seconds > found.limit:
        text = f"{kind.walltime} is more than {queue} allows: {_clock_text(found.limit)}"
        return Check(subject=subject, state="failure", text=text)
    if kind.cores > found.cores:
        text = f"no node of {queue} has {kind.cores} cores, the largest has {found.cores}"
        return Check(subject=subject, state="failure", text=text)
    if not found.available:
        text = f"{queue} is down; jobs will wait"
        return Check(subject=subject, state="warning", text=text)
    return Check(subject=subject, state="ok", text=f"{queue}, {kind.walltime}")


def _clock_text(seconds: float) -> str:
    days, rest = divmod(round(seconds), 86_400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock
