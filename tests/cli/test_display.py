"""Live progress."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console

from matloop.cli.display import Display
from matloop.events import Progress, report

OUTCOMES = (("passed", 3), ("rejected", 1), ("failed", 0), ("held", 0))


def play(console: Console, log: Path) -> None:
    with Display(log, console):
        report(Progress(0, 2, "references", 5, 5))
        logging.getLogger("matloop.jobs").warning("reference [x] is set aside")
        logging.getLogger("matloop.jobs").info("a detail")
        for done in range(5):
            report(Progress(0, 2, "validity", done, 4))
        report(Progress(0, 2, "validity", 4, 4, OUTCOMES))
        report(Progress(0, 2, "learn", 1, 1, discoveries=2))


def test_a_log_has_one_line_per_stage(tmp_path: Path) -> None:
    """Where nobody watches, a stage is one line when it ends; warnings are shown, details not."""
    out = io.StringIO()
    play(Console(file=out, width=80), tmp_path / "run.log")
    lines = [line.split(" ", 1)[1] for line in out.getvalue().splitlines()]
    assert [line.split(" (")[0] for line in lines] == [
        "! reference [x] is set aside",
        "references: 5 phases computed",
        "iteration 1/2 validity: 3 passed · 1 rejected",
        "iteration 1/2 learn: 2 discoveries so far",
    ]


def fail(display: Display) -> None:
    with display:
        logging.getLogger("matloop.jobs").info("a detail")
        raise RuntimeError("gone")


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_fits_its_width(tmp_path: Path, width: int) -> None:
    """On a terminal every line fits, and finished stages stay."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    play(console, tmp_path / "run.log")
    text = out.getvalue()
    assert "iteration 1 of 2" in text
    assert "✓ validity" in text
    finished = [line for line in text.splitlines() if "✓" in line]
    assert all(len(line) <= width for line in finished)


def test_what_goes_wrong_is_in_the_log_file(tmp_path: Path) -> None:
    """The log file holds details and the traceback of the exception that ended the run."""
    log = tmp_path / "run.log"
    with pytest.raises(RuntimeError):
        fail(Display(log, Console(file=io.StringIO())))
    text = log.read_text()
    assert "a detail" in text
    assert "RuntimeError: gone" in text
    assert "Traceback" in text


def test_a_log_that_cannot_be_written_disturbs_nobody(tmp_path: Path) -> None:
    """A full or read-only disk costs the log, not the run."""
    out = io.StringIO()
    play(Console(file=out, width=80), tmp_path / "missing" / "run.log")
    assert "validity" in out.getvalue()
