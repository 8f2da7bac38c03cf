"""A program outside: what it is told and sees, what becomes of its crystals, how it ends."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from matloop.documents.candidate import structure_digest
from matloop.errors import ConfigurationError, ProgramError
from matloop.generators import programs
from matloop.generators.command import Command
from matloop.protocols import ProposalRequest
from matloop.registry import build
from matloop.settings import settings
from matloop.testing.conformance import check_generator

from .outside import write_stand_in

Program = Callable[[str], Command]
KEEP = "MATLOOP_PROGRAM_FOLDER"


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Return what makes a generator whose program behaves as told; its folders are kept."""
    monkeypatch.setenv(KEEP, str(tmp_path / "kept"))

    def made(how: str, **fields: object) -> Command:
        monkeypatch.setenv("MATLOOP_PROGRAMS__STAND_IN", write_stand_in(tmp_path, how))
        settings.cache_clear()
        return build("generators", "command", {"program": "stand_in", **fields})

    return made


@pytest.fixture
def wanted(oxide_request: ProposalRequest) -> ProposalRequest:
    """Six strontium titanates."""
    return replace(oxide_request, count=6)


def kept_folder(tmp_path: Path) -> Path:
    """Return the folder of the only run."""
    (folder,) = (tmp_path / "kept").iterdir()
    return folder


def told(folder: Path, what: str) -> object:
    """Return what the program said of its arguments (WORDS) or environment (SEES)."""
    lines = (folder / "stdout.txt").read_text().splitlines()
    return json.loads(next(line for line in lines if line.startswith(what)).split(" ", 1)[1])


