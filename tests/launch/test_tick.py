"""One step of every campaign: counted, mended, shared by weight, and taken once by however many."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import uuid4

import pytest

pytest.importorskip("fireworks")

from matloop import registry
from matloop.documents.campaign import Budget, GeneratorEntry, IterationState, PluginUse, Stage
from matloop.documents.operation import Receipt
from matloop.errors import ConfigurationError
from matloop.launch import submission
from matloop.launch.tick import LEASE, prioritise, tick

from .lab import Lab

pytestmark = pytest.mark.mongo


@pytest.fixture
def plugins(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process see the plugins of the test package."""
    with monkeypatch.context() as path:
        path.syspath_prepend(environment["PYTHONPATH"])
        registry.names.cache_clear()
        registry.load.cache_clear()
        yield
    registry.names.cache_clear()
    registry.load.cache_clear()


def toy(lab: Lab, name: str, stage: Stage | None = None, **budget: object) -> None:
    """Record a campaign of toys and prepare its LaunchPad."""
    stages = (
        stage or Stage(name="relax", evaluate=(PluginUse(use="toy_relaxation"),)),
        Stage(name="stability", evaluate=(PluginUse(use="hull_distance"),)),
    )
    settings = {"iterations": 2, "candidates": 4, **budget}
    lab.campaign(
        name,
        generators=(GeneratorEntry(use="toy"),),
        stages=stages,
        feedback="off",
        budget=Budget(**settings),
    )
    submission.index_job_store(submission.job_store(lab.site.ledger()))


def receipt(campaign: str, hours: float, days_ago: float = 0) -> Receipt:
    """Return a receipt over core-hours."""
    moment = datetime.fromtimestamp(datetime.now(UTC).timestamp() - 86400 * days_ago, UTC)
    return Receipt(
        receipt_id=uuid4().hex,
        campaign_id=campaign,
        iteration=0,
        job="propose",
        kind="cpu",
        worker="",
        started_at=moment,
        seconds=3600 * hours,
    )


@pytest.mark.usefixtures("plugins")
def test_a_campaign_lives_on_ticks_alone(lab: Lab) -> None:
    """With every `submit next` lost, ticks submit each iteration once, up to the end."""
    toy(lab, "one")
    lines = []
    for _ in range(4):
        with ThreadPoolExecutor(5) as callers:
            told = list(callers.map(lambda _: tick(lab.site, lab.launchpad, lab.ledger), range(5)))
        assert sum(not done.busy for done in told) >= 1
        lines += [line for done in told for line in done.lines if "submitted" in line]
        for item in lab.launchpad.fireworks.find({"name": "submit next"}, {"fw_id": 1}):
            lab.launchpad.defuse_fw(item["fw_id"])
        lab.run_all()
    assert [line.partition(" (")[0] for line in lines] == [
        "one: submitted the preparation",
        "one: submitted iteration 0",
        "one: submitted iteration 1",
    ]
    last = tick(lab.site, lab.launchpad, lab.ledger)
    assert last.lines == ("one: finished: all 2 iterations are done",)
    assert lab.launchpad.workflows.count_documents({}) == 3
    ended = lab.launchpad.launches.count_documents({})
    assert len(lab.ledger.receipts("one")) == ended > 10
    assert {item.outcome for item in lab.ledger.receipts("one")} == {"done"}


def test_a_second_tick_says_so(lab: Lab) -> None:
    """While one tick is at work another does nothing; it does not wait."""
    lab.campaign("one")
    with lab.ledger.lock(LEASE):
        done = tick(lab.site, lab.launchpad, lab.ledger)
    assert done.busy
    assert done.lines == ()


def test_an_unknown_campaign_is_named(lab: Lab) -> None:
    """A misspelt campaign is one line that lists what there is."""
    lab.campaign("one")
    with pytest.raises(ConfigurationError, match="no campaign 'on'; it has one"):
        tick(lab.site, lab.launchpad, lab.ledger, ["on"])


