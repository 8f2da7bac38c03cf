"""A bad candidate harms nobody but itself."""

import pytest

from matloop.documents.candidate import Quantity
from matloop.evaluators.isolation import Finding, judge_each, judge_together
from matloop.evaluators.novelty import Novelty, Uniqueness
from matloop.evaluators.rules import Cell, ChargeBalance, InsideSpace, MinimumDistance
from matloop.evaluators.stability import HullDistance
from matloop.evaluators.symmetry import Symmetry
from matloop.testing.conformance import check_evaluator

from .conftest import PEROVSKITE, RUTILE, SALT, make_candidate, poisoned

EVALUATORS = [
    MinimumDistance(relative=0.5),
    Cell(),
    InsideSpace(elements=("Sr", "Ti", "O"), charge_balance="required"),
    ChargeBalance(),
    Symmetry(),
    Uniqueness(),
    Novelty(),
    HullDistance(),
]


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=lambda e: type(e).__name__)
def test_every_evaluator_keeps_the_contract(evaluator, store, oxides):
    """Documented, serialisable, one finite and reasoned verdict per candidate, poison or not."""
    good = [make_candidate("a", PEROVSKITE, -3.3), make_candidate("b", SALT, -2.9)]
    check_evaluator(evaluator, good, store(phases=oxides))


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=lambda e: type(e).__name__)
def test_poison_never_raises_nor_changes_another_verdict(evaluator, store, oxides):
    """Broken crystals between good ones: the good ones are judged as if alone, word for word."""
    resources = store(phases=oxides)
    good = [
        make_candidate(name, structure, -3.0)
        for name, structure in (("a", PEROVSKITE), ("b", RUTILE), ("c", SALT))
    ]
    bad = [make_candidate(f"bad-{i}", s, -3.0) for i, s in enumerate(poisoned())]
    alone = evaluator.evaluate(good, resources)
    mixed = evaluator.evaluate([bad[0], good[0], *bad[1:6], good[1], *bad[6:], good[2]], resources)
    assert len(mixed) == len(good) + len(bad)
    by_name = {evaluation.candidate_id: evaluation for evaluation in mixed}
    for evaluation in alone:
        companion = by_name[evaluation.candidate_id]
        assert companion.model_copy(update={"cost": evaluation.cost}) == evaluation
    for evaluation in mixed:
        assert evaluation.reason
        assert type(evaluation).model_validate_json(evaluation.model_dump_json()) == evaluation


@pytest.mark.parametrize(
    "evaluator", [MinimumDistance(), Cell(), Symmetry(), Uniqueness(), Novelty()]
)
def test_a_crystal_that_is_not_a_number_never_passes(evaluator, store, oxides):
    """NaN in a coordinate or in the lattice is rejected or failed, with a word about it."""
    bad = [make_candidate(f"bad-{i}", s) for i, s in enumerate(poisoned()[:2])]
    for evaluation in evaluator.evaluate(bad, store(phases=oxides)):
        assert evaluation.verdict != "pass"
        assert "finite" in evaluation.reason


def test_whatever_a_judge_raises_fails_its_candidate_alone():
    """Even a panic, which is no Exception, becomes a verdict; an interrupt does not."""

    class Panic(BaseException):
        pass

    def judge(candidate):
        if candidate.candidate_id == "bad":
            raise Panic("index out of bounds")
        if candidate.candidate_id == "stop":
            raise KeyboardInterrupt
        return Finding("pass", "fine", {"x": Quantity(value=float("nan")), "y": Quantity(value=1)})

    names = ["one", "bad", "two"]
    found = judge_each([make_candidate(name, SALT) for name in names], judge)
    assert [evaluation.verdict for evaluation in found] == ["pass", "fail", "pass"]
    assert "Panic: index out of bounds" in found[1].reason
    assert list(found[0].quantities) == ["y"]  # what is not finite is left out
    assert found[0].cost.seconds > 0
    with pytest.raises(KeyboardInterrupt):
        judge_each([make_candidate("stop", SALT)], judge)


def test_judged_together_the_fault_of_one_is_found_by_halves():
    """All others pass together; two bad ones have their own reasons, an interrupt goes through."""
    rounds = []

    def judge(candidates):
        names = [candidate.candidate_id for candidate in candidates]
        rounds.append(names)
        if "stop" in names:
            raise KeyboardInterrupt
        for name in names:
            if name.startswith("bad"):
                raise ValueError(name)
        return [Finding("pass", name) for name in names]

    names = [f"c{i}" for i in range(60)]
    names[7], names[41] = "bad-7", "bad-41"
    found = judge_together([make_candidate(name, SALT) for name in names], judge)
    assert [evaluation.candidate_id for evaluation in found] == names
    failed = {e.candidate_id: e.reason for e in found if e.verdict == "fail"}
    assert failed == {
        name: f"could not be judged: ValueError: {name}" for name in ("bad-7", "bad-41")
    }
    assert all(e.reason == e.candidate_id for e in found if e.verdict == "pass")
    assert len(rounds) < 30
    assert judge_together([], judge) == []
    with pytest.raises(KeyboardInterrupt):
        judge_together([make_candidate("c", SALT), make_candidate("stop", SALT)], judge)
