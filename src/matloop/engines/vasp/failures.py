"""Why a VASP run failed, in plain words, and whether it is worth continuing.

Custodian retries what it has a remedy for. What is left when it gives up, or never came to see, is
read from what the run left behind: custodian's log, VASP's own messages, the task document.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monty.json import MSONable

from matloop.engines.vasp.words import WORDS

if TYPE_CHECKING:
    from custodian.custodian import ErrorHandler
    from emmet.core.tasks import TaskDoc


@dataclass(frozen=True)
class Failure(MSONable):
    """Why a run failed.

    Attributes
    ----------
    kind
        Short name: custodian's for what custodian knows, ours for the rest (see
        `matloop.engines.vasp.words`).
    reason
        What happened, one clause in plain words.
    handler
        Custodian's handler that gave up; empty if none had a say.
    continues
        Whether the last geometry is worth starting from again.
    """

    kind: str
    reason: str
    handler: str = ""
    continues: bool = False


@dataclass(frozen=True)
class Remedy:
    """What one of custodian's handlers finds in a folder, and would change.

    Attributes
    ----------
    handler
        Class name.
    errors
        What it found, in its own names.
    changes
        What it would set or copy, one phrase each; empty if it knows no remedy.
    """

    handler: str
    errors: tuple[str, ...]
    changes: tuple[str, ...]


_CONTINUES = {
    "walltime",
    "lost",
    "crash",
    "incomplete",
    "ionic",
    "Frozen job",
    "zbrent",
    "brions",
    "POTIM",
}
# Atoms move on in these; a fresh start from where they are is the usual cure.

_CRASHES = {
    "memory": ("out of memory", "oom-kill", "oom_kill", "cannot allocate memory", "std::bad_alloc"),
    "crash": (
        "segmentation fault",
        "sigsegv",
        "signal 11",
        "floating point exception",
        "mpi_abort",
    ),
}


def handlers(seconds_left: int | None = None, margin: int = 600) -> list[ErrorHandler]:
    """Return custodian's handlers as atomate2 uses them, fresh, with one for the walltime.

    atomate2's own list is one set of objects per process, and they count errors: a fresh set keeps
    one crystal's troubles from another's remedies.

    Parameters
    ----------
    seconds_left
        How long the job may still run (s); None if nothing ends it.
    margin
        Time before that at which VASP is asked to stop (s).
    """
    from atomate2.vasp.run import DEFAULT_HANDLERS
    from custodian.vasp.handlers import WalltimeHandler

    fresh: list[ErrorHandler] = [type(handler)() for handler in DEFAULT_HANDLERS]
    if seconds_left is not None:
        fresh.append(WalltimeHandler(wall_time=seconds_left, buffer_time=margin))
    return fresh


def running(folder: Path, error: Exception) -> bool:
    """Return whether VASP had been started when an error was raised.

    Missing commands, pseudopotentials and rights are faults of the machine, and say nothing of the
    crystal: they are not to end as its verdict.
    """
    machine = isinstance(error, OSError) and error.errno is not None
    return not machine and any(folder.glob("vasp.out*"))


def classify(
    folder: Path, document: TaskDoc | None = None, error: Exception | None = None
) -> Failure | None:
    """Return why a run failed; None if it did not.

    Parameters
    ----------
    folder
        Where VASP ran.
    document
        Task document, if one could be made.
    error
        What custodian or the parser raised, if anything.
    """
    log = custodian_log(folder)
    if _stopped_for_time(log):
        return _named("walltime", "WalltimeHandler")
    if error is None and document is not None:
        return _unconverged(document)
    last = log[-1] if log else {}
    corrections = [item for item in last.get("corrections") or [] if not item.get("skipped")]
    gave_up = (
        last.get("handler") or last.get("max_errors") or last.get("max_errors_per_job")
        or last.get("max_errors_per_handler")
    )  # fmt: skip
    if corrections and gave_up:
        return _given_up(corrections, folder)
    messages = _messages(folder)
    for kind, needles in _CRASHES.items():
        if any(needle in messages for needle in needles):
            return _named(kind)
    found = [name for remedy in _findings(folder, _witnesses()) for name in remedy.errors]
    if found:
        return _named(_finer(found[0], folder))
    if not _complete(folder):
        return _named("incomplete", detail=_last_line(folder))
    validator = _class_of(last.get("validator"))
    if validator == "VaspFilesValidator":
        return _named("no_output")
    if validator == "VasprunXMLValidator":
        return _named("incomplete", detail=_last_line(folder))
    if last.get("nonzero_return_code"):
        return _named("crash", detail=_last_line(folder))
    said = str(error).splitlines()[0][:160] if error is not None and str(error) else ""
    return _named("unparsed", detail=said)


def remedies(folder: Path) -> list[Remedy]:
    """Return what custodian's handlers find in a folder of VASP files, and what they would change.

    They work on a copy: the folder stays as it is. A handler that lacks its files has no say, nor
    has the one that compares the age of a file with the clock.
    """
    return _findings(folder, handlers())


def custodian_log(folder: Path) -> list[dict[str, Any]]:
    """Return what custodian wrote of its attempts in a folder; nothing if it wrote nothing."""
    text = _text(folder, "custodian.json")
    try:
        log = json.loads(text) if text else []
    except ValueError:  # cut short
        return []
    return [entry for entry in log if isinstance(entry, dict)] if isinstance(log, list) else []


def _witnesses() -> list[ErrorHandler]:
    # Beside the handlers that retry, those whose finding explains a run that died all the same.
    from custodian.vasp.handlers import (
        AliasingErrorHandler,
        DriftErrorHandler,
        LrfCommutatorHandler,
        NonConvergingErrorHandler,
    )

    return [
        *handlers(),
        NonConvergingErrorHandler(nionic_steps=3),
        LrfCommutatorHandler(),
        AliasingErrorHandler(),
        DriftErrorHandler(),
    ]


def _findings(folder: Path, asked: Sequence[ErrorHandler]) -> list[Remedy]:
    from custodian.utils import tracked_lru_cache

    found = []
    with tempfile.TemporaryDirectory() as scratch:
        _copy(folder, Path(scratch))
        for handler in asked:
            if type(handler).__name__ == "FrozenJobErrorHandler":
                continue
            try:
                answer = _answer(handler, scratch)
            except Exception:  # handlers fail in many ways on the files they lack
                continue
            if answer is None:
                continue
            errors = tuple(sorted(str(name) for name in answer.get("errors") or ()))
            changes = tuple(_change(action) for action in answer.get("actions") or ())
            found.append(Remedy(type(handler).__name__, errors, changes))
        tracked_lru_cache.tracked_cache_clear()  # custodian keeps what it read, by path
    return found


def _answer(handler: ErrorHandler, folder: str) -> Mapping[str, Any] | None:
    # What a handler would do about a folder; None if it finds nothing wrong.
    if not handler.check(folder):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        _copy(Path(folder), Path(scratch))  # corrections write
        try:
            answer: Mapping[str, Any] = handler.correct(scratch)
        except Exception:  # it knows what is wrong, and lacks a file to say what would help
            answer = {"errors": getattr(handler, "errors", ())}
        return answer


def _named(kind: str, handler: str = "", detail: str = "") -> Failure:
    words = WORDS.get(kind, kind)
    reason = f"{words} ({kind})" if kind in WORDS else words
    return Failure(kind, f"{reason}: {detail}" if detail else reason, handler, kind in _CONTINUES)


def _given_up(corrections: Sequence[Mapping[str, Any]], folder: Path) -> Failure:
    last = corrections[-1]
    kind = _finer(str((sorted(last.get("errors") or ()) or ["unknown"])[0]), folder)
    handler = _class_of(last.get("handler"))
    tried = sum(1 for item in corrections if item.get("actions"))
    times = f"{tried} correction" + ("s" if tried != 1 else "")
    detail = f"{handler} gave up after {times}" if tried else f"{handler} knows no remedy"
    return _named(kind, handler, detail)


def _finer(kind: str, folder: Path) -> str:
    # Custodian calls both unconverged; only ions that moved on are worth continuing.
    if kind != "Unconverged":
        return kind
    from pymatgen.io.vasp import Vasprun

    with tempfile.TemporaryDirectory() as scratch:
        _copy(folder, Path(scratch))
        try:
            run = Vasprun(
                Path(scratch) / "vasprun.xml",
                parse_dos=False,
                parse_eigen=False,
                parse_potcar_file=False,
                exception_on_bad_xml=False,
            )
            return "electronic" if not run.converged_electronic else "ionic"
        except Exception:  # pymatgen fails in many ways on a file cut short
            return kind


def _complete(folder: Path) -> bool:
    return "</modeling>" in _text(folder, "vasprun.xml")[-1000:]


def _unconverged(document: TaskDoc) -> Failure | None:
    state = getattr(document.state, "value", document.state)
    if state == "successful":
        return None
    if document.analysis is not None and document.analysis.errors:
        return _named("overlap")
    calculation = (document.calcs_reversed or [None])[0]
    if calculation is None or calculation.input is None or calculation.output is None:
        return _named("unparsed")
    steps = calculation.output.ionic_steps or []
    settings = {**(calculation.input.parameters or {}), **(calculation.input.incar or {})}
    electronic = len(getattr(steps[-1], "electronic_steps", None) or ()) if steps else 0
    if electronic >= int(settings.get("NELM", 60)):
        return _named("electronic")
    limit = int(settings.get("NSW", 0))
    return _named("ionic") if limit and len(steps) >= limit else _named("electronic")


def _stopped_for_time(log: Sequence[Mapping[str, Any]]) -> bool:
    corrections = (log[-1].get("corrections") or []) if log else []
    return any("Walltime reached" in (item.get("errors") or ()) for item in corrections)


def _class_of(value: object) -> str:
    if isinstance(value, Mapping):
        return str(value.get("@class") or "")
    return str(value or "")


def _last_line(folder: Path) -> str:
    lines = [line.strip() for line in _text(folder, "std_err.txt").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _messages(folder: Path) -> str:
    tails = [_text(folder, name)[-20_000:] for name in ("vasp.out", "std_err.txt")]
    return "\n".join(tails).lower()


def _text(folder: Path, name: str) -> str:
    for path in (folder / name, folder / f"{name}.gz"):
        try:
            if path.suffix == ".gz":
                return _unpacked(path).decode(errors="replace")
            return path.read_text(errors="replace")
        except (OSError, EOFError):
            continue
    return ""


def _copy(folder: Path, target: Path) -> None:
    for path in sorted(folder.iterdir()):
        if not path.is_file():
            continue
        if path.suffix == ".gz":
            (target / path.stem).write_bytes(_unpacked(path))
        else:
            shutil.copyfile(path, target / path.name)


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def _change(action: Mapping[str, Any]) -> str:
    where = str(action.get("dict") or action.get("file") or "")
    parts = []
    for verb, content in (action.get("action") or {}).items():
        if isinstance(content, Mapping) and verb == "_set":
            parts += [f"{key} = {_short(value)}" for key, value in content.items()]
        elif isinstance(content, Mapping) and "dest" in content:
            parts.append(f"copied to {content['dest']}")
        elif verb == "_unset":
            parts.append(f"without {', '.join(content)}")
        else:
            parts.append(verb.strip("_").replace("_", " "))
    return f"{where}: {', '.join(parts)}" if parts else where


def _short(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