@pytest.mark.usefixtures("plugins")
def test_a_spent_budget_holds_the_next_iteration_back(lab: Lab) -> None:
    """Core-hours of the last day count, those before do not; then it goes on by itself."""
    toy(lab, "one", core_hours_per_day=10)
    lab.ledger.add_receipt(receipt("one", 50, days_ago=2))
    lab.ledger.add_receipt(receipt("one", 6))
    assert "submitted the preparation" in tick(lab.site, lab.launchpad, lab.ledger).lines[0]
    lab.run_all()
    lab.launchpad.workflows.delete_many({"metadata.matloop.iteration": 0})
    lab.launchpad.fireworks.delete_many({"state": {"$ne": "COMPLETED"}})
    lab.launchpad.db[submission.CLAIMS].delete_many({})
    lab.ledger.add_receipt(receipt("one", 6))
    lab.ledger.add_state(
        IterationState(
            campaign_id="one", iteration=9, status="running", created_at=datetime.now(UTC)
        )
    )
    (line,) = tick(lab.site, lab.launchpad, lab.ledger).lines
    assert line == "one: took 12 core-hours in the last 24 hours, 10 are allowed"


@pytest.mark.usefixtures("plugins")
def test_a_stage_closes_at_its_quorum(lab: Lab) -> None:
    """Half of a stage judged is enough where the campaign says so; a late shard harms nobody."""
    relax = Stage(
        name="relax",
        evaluate=(PluginUse(use="toy_relaxation"),),
        worker_kind="gpu",
        quorum=0.4,
        chunk=1,
    )
    toy(lab, "one", relax, candidates=6)
    tick(lab.site, lab.launchpad, lab.ledger)
    while not lab.ledger.states("one"):
        assert any(lab.run(kind) for kind in lab.site.kinds)
    while lab.run("cpu"):  # submits iteration 0, proposes, sends out shards
        pass
    late = lab.take("gpu@7", kind="gpu")
    lab.alive("7", started_ago=10)
    assert tick(lab.site, lab.launchpad, lab.ledger).healed.findings == ()
    assert lab.run("gpu")
    (found,) = tick(lab.site, lab.launchpad, lab.ledger).healed.findings
    assert (found.what, found.name) == ("released", "evaluate relax")
    assert "3 of 6 are judged, its quorum is 0.4; 1 jobs may come late" in found.reason
    while lab.run("cpu"):
        pass
    outcomes = [decision.late for decision in lab.ledger.decisions("one", 0, "relax")]
    assert sorted(outcomes) == [False] * 3 + [True] * 3
    assert [state.iteration for state in lab.ledger.states("one")] == [0, 1]
    lab.complete(late)
    assert lab.launchpad.workflows.find_one({"metadata.matloop.iteration": 0})["state"] == (
        "COMPLETED"
    )
    lab.run_all()
    assert lab.ledger.states("one")[-1].status == "finished"
    assert tick(lab.site, lab.launchpad, lab.ledger).healed.findings == ()


def test_the_campaign_with_least_comes_first(lab: Lab) -> None:
    """Priority follows core-hours per weight, of the last week and of what runs at this moment."""
    for name, weight in (("one", 1.0), ("two", 4.0), ("three", 1.0)):
        lab.campaign(name, budget=Budget(weight=weight))
        lab.add([lab.firework(f"propose {name}", campaign=name)], campaign=name)
    lab.ledger.add_receipt(receipt("one", 10))
    lab.ledger.add_receipt(receipt("two", 20))  # five hours per weight
    lab.ledger.add_receipt(receipt("three", 100, days_ago=8))
    records = lab.ledger.campaigns()
    first = prioritise(lab.site, lab.launchpad, lab.ledger, records)
    assert first == {"one": 0, "two": 1, "three": 2}
    launch_id = lab.take("cpu@7")
    assert lab.states()["propose three"] == "RUNNING"
    lab.silence(launch_id, 5 * 3600)  # on four cores
    again = prioritise(lab.site, lab.launchpad, lab.ledger, records)
    assert again == {"three": 0, "one": 1, "two": 2}
    assert lab.take("cpu@8")
    assert lab.states()["propose two"] == "RUNNING"
