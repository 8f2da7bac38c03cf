"""Workers on real SLURM with a real database, and what they survive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matloop.errors import SchedulerError
from matloop.launch import slurm, workers

from .conftest import Place

CHORES = Path(__file__).parent

pytestmark = [pytest.mark.slurm, pytest.mark.mongo]


def test_fireworks_run_through_workers_up(place: Place) -> None:
    """Five callers at once fill the queue once; each firework runs once, in warm processes."""
    names = [f"chore-{number}" for number in range(6)]
    place.add("cpu", "work", *names, seconds=0.3)
    with ThreadPoolExecutor(5) as callers:
        told = list(callers.map(lambda _: workers.up(place.site, ["cpu"]), range(5)))
    submitted = [job_id for answer in told for job_id in answer["cpu"]]
    assert len(submitted) == 2, "the site allows two jobs of this kind"
    place.wait_until_done()
    assert sorted(item["name"] for item in place.notes("end")) == names
    assert len({item["pid"] for item in place.notes("end")}) <= 2, "a process serves many fireworks"
    assert all(item["left"] < 300 for item in place.notes()), "jobs know their walltime"
    for job_id in submitted:
        assert place.stack.wait_for(job_id, "COMPLETED") == "COMPLETED"
    launches = place.launchpad.launches.find({}, {"fworker.name": 1})
    assert {item["fworker"]["name"] for item in launches} <= {f"cpu@{i}" for i in submitted}


def test_never_more_jobs_than_work(place: Place) -> None:
    """One firework gets one job; none gets none; what waits for it counts only when asked."""
    from fireworks import Firework, PyTask, Workflow

    assert workers.up(place.site, ["cpu", "gpu"]) == {"cpu": [], "gpu": []}
    spec = {"_category": "cpu"}
    arguments = {"log": str(place.log), "seconds": 1.0}
    parent, *children = (
        Firework(PyTask(func="chores.work", kwargs={**arguments, "name": name}), spec, name=name)
        for name in ("parent", "left", "right")
    )
    place.launchpad.add_wf(Workflow([parent, *children], {parent: children}))
    place.stack.command("scontrol", "update", "partition=debug", "state=down")
    try:
        assert workers.demand(place.launchpad, "cpu", ahead=True) == 1, "the parent does not run"
        assert len(workers.up(place.site, ["cpu"])["cpu"]) == 1
        assert workers.up(place.site, ["cpu"]) == {"cpu": []}
        (row,) = workers.status(place.site, ["cpu"])
        assert (row.ready, row.waiting, row.queued_jobs, row.running_jobs) == (1, 2, 1, 0)
    finally:
        place.stack.command("scontrol", "update", "partition=debug", "state=up")
    place.wait(lambda: place.states()["parent"] == "RUNNING", "the parent")
    assert workers.demand(place.launchpad, "cpu") == 1
    assert workers.demand(place.launchpad, "cpu", ahead=True) == 3
    place.wait_until_done()


def test_the_commands_say_what_they_did(place: Place) -> None:
    """`up`, `status` and `down` print ids and counts; `down --now` also ends what runs."""
    place.add("cpu", "work", "long", seconds=60)
    said = place.matloop("workers", "up", "--kind", "cpu")
    assert said.returncode == 0, said.stderr
    (job_id,) = place.stack.squeue()
    assert f"cpu: submitted 1 job ({job_id})" in said.stdout
    place.wait(lambda: bool(place.notes("begin")), "the firework")
    said = place.matloop("workers", "status", "--kind", "cpu")
    assert said.stdout.splitlines()[-1].split() == ["cpu", "0", "1", "0", "0", "0", "1", "2"]
    assert "nothing to cancel" in place.matloop("workers", "down").stdout
    assert job_id in place.matloop("workers", "down", "--now").stdout
    place.stack.wait_for(job_id, "CANCELLED")


def test_a_refused_job_is_explained(place: Place) -> None:
    """What SLURM refuses is an error in SLURM's words that names the site file."""
    place.add("nowhere", "work", "lonely", seconds=1)
    with pytest.raises(SchedulerError, match=r"(?s)nowhere.*Invalid partition.*site\.yaml"):
        workers.up(place.site, ["nowhere"])


