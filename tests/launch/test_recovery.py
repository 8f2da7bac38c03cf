"""What died is found, ended once and run again, whoever looks and however often."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("fireworks")

from matloop.documents.campaign import Stage
from matloop.errors import SchedulerError
from matloop.launch import evidence, recovery, slurm, transitions, wreckage
from matloop.launch.activity import activity
from matloop.launch.receipts import settle
from matloop.launch.recovery import heal, lost

from .lab import Lab

pytestmark = pytest.mark.mongo

JOIN = {"_allow_fizzled_parents": True}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # Wreckage counts as such after half a minute; nothing else lives in these databases.
    monkeypatch.setattr(wreckage, "LOCK_SECONDS", 1.0)
    monkeypatch.setattr(wreckage.wrecks, "__defaults__", (1.0,))
    monkeypatch.setattr(transitions, "LOCK_SECONDS", 1.0)


def test_a_lost_launch_runs_again_up_to_the_limit(lab: Lab) -> None:
    """Each death is ended once and rerun at once; the last one fizzles with its reason."""
    lab.add([lab.firework("propose")])
    for turn in range(3):
        launch_id = lab.take("cpu@7")
        fw_id = lab.launches()[-1]["fw_id"]
        outcome = lost(lab.launchpad, fw_id, launch_id, f"death {turn}", most=3)
        assert outcome == ("rerun" if turn < 2 else "given up")
        assert lost(lab.launchpad, fw_id, launch_id, "again", most=3) == ""
    assert lab.states() == {"propose": "FIZZLED"}
    (firework,) = recovery.blocking(lab.launchpad, "one")
    assert transitions.failure(lab.launchpad, firework) == "death 2"
    assert [launch["state"] for launch in lab.launches()] == ["FIZZLED"] * 3


def test_many_at_once_rerun_it_once(lab: Lab) -> None:
    """Ten callers with the same dead launch lead to one rerun; the new launch is not touched."""
    lab.add([lab.firework("propose")])
    launch_id = lab.take("cpu@7")
    fw_id = lab.launches()[-1]["fw_id"]
    with ThreadPoolExecutor(10) as callers:
        told = list(callers.map(lambda _: lost(lab.launchpad, fw_id, launch_id, "dead"), range(10)))
    assert sorted(told)[-1] == "rerun"
    assert told.count("rerun") == 1
    second = lab.take("cpu@8")
    assert lost(lab.launchpad, fw_id, launch_id, "dead") == ""
    assert lab.launchpad.launches.find_one({"launch_id": second})["state"] == "RUNNING"
    assert lab.states() == {"propose": "RUNNING"}


def test_the_dead_may_come_back(lab: Lab) -> None:
    """A process that was thought dead and completes later changes nothing; its successor counts."""
    lab.add([lab.firework("propose")])
    first = lab.take("cpu@7")
    fw_id = lab.launches()[-1]["fw_id"]
    lost(lab.launchpad, fw_id, first, "thought dead")
    second = lab.take("cpu@8")
    lab.launchpad.ping_launch(first)
    lab.complete(first)
    assert lab.states() == {"propose": "RUNNING"}
    lab.complete(second)
    assert lab.states() == {"propose": "COMPLETED"}


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


def test_a_dead_shard_keeps_nobody_waiting(lab: Lab) -> None:
    """A shard that died too often fizzles; what collects the stage begins, its document small."""
    lab.campaign("one")
    shards = [lab.firework(f"evaluate relax 0.{n}") for n in range(3)]
    join = lab.firework("evaluate relax", **JOIN)
    decide = lab.firework("decide relax")
    links = {shard: [join] for shard in shards} | {join: [decide]}
    ids = lab.add([*shards, join, decide], links)
    for _ in range(3):
        launch_id = lab.take("cpu@7", fw_id=ids["evaluate relax 0.1"])
        lab.ended("7")
        assert heal(lab.site, lab.launchpad, lab.ledger).findings
        assert lab.launchpad.launches.find_one({"launch_id": launch_id})["state"] == "FIZZLED"
    assert sorted(lab.states().values()).count("FIZZLED") == 1
    lab.run_all()
    states = lab.states()
    assert (states["evaluate relax"], states["decide relax"]) == ("COMPLETED", "COMPLETED")
    document = lab.launchpad.fireworks.find_one({"name": "evaluate relax"})
    assert document["spec"]["_fizzled_parents"] == []
    assert heal(lab.site, lab.launchpad, lab.ledger).findings == (), "nothing waits for that shard"


def test_a_failed_job_runs_again_then_the_campaign_stalls(lab: Lab) -> None:
    """What a campaign cannot do without is tried three times; then it says why, until forgiven."""
    lab.campaign("one")
    propose, learn = lab.firework("propose", fails=True), lab.firework("learn")
    ids = lab.add([propose, learn], {propose: [learn]})
    for _ in range(2):
        lab.run_all()
        assert heal(lab.site, lab.launchpad, lab.ledger).count("failed") == 1
    lab.run_all()
    healed = heal(lab.site, lab.launchpad, lab.ledger)
    assert [item.what for item in healed.findings] == ["stalled"]
    why = recovery.stalled(lab.site, lab.launchpad, "one")
    assert "propose failed 3 times" in why
    assert "No such file or directory: '/no/such/file'" in why
    (line,) = activity(lab.site, lab.launchpad, lab.ledger, "one").obstacles
    assert line.startswith("stalled: propose failed 3 times")
    task = {"$set": {"spec._tasks.0.args": ["/"]}}
    lab.launchpad.fireworks.update_one({"fw_id": ids["propose"]}, task)
    assert recovery.forgive(lab.launchpad, "one") == 1
    lab.run_all()
    assert lab.states() == {"propose": "COMPLETED", "learn": "COMPLETED"}
    assert recovery.stalled(lab.site, lab.launchpad, "one") == ""


def test_a_job_that_cannot_be_read_stalls_too(lab: Lab) -> None:
    """A firework that FireWorks cannot load has no launch; it is still tried a few times only."""
    lab.campaign("one")
    ids = lab.add([lab.firework("propose")])
    broken = {"$set": {"spec._tasks.0._fw_name": "{{no.such.Task}}"}}
    lab.launchpad.fireworks.update_one({"fw_id": ids["propose"]}, broken)
    found = []
    for _ in range(4):
        assert not lab.run()
        found += [item.what for item in heal(lab.site, lab.launchpad, lab.ledger).findings]
    assert found == ["busy", "busy", "busy", "stalled"]
    assert "No module named 'no'" in recovery.stalled(lab.site, lab.launchpad, "one")
    assert ids == {"propose": 1}


def test_a_dead_calculation_has_a_verdict(lab: Lab) -> None:
    """What waits for a failed calculation is given up with it; its verdict is still made."""
    lab.campaign("one")
    relax, static = lab.firework("relax 1", fails=True), lab.firework("static")
    conclude = lab.firework("conclude", **JOIN)
    lab.add([relax, static, conclude], {relax: [static], static: [conclude]})
    lab.run_all()
    assert lab.states()["conclude"] == "WAITING"
    heal(lab.site, lab.launchpad, lab.ledger)
    lab.run_all()
    assert lab.states() == {"relax 1": "FIZZLED", "static": "FIZZLED", "conclude": "COMPLETED"}
    assert heal(lab.site, lab.launchpad, lab.ledger).findings == ()


def test_a_join_goes_on_without_those_who_are_late(lab: Lab) -> None:
    """A released join begins at once; a late shard completes afterwards and changes nothing."""
    shards = [lab.firework(f"evaluate relax 0.{n}") for n in range(4)]
    join, decide = lab.firework("evaluate relax", **JOIN), lab.firework("decide relax")
    ids = lab.add([*shards, join, decide], {s: [join] for s in shards} | {join: [decide]})
    late = lab.take("cpu@7")
    other = lab.take("cpu@8")
    assert lab.run()
    left = transitions.release_join(lab.launchpad, ids["evaluate relax"])
    assert len(left) == 3
    assert transitions.release_join(lab.launchpad, ids["evaluate relax"]) == []
    assert sorted(lab.states().values()) == [
        "COMPLETED", "FIZZLED", "READY", "RUNNING", "RUNNING", "WAITING"
    ]  # fmt: skip
    assert lab.run(fw_id=ids["evaluate relax"])
    lab.complete(late)
    assert lab.states()["evaluate relax"] == "COMPLETED", "FireWorks would make it wait again"
    assert lab.run(fw_id=ids["decide relax"])
    lab.complete(other, "FIZZLED")
    assert lab.states()["decide relax"] == "COMPLETED"
    join_document = lab.launchpad.fireworks.find_one({"fw_id": ids["evaluate relax"]})
    assert len(join_document["launches"]) == 1
    assert recovery.blocking(lab.launchpad, "one") == [], "a late shard that fails blocks nobody"


def test_a_late_shard_may_hand_on_its_rest(lab: Lab) -> None:
    """A shard cut off from a join that has gone on may still add a job after itself."""
    from fireworks import Firework, FWAction, PyTask, Workflow

    shards = [lab.firework(f"evaluate relax 0.{n}") for n in range(2)]
    join = lab.firework("evaluate relax", **JOIN)
    ids = lab.add([*shards, join], {shard: [join] for shard in shards})
    late = lab.take("cpu@7")
    assert lab.run()
    transitions.release_join(lab.launchpad, ids["evaluate relax"])
    assert lab.run(fw_id=ids["evaluate relax"])
    rest = Firework(PyTask(func="os.stat", args=["/"]), {"_category": "cpu"}, name="rest")
    lab.complete(late, action=FWAction(detours=Workflow([rest])))
    assert lab.states()["rest"] == "READY"
    lab.run_all()
    assert set(lab.states().values()) == {"COMPLETED"}
    assert lab.launchpad.workflows.find_one()["state"] == "COMPLETED"


def test_a_stage_past_its_deadline_is_released(lab: Lab) -> None:
    """Only a stage whose deadline has passed goes on without its shards."""
    from matloop.documents.operation import Attempt

    lab.campaign("one", stages=(Stage(name="relax", deadline=1.0), Stage(name="other")))
    shards = [lab.firework(f"evaluate {stage} 0.0") for stage in ("relax", "other")]
    joins = [lab.firework(f"evaluate {stage}", **JOIN) for stage in ("relax", "other")]
    lab.add([*shards, *joins], {shard: [join] for shard, join in zip(shards, joins, strict=True)})
    for hours, expected in ((0.5, "WAITING"), (2.0, "READY")):
        for stage in ("relax", "other"):
            begun = Attempt(
                attempt_id=f"{hours}-{stage}",
                campaign_id="one",
                iteration=0,
                stage=stage,
                keys=(),
                worker="",
                started_at=datetime.now(UTC) - timedelta(hours=hours),
            )
            lab.ledger.add_attempts([begun])
        healed = heal(lab.site, lab.launchpad, lab.ledger)
        assert lab.states()["evaluate relax"] == expected, healed
        assert lab.states()["evaluate other"] == "WAITING"
    assert "deadline of 1 h has passed" in healed.findings[0].reason


def test_a_lock_whose_owner_died_is_broken(lab: Lab) -> None:
    """FireWorks would wait for it for ever; here the workflow is free after a look."""
    lab.campaign("one")
    lab.add([lab.firework("propose")])
    launch_id = lab.take("cpu@7")
    lab.launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    assert lost(lab.launchpad, 1, launch_id, "killed while it held the lock") == "rerun"
    lab.launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    (finding,) = heal(lab.site, lab.launchpad, lab.ledger).findings
    assert "lock" in finding.reason
    assert "locked" not in lab.launchpad.workflows.find_one()


def test_half_an_insertion_is_undone(lab: Lab) -> None:
    """Fireworks whose process died before it wrote their workflow are removed."""
    lab.campaign("one")
    lab.add([lab.firework("propose")])
    insert = lab.launchpad.workflows.insert_one
    try:
        lab.launchpad.workflows.insert_one = _die
        with pytest.raises(SystemError):
            lab.add([lab.firework("learn"), lab.firework("advance")])
    finally:
        lab.launchpad.workflows.insert_one = insert
    assert set(lab.states()) == {"propose", "learn", "advance"}
    assert heal(lab.site, lab.launchpad, lab.ledger).count("repaired") == 2
    assert set(lab.states()) == {"propose"}


@pytest.mark.parametrize("written", range(5))
def test_an_end_that_was_half_recorded_is_finished(lab: Lab, written: int) -> None:
    """After a death at any write of a completion with a detour, all of it runs, and once."""
    from fireworks import Firework, FWAction, PyTask, Workflow

    lab.campaign("one")
    evaluate, decide = lab.firework("evaluate relax"), lab.firework("decide relax")
    lab.add([evaluate, decide], {evaluate: [decide]})
    lab.alive("7", started_ago=10_000)
    launch_id = lab.take("cpu@7")
    log = lab.directory / "log"
    spec = {"_category": "cpu", "matloop": {"campaign": "one", "iteration": 0, "stage": "relax"}}
    task = PyTask(func="subprocess.check_call", args=[["sh", "-c", f"echo ran >> {log}"]])
    shards = [Firework(task, spec, name=f"evaluate relax 0.{n}") for n in range(2)]
    action = FWAction(detours=Workflow(shards))
    code = (
        "import sys, os, pickle\n"
        "from matloop.launch.site import load_site\n"
        "lp = load_site(__import__('pathlib').Path(sys.argv[1])).launchpad()\n"
        "count = 0\n"
        "def dying(function):\n"
        "    def call(*arguments, **options):\n"
        "        global count\n"
        f"        if count == {written}: os.kill(os.getpid(), 9)\n"
        "        count += 1\n"
        "        return function(*arguments, **options)\n"
        "    return call\n"
        "lp.fireworks.find_one_and_replace = dying(lp.fireworks.find_one_and_replace)\n"
        "lp.workflows.find_one_and_replace = dying(lp.workflows.find_one_and_replace)\n"
        "from fireworks import FWAction\n"
        "action = FWAction.from_dict(pickle.load(open(sys.argv[2], 'rb')))\n"
        f"lp.complete_launch({launch_id}, action, 'COMPLETED')\n"
    )
    import pickle

    (lab.directory / "action").write_bytes(pickle.dumps(action.to_dict()))
    command = [sys.executable, "-c", code, str(lab.site.file), str(lab.directory / "action")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if written < 4 else 0), done.stderr
    healed = heal(lab.site, lab.launchpad, lab.ledger)
    assert bool(healed.findings) == (written < 4)
    lab.run_all()
    states = lab.launchpad.fireworks.find({}, {"name": 1, "state": 1})
    names = sorted((item["name"], item["state"]) for item in states)
    assert names == [
        ("decide relax", "COMPLETED"),
        ("evaluate relax", "COMPLETED"),
        ("evaluate relax 0.0", "COMPLETED"),
        ("evaluate relax 0.1", "COMPLETED"),
    ]
    assert log.read_text().split() == ["ran", "ran"]
    assert heal(lab.site, lab.launchpad, lab.ledger).findings == ()


@pytest.mark.parametrize("written", range(4))
def test_a_death_while_taking_a_firework(lab: Lab, written: int) -> None:
    """A worker that dies after any write of a checkout leaves nothing that nobody can take."""
    lab.campaign("one")
    lab.add([lab.firework("propose")])
    code = (
        "import sys, os\n"
        "from fireworks import FWorker\n"
        "from matloop.launch.site import load_site\n"
        "lp = load_site(__import__('pathlib').Path(sys.argv[1])).launchpad()\n"
        "count = 0\n"
        "def dying(function):\n"
        "    def call(*arguments, **options):\n"
        "        global count\n"
        "        result = function(*arguments, **options)\n"
        f"        if count == {written}: os.kill(os.getpid(), 9)\n"
        "        count += 1\n"
        "        return result\n"
        "    return call\n"
        "update, replace = 'find_one_and_update', 'find_one_and_replace'\n"
        "for c, n in ((lp.fireworks, update), (lp.launches, replace),\n"
        "             (lp.fireworks, replace), (lp.workflows, update)):\n"
        "    setattr(c, n, dying(getattr(c, n)))\n"
        "lp.checkout_fw(FWorker('cpu@7', 'cpu', env={'slot': 0}), '/')\n"
    )
    command = [sys.executable, "-c", code, str(lab.site.file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    lab.ended("7")
    assert heal(lab.site, lab.launchpad, lab.ledger).findings
    assert lab.states() == {"propose": "READY"}
    assert lab.run_all() == 1
    assert lab.states() == {"propose": "COMPLETED"}
    assert heal(lab.site, lab.launchpad, lab.ledger).findings == ()


def test_what_belongs_to_others_is_left_alone(lab: Lab) -> None:
    """Fireworks of other people's workflows are neither run again nor removed, nor paid for."""
    from fireworks import Firework, PyTask

    lab.campaign("one")
    lab.launchpad.add_wf(Firework(PyTask(func="os.stat", args=["/"]), name="theirs"))
    lab.take("cpu@7", kind="")
    lab.ended("7")
    assert heal(lab.site, lab.launchpad, lab.ledger).findings == ()
    assert settle(lab.site, lab.launchpad, lab.ledger) == 0
    assert lab.states() == {"theirs": "RUNNING"}


