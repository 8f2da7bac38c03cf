"""What died is found, ended once and run again, whoever looks and however often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("fireworks")

from matloop.documents.campaign import Stage
from matloop.launch import recovery, transitions
from matloop.launch.activity import activity
from matloop.launch.receipts import settle
from matloop.launch.recovery import heal, lost

from .lab import Lab

pytestmark = pytest.mark.mongo

JOIN = {"_allow_fizzled_parents": True}


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