def test_two_processes_never_share_a_card(place: Place) -> None:
    """A job with two GPUs runs two processes; each sees one card, its own, and half the cores."""
    place.add("gpu", "work", *(f"shard-{number}" for number in range(6)), seconds=1)
    (job_id,) = workers.up(place.site, ["gpu"])["gpu"]
    place.wait_until_done()
    cards: dict[object, set[object]] = {}
    for item in place.notes("begin"):
        cards.setdefault(item["pid"], set()).add(item["card"])
    assert sorted(map(sorted, cards.values())) == [["0"], ["1"]]
    assert {item["cores"] for item in place.notes()} == {1}
    both = [item["time"] for item in place.notes("begin")][:2]
    assert abs(both[0] - both[1]) < 5, "the cards work at the same time"
    assert place.stack.wait_for(job_id, "COMPLETED") == "COMPLETED"


def test_a_killed_process_is_replaced_at_once(place: Place) -> None:
    """`kill -9` of a rocket process costs seconds: its firework runs again in the same job."""
    ids = place.add("cpu", "deadly", "deadly")
    (job_id,) = workers.up(place.site, ["cpu"])["cpu"]
    place.wait_until_done()
    first, second = place.notes("begin")
    assert first["pid"] != second["pid"]
    assert second["time"] - first["time"] < 15
    firework = place.launchpad.get_fw_by_id(ids["deadly"])
    launches = [*firework.archived_launches, *firework.launches]
    assert {launch.fworker.name for launch in launches} == {f"cpu@{job_id}"}
    assert place.stack.wait_for(job_id, "COMPLETED") == "COMPLETED"


def test_losing_the_database_is_no_failure_of_the_job(place: Place) -> None:
    """A firework that raised because the database was away runs again instead of failing."""
    place.add("cpu", "unlucky", "unlucky")
    workers.up(place.site, ["cpu"])
    place.wait_until_done()
    assert [item["what"] for item in place.notes()] == ["begin", "begin", "end"]


def test_a_job_started_again_takes_up_its_own_work(place: Place) -> None:
    """Where SLURM starts a job again, its new worker runs at once what the old one left."""
    place.add("cpu", "slow_at_first", "interrupted")
    command = f"cd {place.log.parent} && exec matloop workers run --kind cpu"
    job_id = place.stack.sbatch(
        f"export PYTHONPATH={CHORES}:$PYTHONPATH; {command} --site {place.site.file}", "--requeue"
    )
    place.wait(lambda: bool(place.notes("begin")), "the firework")
    place.stack.command("scontrol", "requeue", job_id)
    place.wait_until_done()
    assert len(place.notes("begin")) == 2
    launches = place.launchpad.launches.find({}, {"fworker.name": 1})
    assert {launch["fworker"]["name"] for launch in launches} == {f"cpu@{job_id}"}


def test_no_work_is_begun_too_late(place: Place) -> None:
    """With less walltime than the margin a worker ends by itself and leaves the rest READY."""
    place.add("brief", "work", *(f"chore-{number}" for number in range(80)), seconds=2)
    command = f"cd {place.log.parent} && exec matloop workers run --kind brief --margin 75"
    job_id = place.stack.sbatch(
        f"export PYTHONPATH={CHORES}:$PYTHONPATH; {command} --site {place.site.file}",
        "--time=2",
    )
    place.stack.wait_for(job_id, "COMPLETED", "TIMEOUT", "FAILED", seconds=110)
    assert place.stack.state(job_id) == "COMPLETED"
    states = [*place.states().values()]
    assert states.count("COMPLETED") >= 1
    assert states.count("READY") == 80 - states.count("COMPLETED") > 20
    assert all(item["left"] >= 75 - 1 for item in place.notes("begin"))


