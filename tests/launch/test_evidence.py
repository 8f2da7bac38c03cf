"""What counts as a dead launch: each kind of evidence, and what only looks like it."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

pytest.importorskip("fireworks")

from matloop.errors import SchedulerError
from matloop.launch import evidence, slurm
from matloop.launch.recovery import heal

from .lab import Lab

pytestmark = pytest.mark.mongo


@pytest.mark.parametrize(
    ("case", "dead"),
    [
        ("job ended", True),
        ("job ended before the launch began", False),
        ("job was started again", True),
        ("job waits to be started again", True),
        ("job runs", False),
        ("job runs, old heartbeat", False),
        ("job runs, silent for two hours", True),
        ("job forgotten, fresh heartbeat", False),
        ("job forgotten, old heartbeat", True),
        ("job of another cluster", False),
        ("the same process does something else", True),
        ("no job, own host, dead process, old heartbeat", True),
        ("no job, own host, dead process, fresh heartbeat", False),
        ("no job, own host, living process, old heartbeat", False),
        ("no job, other host, old heartbeat", False),
        ("no job, other host, silent for two hours", True),
        ("SLURM does not answer, old heartbeat", False),
    ],
)
def test_what_counts_as_dead(
    lab: Lab, case: str, dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of evidence, and what looks like it but is not."""
    lab.campaign("one")
    lab.add([lab.firework("propose")])
    host = os.uname().nodename
    over = subprocess.Popen(["true"])
    over.wait()
    worker = "cpu@7"
    if "own host" in case:
        worker = f"cpu@{host}:{over.pid if 'dead process' in case else os.getpid()}"
    elif "other host" in case:
        worker = "cpu@elsewhere:12"
    launch_id = lab.take(worker, cluster="there" if "another cluster" in case else "")
    if "old heartbeat" in case:
        lab.silence(launch_id, 300)
    if "two hours" in case:
        lab.silence(launch_id, 7200)
    if case == "job ended":
        lab.ended("7")
    elif "before the launch" in case:
        lab.ended("7", seconds_ago=1000)
    elif "started again" in case:
        lab.silence(launch_id, 60)
        state = "PENDING" if "waits" in case else "RUNNING"
        lab.slurm["7"] = slurm.JobState("7", state, alive=True, started=time.time() - 5)
    elif "job runs" in case or "same process" in case:
        lab.alive("7", started_ago=10_000)
    elif "another cluster" in case:
        lab.ended("7")
        monkeypatch.setattr(slurm, "cluster", lambda: "here")
    if "same process" in case:
        lab.add([lab.firework("learn")])
        lab.take("cpu@7")
    if "not answer" in case:
        monkeypatch.setattr(slurm, "job_states", _silence)
    healed = heal(lab.site, lab.launchpad, lab.ledger)
    assert [item.name for item in healed.findings] == (["propose"] if dead else [])
    assert lab.states()["propose"] == ("READY" if dead else "RUNNING")
    assert bool(healed.blind) == ("not answer" in case)
    assert heal(lab.site, lab.launchpad, lab.ledger).findings == ()


def test_reservations_of_jobs_that_are_gone(lab: Lab) -> None:
    """With `qlaunch -r`: the job that would have run it was cancelled, or was never submitted."""
    lab.campaign("one")
    lab.add([lab.firework(name) for name in ("propose", "learn", "advance")])
    reserved = []
    for _ in range(3):
        from fireworks import FWorker

        _, launch_id = lab.launchpad.reserve_fw(FWorker("site-cpu"), "/")
        reserved.append(launch_id)
    lab.launchpad.set_reservation_id(reserved[0], "11")
    lab.launchpad.set_reservation_id(reserved[1], "12")
    lab.ended("11")
    lab.slurm["12"] = slurm.JobState("12", "PENDING", alive=True)
    lab.silence(reserved[1], 10_000)
    lab.silence(reserved[2], 200)
    healed = heal(lab.site, lab.launchpad, lab.ledger)
    assert {item.fw_id for item in healed.findings} == {1, 3}
    assert sorted(lab.states().values()) == ["READY", "READY", "RESERVED"]


assert evidence.EXPIRED < 300 < evidence.SILENT < 7200, "what `old` and `silent` mean above"


def _silence(_job_ids: object) -> dict[str, slurm.JobState]:
    raise SchedulerError("SLURM could not be asked")
