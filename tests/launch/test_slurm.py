"""What SLURM answers, recorded from SLURM 22.05.8: states, times, and its silence."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from matloop.errors import SchedulerError
from matloop.jobs.walltime import parse_duration
from matloop.launch import slurm

RUNNING = "7|RUNNING|1795250713|1795254313|None|matloop-cpu|(null)"
PENDING = "8|PENDING|N/A|N/A|Resources|matloop-gpu|hello|you"
DEAD = "9|NODE_FAIL|1795250712|1795250742|None|wrap|(null)"
AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is the whole PATH: SLURM is what a test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def say(
    programs: Path, name: str, out: str = "", err: str = "", status: int = 0, seconds: float = 0
) -> Path:
    """Install a program that answers this, and return the file that records how it was asked."""
    asked, program = programs / f"{name}.asked", programs / name
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, time\n"
        f"print(*sys.argv[1:], os.environ.get('SLURM_TIME_FORMAT'), file=open({str(asked)!r}, 'a'))"
        f"\ntime.sleep({seconds})\nsys.stdout.write({out!r})\nsys.stderr.write({err!r})\n"
        f"sys.exit({status})\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return asked


def test_many_jobs_are_asked_for_at_once(programs: Path) -> None:
    """One call of squeue answers for living and ended jobs, times in seconds since 1970."""
    asked = say(programs, "squeue", "\n".join([RUNNING, PENDING, DEAD, ""]))
    states = slurm.job_states(["9", "7", "8"])
    assert len(asked.read_text().splitlines()) == 1
    assert "--jobs=7,8,9" in asked.read_text()
    assert states["7"] == slurm.JobState(
        "7", "RUNNING", alive=True, name="matloop-cpu", started=1795250713.0
    )
    assert (states["8"].alive, states["8"].waiting, states["8"].reason) == (True, True, "Resources")
    assert states["8"].comment == "hello|you"
    assert (states["9"].alive, states["9"].ended) == (False, 1795250742.0)


def test_what_squeue_forgot_the_accounting_knows(programs: Path) -> None:
    """A job older than MinJobAge has the end sacct remembers, and is not alive whatever it says."""
    say(programs, "squeue", err="slurm_load_jobs error: Invalid job id specified\n", status=1)
    out = "7|CANCELLED by 1000|1795250713|1795250800|None|matloop-cpu\n"
    say(programs, "sacct", out + "8|RUNNING|1795250713|Unknown|None|matloop-cpu\n")
    states = slurm.job_states(["7", "8"])
    assert (states["7"].state, states["7"].reason) == ("CANCELLED", "CANCELLED by 1000")
    assert states["7"].ended == 1795250800.0
    assert not states["8"].alive, "the controller has answered that it knows no such job"


@pytest.mark.parametrize("accounting", ["none", "disabled"])
def test_a_forgotten_job_is_gone(programs: Path, accounting: str) -> None:
    """A job nobody remembers is gone: the controller was reached, and would know a living one."""
    say(programs, "squeue", err="slurm_load_jobs error: Invalid job id specified\n", status=1)
    if accounting == "disabled":
        say(programs, "sacct", err="Slurm accounting storage is disabled\n", status=1)
    assert slurm.job_states(["7"])["7"].state == slurm.GONE
    assert not slurm.job_states(["7"])["7"].alive


def test_a_silent_scheduler_is_not_an_empty_one(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unreachable, slow or absent, SLURM raises; never do jobs count as gone for that."""
    with pytest.raises(SchedulerError, match="squeue is not installed"):
        slurm.job_states(["7"])
    say(programs, "squeue", err=AWAY, status=1)
    with pytest.raises(SchedulerError, match="Unable to contact slurm controller"):
        slurm.job_states(["7"])
    with pytest.raises(SchedulerError, match="Unable to contact slurm controller"):
        slurm.jobs("someone")
    say(programs, "squeue", RUNNING + "\n", seconds=5)
    monkeypatch.setattr(slurm, "TIMEOUT", 0.3)
    with pytest.raises(SchedulerError, match="no answer"):
        slurm.job_states(["7"])


def test_a_job_started_again_holds_nothing_of_before(programs: Path) -> None:
    """After a requeue the job lives, but not the processes seen before its present start."""
    say(programs, "squeue", "\n".join([RUNNING, PENDING, DEAD, ""]))
    states = slurm.job_states(["7", "8", "9"])
    start = 1795250713.0
    assert states["7"].may_hold(start + 5)
    assert states["7"].may_hold(start - 2), "clocks of two nodes differ by a little"
    assert not states["7"].may_hold(start - 60), "seen before the node died"
    assert not states["8"].may_hold(start + 5), "it waits to be started again"
    assert not states["9"].may_hold(start + 5)


def test_own_jobs_are_found_by_name_or_comment(programs: Path) -> None:
    """Only living jobs with the prefix are returned, those of one user."""
    asked = say(programs, "squeue", "\n".join([RUNNING, PENDING, DEAD, ""]))
    assert [job.job_id for job in slurm.jobs("ada", "matloop-")] == ["7", "8"]
    assert [job.job_id for job in slurm.jobs("ada", "hello")] == ["8"]
    assert "--user=ada" in asked.read_text()


def test_cancelling_what_has_ended_is_no_error(programs: Path) -> None:
    """An ended job cannot be cancelled and need not be; a controller that is away is an error."""
    slurm.cancel([])  # asks nobody
    say(
        programs,
        "scancel",
        err="scancel: error: Kill job error on job id 7: "
        "Job/step already completing or completed\n",
        status=1,
    )
    slurm.cancel(["7"])
    say(programs, "scancel", err=f"scancel: error: Kill job error on job id 7: {AWAY}\n", status=8)
    with pytest.raises(SchedulerError, match="Unable to contact"):
        slurm.cancel(["7"])


def test_partitions_are_summed_over_their_nodes(programs: Path) -> None:
    """A partition with different nodes is one partition, with the limit its jobs have."""
    lines = ["debug|up|1:00:00|3|2|(null)", "debug|up|1:00:00|1|64+|gpu:a100:4", ""]
    say(programs, "sinfo", "\n".join([*lines[:2], "long|down|infinite|2|8|(null)", ""]))
    found = slurm.partitions()
    assert found["debug"] == slurm.Partition("debug", True, 3600.0, 4, 64, "gpu:a100:4")
    assert (found["long"].available, found["long"].limit) == (False, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1:00:00", 3600), ("59:58", 3598), ("0:01", 1), ("2-03:04:05", 183845), ("1-00", 86400),
        ("1-02:30", 95400), ("30", 1800), ("-0:12", -12),
        ("UNLIMITED", None), ("INVALID", None), ("NOT_SET", None), ("", None),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float | None) -> None:
    """Every way in which SLURM writes a time is read, and no limit is None."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "1:2:3:4", "x-1:00"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """An answer that cannot be read is an error rather than some number."""
    with pytest.raises(ValueError, match=r"SLURM writes it|invalid literal"):
        parse_duration(text)


def test_time_left_of_a_job(programs: Path) -> None:
    """The time left is asked in SLURM's words and returned in seconds."""
    say(programs, "squeue", "59:58\n")
    assert slurm.seconds_left("7") == 3598.0
    assert os.environ["PATH"] == str(programs)
