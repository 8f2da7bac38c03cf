"""The end of a batch job, as a job in it learns of it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from matloop.errors import ConfigurationError
from matloop.jobs import walltime
from matloop.jobs.workers import usable_cores


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin outside of a batch job, with nothing asked yet."""
    for name in ("MATLOOP_DEADLINE", "MATLOOP_CORES", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(walltime, "_ends", {})
    monkeypatch.setattr(walltime, "_asked", {})


def squeue(folder: Path, line: str, status: int = 0) -> Path:
    """Install a squeue that answers one line, and return the file with one line per question."""
    asked, program = folder / "asked", folder / "squeue"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nprint(*sys.argv[1:], file=open({str(asked)!r}, 'a'))\n"
        f"print({line!r})\nsys.exit({status})\n"
    )
    program.chmod(0o700)
    return asked


def test_nothing_ends_a_process_outside_of_a_job() -> None:
    """Without a batch job and a deadline there is no end."""
    assert walltime.seconds_left() is None


def test_a_deadline_is_obeyed_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline counts down and may be brought forward at any time."""
    monkeypatch.setenv("MATLOOP_DEADLINE", str(time.time() + 100))
    assert walltime.seconds_left() == pytest.approx(100, abs=2)
    os.environ["MATLOOP_DEADLINE"] = str(time.time() - 5)
    assert walltime.seconds_left() == pytest.approx(-5, abs=2)


def test_an_unreadable_deadline_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline in another form is the user's mistake, not infinity."""
    monkeypatch.setenv("MATLOOP_DEADLINE", "tomorrow")
    with pytest.raises(ConfigurationError, match="MATLOOP_DEADLINE"):
        walltime.seconds_left()


def test_slurm_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM's answer is counted down by this process's own clock."""
    asked = squeue(tmp_path, "1:00")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    first = walltime.seconds_left()
    time.sleep(0.05)
    second = walltime.seconds_left()
    assert first is not None
    assert second is not None
    assert 60 >= first > second > 55
    assert asked.read_text().splitlines() == ["--noheader --jobs=12 --format=%L"]


def test_a_job_without_limit_has_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UNLIMITED is no end, and not asked again."""
    asked = squeue(tmp_path, "UNLIMITED")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert [walltime.seconds_left(), walltime.seconds_left()] == [None, None]
    assert len(asked.read_text().splitlines()) == 1


def test_a_silent_scheduler_is_asked_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer is not taken for no limit: it is asked again, but not at every call."""
    asked = squeue(tmp_path, "", status=1)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert [walltime.seconds_left(), walltime.seconds_left()] == [None, None]
    assert len(asked.read_text().splitlines()) == 1
    monkeypatch.setattr(walltime, "_PAUSE", 0.0)
    squeue(tmp_path, "10:00")
    assert walltime.seconds_left() == pytest.approx(600, abs=5)


@pytest.mark.parametrize("name", ["SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "MATLOOP_CORES"])
def test_a_job_uses_the_cores_it_was_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cgroups a job sees the whole node; it uses its own part, of what there is."""
    everything = usable_cores()
    monkeypatch.setenv(name, "1")
    assert usable_cores() == 1
    monkeypatch.setenv(name, "100000")
    assert usable_cores() == everything
    monkeypatch.setenv(name, "2(x3)")
    assert usable_cores() == everything
