"""Every launch that ended has one receipt, however late it ended."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("fireworks")

from matloop.launch.receipts import settle
from matloop.launch.recovery import heal

from .lab import Lab

pytestmark = pytest.mark.mongo


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