def alive(pid: int) -> bool:
    """Tell whether a process runs; a dead one that nobody waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def gone(pids: list[int]) -> bool:
    """Wait until processes are gone; False if some stay."""
    for _ in range(100):
        if not any(map(alive, pids)):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("output", ["crystals", "crystals.zip", "crystals.extxyz"])
def test_it_conforms_whatever_is_written(
    program: Program, wanted: ProposalRequest, output: str
) -> None:
    """A folder of CIFs, a zip of them, and extxyz give the crystals of the seed, in the space."""
    generator = program("well", output=output)
    check_generator(generator, wanted)
    crystals = generator.propose(wanted)
    assert len(crystals) == 6
    assert {p.structure.composition.reduced_formula for p in crystals} == {"SrTiO3"}
    assert all(p.parameters["seeded"] for p in crystals)


def test_what_the_program_is_told(
    program: Program, wanted: ProposalRequest, tmp_path: Path
) -> None:
    """Placeholders, the request and the parents reach it; nothing else in an argument changes."""
    arguments = ["--count={count}", "--output={output}", "--a={system}/{elements}", "--b={request}",
                 "--c={found}", '--d={"x": 1} $HOME `id`', "--seed={seed}"]  # fmt: skip
    program("well", arguments=arguments, oversample=1.5).propose(replace(wanted, seed=2**40 + 7))
    folder = kept_folder(tmp_path)
    words = told(folder, "WORDS")
    request = json.loads((folder / "request.json").read_text())
    assert words == [
        "--count=9", f"--output={folder}/crystals", "--a=Sr-Ti-O/Sr,Ti,O",
        f"--b={folder}/request.json", f"--c={folder}/found.extxyz", '--d={"x": 1} $HOME `id`',
        "--seed=7",
    ]  # fmt: skip
    assert request["contract"] == 1
    assert (request["count"], request["max_atoms"]) == (9, 20)
    assert request["elements"] == ["Sr", "Ti", "O"]
    from ase.io import read

    frames = read(folder / "found.extxyz", index=":")
    assert [frame.info["parent_id"] for frame in frames] == ["found-1", "found-2", "found-3"]
    assert frames[1].info["utility"] == -0.1
    assert len(frames[1]) == 6


def test_no_secret_reaches_the_program(
    program: Program, wanted: ProposalRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and database addresses stay here; what the user names passes, and TMPDIR is its own."""
    for name in ("MP_API_KEY", "MATLOOP_MONGODB_URI", "PYTHONPATH", "MY_LICENCE"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("MATLOOP_PROGRAM_VARIABLES", "MY_LICENCE")
    program("well").propose(wanted)
    folder = kept_folder(tmp_path)
    seen = told(folder, "SEES")
    assert isinstance(seen, dict)
    assert [name for name, value in seen.items() if value == "secret"] == ["MY_LICENCE"]
    assert seen["TMPDIR"] == str(folder / "tmp")
    assert seen["PATH"] == os.environ["PATH"]


def test_a_campaign_file_names_no_file(wanted: ProposalRequest) -> None:
    """What the environment does not name does not run: no path, no unknown name."""
    for wrong, match in (
        ({"program": "/bin/sh"}, "must be a name"),
        ({"program": "../x"}, "must be a name"),
        ({"program": "p", "output": "../../x"}, "plain file or folder"),
        ({"program": "p", "arguments": ["{cuont}"]}, "known are {count}"),
        ({"program": "p", "timeout": 0.0}, "timeout must be"),
        ({"program": "p", "oversample": 0.5}, "oversample must be"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            build("generators", "command", wrong)
    with pytest.raises(ConfigurationError, match="MATLOOP_PROGRAMS__SH to its command"):
        Command("sh").propose(wanted)


@pytest.mark.parametrize(
    ("command", "match"),
    [
        (sys.executable, "name the script too"),
        ("bash", "name the script too"),
        ("/nowhere/sample", "is not there"),
        ("'sample", "No closing quotation"),
    ],
)
def test_a_command_that_cannot_serve(
    wanted: ProposalRequest, monkeypatch: pytest.MonkeyPatch, command: str, match: str
) -> None:
    """A bare interpreter and a missing file are mistakes of the environment, named by variable."""
    monkeypatch.setenv("MATLOOP_PROGRAMS__STAND_IN", command)
    with pytest.raises(ConfigurationError, match=rf"MATLOOP_PROGRAMS__STAND_IN: .*{match}"):
        Command("stand_in").propose(wanted)
    ((subject, text, usable),) = programs.named()
    assert (subject, usable) == ("program stand_in", False)
    assert match in text


def test_a_file_that_is_no_program(
    wanted: ProposalRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the system will not start is reported, not raised as it comes."""
    file = tmp_path / "sample"
    file.write_bytes(b"\x00\x01")
    file.chmod(0o755)
    monkeypatch.setenv("MATLOOP_PROGRAMS__STAND_IN", str(file))
    with pytest.raises(ProgramError, match="stand_in: not started: Exec format error"):
        Command("stand_in").propose(wanted)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("fail", "exit status 1: RuntimeError: CUDA out of memory"),
        ("nothing", "it wrote no crystal|no structure file"),
        ("garbage", "unreadable, it cannot be read: it has no block with atoms"),
    ],
)
def test_failures_say_why(program: Program, wanted: ProposalRequest, how: str, match: str) -> None:
    """A program that leaves nothing usable is an error with its status and its last words."""
    with pytest.raises(ProgramError, match=match):
        program(how).propose(wanted)


def test_crystals_before_a_crash_count(
    program: Program, wanted: ProposalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole crystals are proposed although the program died after writing them; the log says so."""
    assert len(program("crash").propose(wanted)) == 6
    assert "a run failed: was ended by SIGSEGV" in caplog.text


def test_strays_are_left_out_and_counted(
    program: Program, wanted: ProposalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """What is outside of the space is no proposal; asking for more makes up for it."""
    assert len(program("strays").propose(wanted)) == 3
    assert "3 inside the space, 3 outside (holds Pb, outside the chemical space)" in caplog.text
    assert len(program("strays", oversample=2.0).propose(wanted)) == 6


def test_nothing_wanted_runs_nothing(
    program: Program, wanted: ProposalRequest, tmp_path: Path
) -> None:
    """A request for no crystals starts no program."""
    assert program("well").propose(replace(wanted, count=0)) == []
    assert not (tmp_path / "kept").exists()


def test_timeout_ends_the_whole_group(
    program: Program, wanted: ProposalRequest, tmp_path: Path
) -> None:
    """A program that takes too long dies, with the processes it started."""
    pids = tmp_path / "pids"
    arguments = ["--count={count}", "--output={output}", f"--pids={pids}"]
    with pytest.raises(ProgramError, match=r"did not end within 1\.5 s"):
        program("hang", arguments=arguments, timeout=1.5).propose(wanted)
    assert gone([int(pid) for pid in pids.read_text().split()])


def test_who_ignores_the_request_to_end_is_killed(
    program: Program, wanted: ProposalRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM may be ignored, SIGKILL not."""
    monkeypatch.setattr(programs, "_GRACE", 0.3)
    started = time.monotonic()
    with pytest.raises(ProgramError, match="did not end within 1 s"):
        program("stubborn", timeout=1.0).propose(wanted)
    assert time.monotonic() - started < 60


def test_nothing_is_left_behind(
    program: Program, wanted: ProposalRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Background processes of a program that ended are killed, and its folder is removed."""
    pids = tmp_path / "pids"
    generator = program(
        "leave", arguments=["--count={count}", "--output={output}", f"--pids={pids}"]
    )
    monkeypatch.delenv(KEEP)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    settings.cache_clear()
    found = generator.propose(wanted)
    assert len(found) == 6
    assert not any(p.parameters["seeded"] for p in found)
    assert gone([int(pids.read_text())])
    assert list((tmp_path / "temporary").iterdir()) == []


def test_it_dies_with_whoever_asked(
    program: Program, wanted: ProposalRequest, tmp_path: Path
) -> None:
    """`kill -9` of the campaign ends the program and its children."""
    pids = tmp_path / "pids"
    program("hang")
    script = tmp_path / "campaign.py"
    script.write_text(f"""
from pathlib import Path
from matloop.generators import programs
words = {shlex.split(os.environ["MATLOOP_PROGRAMS__STAND_IN"])!r}
with programs.working_folder("x") as folder:
    programs.run([*words, "--count=1", "--output=x", "--pids={pids}"], folder, 600)
""")
    campaign = subprocess.Popen([sys.executable, str(script)])
    try:
        for _ in range(300):
            if pids.exists() and len(pids.read_text().split()) == 2:
                break
            time.sleep(0.1)
        found = [int(pid) for pid in pids.read_text().split()]
        assert all(map(alive, found))
    finally:
        campaign.send_signal(signal.SIGKILL)
        campaign.wait()
    assert gone(found)


def test_a_folder_that_cannot_be_made(
    program: Program, wanted: ProposalRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a place to work, the message says where it was to be, and which variable moves it."""
    generator = program("well")
    (tmp_path / "file").touch()
    monkeypatch.setenv(KEEP, str(tmp_path / "file" / "below"))
    settings.cache_clear()
    with pytest.raises(ProgramError, match=f"Not a directory.*see {KEEP}"):
        generator.propose(wanted)


def test_a_full_disk_is_the_programs_fault(tmp_path: Path) -> None:
    """No space left is an error of the run, with the variable that names another disk."""

    def fill() -> None:
        with programs.working_folder("x"), open("/dev/full", "w") as disk:
            disk.write("x")

    with pytest.raises(ProgramError, match=f"No space left on device.*see {KEEP}"):
        fill()


def test_in_a_portfolio_the_others_take_its_places(
    program: Program, wanted: ProposalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that breaks is a warning with the reason, not the end of the campaign."""
    from matloop.jobs.propose import _given

    with caplog.at_level(logging.WARNING):
        assert _given(program("fail"), wanted, "mine") == []
    assert "generator mine proposes nothing: stand_in: exit status 1" in caplog.text


def test_a_seed_decides(program: Program, wanted: ProposalRequest) -> None:
    """A program that takes the seed gives the same crystals for it, others for another."""
    generator = program("well")
    first, again, other = (
        [structure_digest(p.structure) for p in generator.propose(replace(wanted, seed=seed))]
        for seed in (1, 1, 2)
    )
    assert first == again != other
