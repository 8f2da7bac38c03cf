"""Accounts: what is set aside counts until there is a verdict, then what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from matloop.documents.campaign import Campaign, CampaignRecord
from matloop.documents.decision import Decision
from matloop.documents.evaluation import Cost, Evaluation, EvaluationRecord
from matloop.documents.operation import Reservation
from matloop.ledger.accounts import WHOLE, accounts
from matloop.ledger.interface import Ledger
from matloop.ledger.opening import open_ledger

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    campaign = Campaign.model_validate(
        {
            "name": "one",
            "space": {"system": "Al-Ni"},
            "objective": {"minimize": "e_above_hull"},
            "generators": ["random_symmetric"],
            "stages": [
                {"name": "relax", "evaluate": ["relaxation"], "gpu_hours": 3},
                {"name": "dft", "calculate": "gpaw", "core_hours": 20},
            ],
            "budget": {"core_hours": 30},
        }
    )
    ledger = open_ledger(tmp_path, create=True)
    record = CampaignRecord(
        campaign_id="one", campaign=campaign, versions={}, machine={}, created_at=START
    )
    ledger.add_campaign(record)
    yield ledger
    ledger.close()


def evaluate(ledger: Ledger, key: str, cost: Cost, when: datetime = START + HOUR) -> None:
    evaluation = Evaluation(candidate_id="c", verdict="pass", reason="done", cost=cost)
    record = EvaluationRecord(
        key=key,
        structure_digest="x",
        evaluator="any",
        method="m",
        evaluation=evaluation,
        recorded_at=when,
    )
    ledger.add_evaluations([record])


def decide(ledger: Ledger, stage: str, name: str, *keys: str, iteration: int = 0) -> None:
    decision = Decision(
        campaign_id="one",
        iteration=iteration,
        stage=stage,
        candidate_id=name,
        outcome="passed",
        reason="fine",
        selector="gate",
        evaluations=keys,
    )
    ledger.add_decisions([decision])


def reserve(ledger: Ledger, key: str, hours: float) -> None:
    reservation = Reservation(
        campaign_id="one",
        iteration=0,
        stage="dft",
        key=key,
        candidate_id=key,
        core_hours=hours,
        reserved_at=START,
    )
    ledger.add_reservations([reservation])


def test_a_reservation_counts_until_it_is_settled(ledger: Ledger) -> None:
    """First the estimate is reserved, then the cost is spent; the whole follows."""
    reserve(ledger, "k", 5.0)
    dft = accounts(ledger, "one")["dft"]
    assert (dft.core_hours.reserved, dft.core_hours.spent, dft.core_hours.left) == (5, 0, 15)
    assert (dft.running, dft.calculations) == (1, 0)
    evaluate(ledger, "k", Cost(seconds=1800, threads=16))
    found = accounts(ledger, "one")
    assert found["dft"].core_hours.spent == pytest.approx(8)
    assert found["dft"].core_hours.left == pytest.approx(12)
    assert found[WHOLE].core_hours.left == pytest.approx(22)
    decide(ledger, "dft", "c", "k")
    assert accounts(ledger, "one") == found, "a calculation counts once"


def test_a_reservation_is_written_once(ledger: Ledger) -> None:
    """A second one for the same calculation changes nothing."""
    reserve(ledger, "k", 5.0)
    reserve(ledger, "k", 7.0)
    assert [item.core_hours for item in ledger.reservations("one")] == [5.0]
    assert ledger.reservations("other") == []


def test_a_calculation_that_cannot_tell_its_cost_is_charged_for_its_time(ledger: Ledger) -> None:
    """One that died is charged until its verdict, at most what was reserved."""
    for key, hours in (("long", 0.5), ("short", 4.0)):
        reserve(ledger, key, hours)
        evaluate(ledger, key, Cost(), START + HOUR)
    assert accounts(ledger, "one")["dft"].core_hours.spent == pytest.approx(0.5 + 1.0)


def test_accelerators_and_cores_are_apart(ledger: Ledger) -> None:
    """Time on a GPU is GPU-hours, however many threads feed it; time on cores counts threads."""
    evaluate(ledger, "a", Cost(seconds=3600, device="cuda", threads=8))
    evaluate(ledger, "b", Cost(seconds=3600, device="cpu", threads=8))
    decide(ledger, "relax", "c", "a", "b")
    relax = accounts(ledger, "one")["relax"]
    assert relax.gpu_hours.spent == pytest.approx(1)
    assert relax.gpu_hours.left == pytest.approx(2)
    assert relax.core_hours.spent == pytest.approx(8)
    assert relax.core_hours.left is None


def test_what_others_paid_for_is_free_and_shared_results_count_once(ledger: Ledger) -> None:
    """A result from before the campaign costs nothing; one that two rest on costs once."""
    evaluate(ledger, "old", Cost(seconds=3600), START - HOUR)
    evaluate(ledger, "new", Cost(seconds=3600))
    decide(ledger, "relax", "c1", "old", "new")
    decide(ledger, "relax", "c2", "new", iteration=1)
    assert accounts(ledger, "one")["relax"].core_hours.spent == pytest.approx(1)
    left = accounts(ledger, "one", without=(0, "relax"))["relax"].core_hours.spent
    assert left == pytest.approx(1), "the other iteration still rests on it"
