"""Programs in environments of their own: found by name, run in a fresh folder, never left behind.

The contract is told to users in docs/outside-generators.md.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from matloop.documents.base import Scalar
from matloop.documents.candidate import structure_digest
from matloop.documents.phase import Known
from matloop.errors import ConfigurationError, ProgramError
from matloop.generators import guardian
from matloop.protocols import Proposal, ProposalRequest
from matloop.settings import settings
from matloop.structures.reading import ReadResult, read_structures

logger = logging.getLogger(__name__)

VARIABLES = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "OMP_NUM_THREADS",
    "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE",
    "XDG_CACHE_HOME", "TORCH_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
"""All that a program sees of this environment, unless ``MATLOOP_PROGRAM_VARIABLES`` says more.
Keys, tokens, database addresses and this environment's own Python are not among them."""

NAME = re.compile(r"[a-z][a-z0-9_]*")
"""Names of programs and checkpoints: what is left of an environment variable in lower case."""

SEEDS = 2**32
"""Seeds that programs are given are below this, the limit of NumPy's `random.seed`."""

_INTERPRETER = re.compile(
    r"(python|pypy|perl|ruby|node|lua)[\d.]*|(ba|da|k|z|fi|c|tc)?sh|env|sudo|ssh|xargs|julia|Rscript"
)
_GRACE = 5.0  # s between the request to end and the end
_TAIL_BYTES, _TAIL_LINES, _TAIL_WIDTH = 8192, 4, 400


@dataclass(frozen=True)
class Ending:
    """How a run of a program ended.

    Attributes
    ----------
    fault
        What went wrong, with the program's last words; empty after exit status 0.
    """

    fault: str = ""