def test_activity_tells_the_truth(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What FireWorks believes to run but is dead is called lost, and so is a silent SLURM."""
    from matloop.launch import workers

    monkeypatch.setattr(workers.slurm, "jobs", lambda **_: [])
    lab.campaign("one")
    shards = [lab.firework(f"evaluate relax 0.{n}", kind="gpu") for n in range(3)]
    join = lab.firework("evaluate relax", **JOIN)
    lab.add([*shards, join], {shard: [join] for shard in shards})
    lab.take("gpu@7", kind="gpu")
    lab.take("gpu@8", kind="gpu")
    lab.ended("7", "TIMEOUT")
    lab.alive("8", started_ago=100)
    seen = activity(lab.site, lab.launchpad, lab.ledger, "one")
    counts = {(job.job, job.kind): job for job in seen.jobs}
    shard = counts["evaluate relax", "gpu"]
    assert (shard.running, shard.ready, shard.lost) == (1, 1, 1)
    assert counts["evaluate relax", "cpu"].waiting == 1
    assert seen.oldest_heartbeat is not None
    assert seen.oldest_heartbeat < 60
    assert any("its job 7 ended as TIMEOUT" in line for line in seen.obstacles)
    heal(lab.site, lab.launchpad, lab.ledger)
    again = activity(lab.site, lab.launchpad, lab.ledger, "one")
    assert (again.count("running"), again.count("ready"), again.count("lost")) == (1, 2, 0)
    monkeypatch.setattr(slurm, "job_states", _silence)
    blind = activity(lab.site, lab.launchpad, lab.ledger, "one")
    assert any("whether the jobs live is not known" in line for line in blind.obstacles)


def test_every_launch_has_one_receipt(lab: Lab) -> None:
    """Done, failed and lost launches are paid for once, with the cores their process held."""
    lab.campaign("one")
    lab.add([lab.firework("propose"), lab.firework("learn", fails=True)])
    lab.add([lab.firework("evaluate relax 0.0", kind="gpu")], iteration=1)
    lab.run()
    lab.run()
    assert settle(lab.site, lab.launchpad, lab.ledger) == 2
    launch_id = lab.take("gpu@7", kind="gpu")
    lab.silence(launch_id, 1000)
    assert settle(lab.site, lab.launchpad, lab.ledger) == 0, "it has not ended"
    lab.ended("7", seconds_ago=400)
    heal(lab.site, lab.launchpad, lab.ledger)
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(lambda _: settle(lab.site, lab.launchpad, lab.ledger), range(4)))
    receipts = {receipt.job: receipt for receipt in lab.ledger.receipts("one")}
    assert len(lab.ledger.receipts()) == 3
    assert (receipts["propose"].outcome, receipts["learn"].outcome) == ("done", "lost")
    assert (receipts["propose"].cores, receipts["propose"].gpus) == (4, 0)
    shard = receipts["evaluate relax"]
    assert (shard.kind, shard.cores, shard.gpus, shard.outcome) == ("gpu", 4, 1, "lost")
    assert shard.seconds == pytest.approx(600, abs=5), "until SLURM saw its end"
    mark = lab.launchpad.db["matloop_settled"].find_one()
    assert (mark["upto"], mark["open"], mark["gaps"]) == (3, [], {})


def test_receipts_come_late_but_come(lab: Lab) -> None:
    """A launch that ends after newer ones, and one whose number appears late, are not forgotten."""
    lab.campaign("one")
    lab.add([lab.firework(name) for name in ("propose", "learn", "advance")])
    slow = lab.take("cpu@7")
    number = lab.launchpad.get_new_launch_id()  # given out, not yet written
    lab.run()
    assert settle(lab.site, lab.launchpad, lab.ledger) == 1
    assert settle(lab.site, lab.launchpad, lab.ledger) == 0
    lab.complete(slow)
    assert settle(lab.site, lab.launchpad, lab.ledger) == 1
    late = lab.take("cpu@8")
    lab.launchpad.launches.update_one({"launch_id": late}, {"$set": {"launch_id": number}})
    lab.launchpad.fireworks.update_one({"launches": late}, {"$set": {"launches": [number]}})
    lab.complete(number)
    assert settle(lab.site, lab.launchpad, lab.ledger) == 1


def test_a_handed_on_shard_says_so(lab: Lab) -> None:
    """A launch that added one job of its own name was ended by walltime."""
    from fireworks import FWAction, Workflow

    lab.campaign("one")
    lab.add([lab.firework("evaluate relax 0.0")])
    launch_id = lab.take("cpu@7")
    rest = Workflow([lab.firework("evaluate relax 0.0")])
    lab.complete(launch_id, action=FWAction(detours=rest))
    settle(lab.site, lab.launchpad, lab.ledger)
    (receipt,) = lab.ledger.receipts("one")
    assert receipt.outcome == "handed on"


def _silence(_job_ids: object) -> dict[str, slurm.JobState]:
    raise SchedulerError("SLURM could not be asked")


def _die(*_: object) -> None:
    raise SystemError("killed")


assert evidence.EXPIRED < 300 < evidence.SILENT < 7200, "what `old` and `silent` mean above"
