"""Selectors that rank by what is known, or by lot."""

import pytest

from matloop.documents.candidate import Quantity
from matloop.documents.objective import Objective
from matloop.protocols import SelectionRequest
from matloop.selectors.ranking import Best, Random

OBJECTIVE = Objective(minimize="e_above_hull")


def energy(value: float) -> dict[str, Quantity]:
    return {"e_above_hull": Quantity(value=value, unit="eV/atom")}


def test_best_passes_the_lowest_energies(judged):
    """Of five energies the two lowest pass, the others are held with their rank."""
    batch = [judged(i, known=energy(e)) for i, e in enumerate([0.3, 0.1, 0.5, 0.0, 0.2])]
    choices = Best().select(batch, SelectionRequest(OBJECTIVE, 0, keep=2))
    assert [c.outcome for c in choices] == ["held", "passed", "held", "passed", "held"]
    assert [c.evidence["rank"] for c in choices] == [4, 2, 5, 1, 3]


def test_best_ranks_the_unknown_last(judged):
    """A candidate without energy, or with NaN, yields to any that has one."""
    batch = [
        judged(0),
        judged(1, known=energy(float("nan"))),
        judged(2, known=energy(9.0)),
    ]
    choices = Best().select(batch, SelectionRequest(OBJECTIVE, 0, keep=1))
    assert [c.outcome for c in choices] == ["held", "held", "passed"]


def test_best_by_a_quantity_of_its_own(judged):
    """A quantity the objective does not name may rank, small or large; unknown ones come last."""
    batch = [judged(0), *(judged(i, known=energy(0.1 * i)) for i in (2, 1, 3))]
    objective = Objective(maximize="bulk_modulus", discovery="bulk_modulus >= 1 GPa")
    request = SelectionRequest(objective, 0, keep=1)
    small = Best(quantity="e_above_hull").select(batch, request)
    assert [c.outcome for c in small] == ["held", "held", "passed", "held"]
    assert small[2].evidence == {"rank": 1.0, "e_above_hull": pytest.approx(0.1)}
    large = Best(quantity="e_above_hull", largest=True).select(batch, request)
    assert [c.evidence["rank"] for c in large] == [4, 2, 3, 1]


@pytest.mark.parametrize("selector", [Best(), Random()])
def test_gates_come_first(judged, selector):
    """Rejected and failed candidates take no place, however good."""
    batch = [
        judged(0, verdict="reject", known=energy(-9.0)),
        judged(1, verdict="fail", known=energy(-9.0)),
        judged(2, known=energy(0.5)),
    ]
    choices = selector.select(batch, SelectionRequest(OBJECTIVE, 0, keep=1))
    assert [c.outcome for c in choices] == ["rejected", "failed", "passed"]
    assert [c.candidate_id for c in choices] == ["c0", "c1", "c2"]


@pytest.mark.parametrize("selector", [Best(), Random()])
def test_without_a_limit_all_pass(judged, selector):
    """No limit means no candidate is held; an empty batch gives no choices."""
    batch = [judged(i) for i in range(4)]
    choices = selector.select(batch, SelectionRequest(OBJECTIVE, 0))
    assert {c.outcome for c in choices} == {"passed"}
    assert selector.select([], SelectionRequest(OBJECTIVE, 0, keep=3)) == []


def test_random_is_fair_and_repeatable(judged):
    """Over many seeds each of ten candidates is drawn about equally often; a seed repeats."""
    batch = [judged(i) for i in range(10)]
    counts = [0] * 10
    for seed in range(300):
        choices = Random().select(batch, SelectionRequest(OBJECTIVE, seed, keep=3))
        passed = [c.outcome == "passed" for c in choices]
        assert sum(passed) == 3
        counts = [count + drawn for count, drawn in zip(counts, passed, strict=True)]
    assert 60 < min(counts) <= max(counts) < 120
    again = [Random().select(batch, SelectionRequest(OBJECTIVE, 5, keep=3)) for _ in range(2)]
    assert again[0] == again[1]