def check_name(name: str, field: str) -> None:
    """Refuse what is no name of a program or checkpoint, such as a path.

    Raises
    ------
    ValueError
        With what a name looks like.
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{field} must be a name of lower-case letters, digits and underscores, not {name!r}; "
            f"the environment says what it stands for"
        )


def command_of(name: str) -> list[str]:
    """Return the words of the command that the environment gives a program's name.

    Raises
    ------
    ConfigurationError
        If it gives none, the file is not there or may not be executed, or it is an interpreter
        without a script, which would run whatever a campaign file told it.
    """
    variable = f"MATLOOP_PROGRAMS__{name.upper()}"
    try:
        words = shlex.split(settings().programs.get(name, ""))
    except ValueError as error:
        raise ConfigurationError(f"{variable}: {error}") from None
    if not words:
        known = ", ".join(sorted(settings().programs)) or "none"
        raise ConfigurationError(
            f"the environment names no program {name!r} (it names: {known}); set {variable} to its "
            "command, such as /path/to/environment/bin/mattergen-generate"
        )
    found = shutil.which(os.path.expanduser(words[0]))
    if found is None:
        raise ConfigurationError(f"{variable}: {words[0]} is not there, or may not be executed")
    if len(words) == 1 and _INTERPRETER.fullmatch(Path(found).name):
        raise ConfigurationError(
            f"{variable}: {words[0]} would run anything that a campaign file tells it; "
            "name the script too"
        )
    return [os.path.abspath(found), *words[1:]]


def checkpoint_of(name: str) -> Path:
    """Return the place of a trained model that the environment names.

    Raises
    ------
    ConfigurationError
        If it names none, or nothing is there.
    """
    variable = f"MATLOOP_CHECKPOINTS__{name.upper()}"
    path = settings().checkpoints.get(name)
    if path is None:
        known = ", ".join(sorted(settings().checkpoints)) or "none"
        raise ConfigurationError(
            f"the environment names no checkpoint {name!r} (it names: {known}); set {variable} to "
            "its folder"
        )
    path = path.expanduser().absolute()
    if not path.exists():
        raise ConfigurationError(f"{variable}: there is no {path}")
    return path


def named() -> Iterator[tuple[str, str, bool]]:
    """Yield each program and checkpoint of this environment, what is wrong with it, or its place.

    The last item says whether it can be used.
    """
    known = settings()
    finders: list[tuple[str, str, Callable[[str], list[str] | Path]]] = [
        *(("program", name, command_of) for name in sorted(known.programs)),
        *(("checkpoint", name, checkpoint_of) for name in sorted(known.checkpoints)),
    ]
    for kind, name, find in finders:
        try:
            found = find(name)
        except ConfigurationError as error:
            yield f"{kind} {name}", str(error), False
        else:
            yield f"{kind} {name}", str(found[0] if isinstance(found, list) else found), True


@contextmanager
def working_folder(name: str) -> Iterator[Path]:
    """Give a program a folder of its own, removed afterwards unless the settings name its place.

    Raises
    ------
    ProgramError
        If none can be made: the disk is full, or the folder may not be written.
    """
    kept = settings().program_folder
    try:
        if kept is not None:
            kept.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"matloop-{name}-", dir=kept)).resolve()
        (folder / "tmp").mkdir()
    except OSError as error:
        raise ProgramError(f"{name} cannot be given a folder: {_disk(error)}") from None
    try:
        yield folder
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ProgramError(f"{name}: {_disk(error)}") from None
    finally:
        shutil.rmtree(folder / "tmp", ignore_errors=True)
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)


def run(command: Sequence[str], folder: Path, timeout: float) -> Ending:
    """Run a command to its end, without a shell, and say how it ended.

    Whatever ends this function, or this process, ends every process of the command that did not
    leave its session.

    Parameters
    ----------
    command
        Program and arguments.
    folder
        Where it runs; ``stdout.txt`` and ``stderr.txt`` there take what it says.
    timeout
        Longest time (s). Then it is asked to end (SIGTERM), and 5 s later it is killed.
    """
    words = [sys.executable, "-I", "-S", str(Path(guardian.__file__)), *command]
    guard = subprocess.Popen(
        words, cwd=folder, env=environment(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    too_long = False
    with guard:
        try:
            guard.wait(timeout)
        except subprocess.TimeoutExpired:
            too_long = True
            _signal(guard, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                guard.wait(_GRACE)
        finally:
            if guard.poll() != -signal.SIGKILL:  # which is how it ends itself, with the group
                _signal(guard, signal.SIGKILL)
            guard.wait()
        told = guard.stdout.read().decode() if guard.stdout else ""
        if not told:  # the guardian itself was killed
            _signal(guard, signal.SIGKILL)
    if too_long:
        return Ending(f"did not end within {timeout:g} s{_last_words(folder)}")
    if told == "0":
        return Ending()
    if not told.lstrip("-").isdigit():
        return Ending(told or f"was killed{_last_words(folder)}")
    code = int(told)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return Ending(how + _last_words(folder))


def environment(folder: Path) -> dict[str, str]:
    """Return what a program sees of this environment, with a temporary folder in its own."""
    more = [name.strip() for name in settings().program_variables.split(",")]
    seen = {name: os.environ[name] for name in (*VARIABLES, *more) if name in os.environ}
    return {**seen, "TMPDIR": str(folder / "tmp")}


def read_output(paths: Sequence[Path]) -> ReadResult:
    """Return what the first of several outputs that holds a crystal holds.

    What is damaged is set aside with the reason, as in every structure file.
    """
    tried: list[ReadResult] = []
    for path in paths:
        if path.exists():
            tried.append(read_structures([path]))
            if tried[-1].crystals:
                return tried[-1]
    return ReadResult((), tuple(aside for result in tried for aside in result.set_aside))


def proposals(
    name: str,
    outputs: Sequence[tuple[Ending, ReadResult]],
    request: ProposalRequest,
    parameters: Mapping[str, Scalar],
) -> list[Proposal]:
    """Return the crystals of one or more runs that lie in the space, and log what became of all.

    Crystals count however the run ended that wrote them: each was whole in a file.

    Raises
    ------
    ProgramError
        If no run left a readable crystal. Crystals outside of the space are no such failure.
    """
    read: list[Known] = [known for _, result in outputs for known in result.crystals]
    damaged = [aside for _, result in outputs for aside in result.set_aside]
    faults = [ending.fault for ending, _ in outputs if ending.fault]
    if not read:
        unread = f"{len(damaged)} outputs unreadable, {damaged[0].reason}" if damaged else ""
        raise ProgramError(f"{name}: " + (faults[0] if faults else unread or "it wrote no crystal"))
    kept: dict[str, Proposal] = {}
    strays: Counter[str] = Counter()
    for known in read:
        objection = request.space.objection(known.structure.composition)
        if objection is not None:
            strays[objection] += 1
            continue
        record = {**parameters, "program": name, "record": known.known_id}
        kept.setdefault(
            structure_digest(known.structure), Proposal(known.structure, parameters=record)
        )
    logger.log(
        logging.WARNING if faults or damaged or strays or len(kept) < request.count else 20,
        "%s wrote %d crystals: %d inside the space, %d outside%s, %d repeated, %d unreadable%s; "
        "%d were asked for%s",
        name, len(read), len(kept), sum(strays.values()), _most(strays),
        len(read) - len(kept) - sum(strays.values()), len(damaged),
        f" ({damaged[0].reason})" if damaged else "", request.count,
        f"; a run failed: {faults[0]}" if faults else "",
    )  # fmt: skip
    return list(kept.values())[: request.count]


def _most(strays: Counter[str]) -> str:
    return f" ({strays.most_common(1)[0][0]})" if strays else ""


def _signal(guard: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(guard.pid, number)


def _last_words(folder: Path) -> str:
    """Return the end of what a program said, on stderr or else on stdout."""
    for file in (folder / guardian.STDERR, folder / guardian.STDOUT):
        try:
            with file.open("rb") as stream:
                stream.seek(max(0, file.stat().st_size - _TAIL_BYTES))
                text = stream.read().decode(errors="replace")
        except OSError:
            continue
        plain = "".join(c if c.isprintable() else "\n" for c in text)
        lines = [line.strip() for line in plain.splitlines() if line.strip()][-_TAIL_LINES:]
        if lines:
            return f": {' / '.join(lines)[-_TAIL_WIDTH:]}"
    return ""


def _disk(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or type(error).__name__}{where}; see MATLOOP_PROGRAM_FOLDER"