def test_a_cancelled_worker_ends_its_chunk(place: Place) -> None:
    """`scancel` asks the firework to stop, which it does in time; nothing new is begun."""
    place.add("cpu", "work", "first", "second", seconds=50)
    (job_id, _) = workers.up(place.site, ["cpu"])["cpu"]
    place.wait(lambda: len(place.notes("begin")) == 2, "both fireworks")
    place.add("cpu", "work", "third", seconds=1)
    slurm.cancel([*place.stack.squeue()])
    place.stack.wait(lambda: not place.stack.squeue(), "jobs to end")
    assert place.states() == {"first": "COMPLETED", "second": "COMPLETED", "third": "READY"}
    assert len(place.notes("stopped early")) == 2
    assert slurm.job_states([job_id])[job_id].state == "CANCELLED"


def test_what_cannot_stop_in_time_is_left_for_recovery(place: Place) -> None:
    """A firework that outlasts SLURM's patience stays RUNNING in a job that SLURM knows ended."""
    place.add("cpu", "stubborn", "stubborn", seconds=50)
    (job_id,) = workers.up(place.site, ["cpu"])["cpu"]
    place.wait(lambda: bool(place.notes("begin")), "the firework")
    slurm.cancel([job_id])
    place.stack.wait(lambda: not place.stack.squeue(), "the job to end")
    assert place.states() == {"stubborn": "RUNNING"}
    launch = place.launchpad.launches.find_one({"state": "RUNNING"})
    assert launch["fworker"]["name"] == f"cpu@{job_id}"
    assert not slurm.job_states([job_id])[job_id].may_hold(time.time())


def test_the_database_may_die_while_a_worker_runs(place: Place) -> None:
    """A result made while the database is away is recorded once it is back; nothing runs twice."""
    place.add("cpu", "work", "during", seconds=3)
    (job_id,) = workers.up(place.site, ["cpu"])["cpu"]
    place.wait(lambda: bool(place.notes("begin")), "the firework")
    place.stack.kill_database()
    try:
        place.stack.wait(lambda: bool(place.notes("end")), "the work itself")
        time.sleep(3)
        assert place.stack.state(job_id) == "RUNNING"
    finally:
        place.stack.start_database()
    place.wait_until_done()
    assert place.launchpad.launches.count_documents({}) == 1
    assert place.stack.wait_for(job_id, "COMPLETED") == "COMPLETED"


def test_the_database_may_die_while_a_worker_idles(place: Place) -> None:
    """An idle worker waits for the database and does what comes after."""
    command = f"cd {place.log.parent} && exec matloop workers run --kind cpu --idle 15"
    job_id = place.stack.sbatch(
        f"export PYTHONPATH={CHORES}:$PYTHONPATH; {command} --site {place.site.file}"
    )
    place.stack.wait_for(job_id, "RUNNING")
    time.sleep(4)
    place.stack.kill_database()
    time.sleep(4)
    assert place.stack.state(job_id) == "RUNNING"
    place.stack.start_database()
    place.add("cpu", "work", "after", seconds=0.1)
    place.wait_until_done()
    assert {launch["fworker"]["name"] for launch in place.launchpad.launches.find()} == {
        f"cpu@{job_id}"
    }


def test_a_worker_outside_of_slurm(place: Place) -> None:
    """The same worker runs by hand; SIGTERM lets it end what it does."""
    place.add("cpu", "work", "by hand", seconds=30)
    command = [sys.executable, "-m", "matloop", "workers", "run", "--kind", "cpu"]
    environment = {
        **place.stack.environment,
        "PYTHONPATH": f"{CHORES}:{os.environ.get('PYTHONPATH', '')}",
    }
    worker = subprocess.Popen(
        [*command, "--site", str(place.site.file)], env=environment, stderr=subprocess.PIPE
    )
    place.wait(lambda: bool(place.notes("begin")), "the firework")
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=20)
    assert worker.returncode == 0, said.decode()
    assert place.states() == {"by hand": "COMPLETED"}
    assert len(place.notes("stopped early")) == 1
