"""Changes to a workflow while its jobs run: nothing that ends later can undo them."""

from __future__ import annotations

import pytest

pytest.importorskip("fireworks")

from matloop.launch import recovery, transitions

from .lab import Lab

pytestmark = pytest.mark.mongo

JOIN = {"_allow_fizzled_parents": True}


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
