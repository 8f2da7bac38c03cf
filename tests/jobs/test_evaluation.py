"""Evaluation: nothing twice, chunk by chunk, within the budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.evaluation import EvaluationRecord
from matloop.jobs.evaluation import Effort, Memory, evaluate
from matloop.jobs.keys import evaluation_keys
from matloop.protocols import Resources
from matloop.testing.toys import ToyRelaxation


def crystals(count: int) -> list[Candidate]:
    return [
        Candidate(
            candidate_id=f"c{index}",
            structure=Structure(Lattice.cubic(3.0 + 0.1 * index), ["Al"], [[0, 0, 0]]),
            origin=Origin(generator="test"),
        )
        for index in range(count)
    ]


class Mortal(Memory):
    """A shelf whose process dies after a number of chunks."""

    def __init__(self, chunks: int) -> None:
        super().__init__()
        self.left = chunks

    def add_evaluations(self, records: list[EvaluationRecord]) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super().add_evaluations(records)


def test_nothing_is_evaluated_twice(tmp_path: Path) -> None:
    """A second evaluation of the same crystals finds every result and computes none."""
    log, shelf = tmp_path / "log", Memory()
    toy = ToyRelaxation(log=str(log))
    first = evaluate([toy], crystals(5), Resources(), shelf, Effort(chunk=2))
    second = evaluate([toy], crystals(5), Resources(), shelf, Effort(chunk=3))
    assert len(log.read_text().split()) == 5
    assert [item.evaluations for item in first] == [item.evaluations for item in second]


def test_a_death_costs_the_chunk_in_flight(tmp_path: Path) -> None:
    """After a death in the third chunk, exactly that chunk's candidates are paid for again."""
    log, shelf = tmp_path / "log", Mortal(2)
    toy = ToyRelaxation(log=str(log))
    with pytest.raises(KeyboardInterrupt):
        evaluate([toy], crystals(10), Resources(), shelf, Effort(chunk=2))
    shelf.left = 100
    evaluate([toy], crystals(10), Resources(), shelf, Effort(chunk=2))
    paid = log.read_text().split()
    assert {name: paid.count(name) for name in paid} == {
        f"c{index}": 2 if index in (4, 5) else 1 for index in range(10)
    }


def test_equal_crystals_are_paid_for_once(tmp_path: Path) -> None:
    """Two candidates with one and the same crystal share one evaluation, addressed to each."""
    log = tmp_path / "log"
    one = crystals(1)[0]
    twin = one.model_copy(update={"candidate_id": "twin"})
    toy = ToyRelaxation(log=str(log))
    results = evaluate([toy], [one, twin], Resources(), Memory(), Effort())
    assert len(log.read_text().split()) == 1
    assert [item.evaluations[0].candidate_id for item in results] == ["c0", "twin"]


def test_the_budget_holds_back_what_it_cannot_pay() -> None:
    """With 0.05 s and 0.02 s per candidate three are evaluated and the rest left incomplete."""
    toy = ToyRelaxation(seconds=0.02)
    results = evaluate([toy], crystals(6), Resources(), Memory(), Effort(chunk=1, seconds=0.05))
    assert [item.complete for item in results] == [True, True, True, False, False, False]


def test_a_rejected_candidate_is_not_asked_about_again(tmp_path: Path) -> None:
    """The second evaluator sees only what the first let pass."""
    log = tmp_path / "log"
    poisoned = crystals(2)[1].model_copy(
        update={"structure": Structure(Lattice.cubic(3), ["Al"], [[float("nan"), 0, 0]])}
    )
    results = evaluate(
        [ToyRelaxation(), ToyRelaxation(log=str(log))],
        [crystals(1)[0], poisoned],
        Resources(),
        Memory(),
        Effort(),
    )
    assert log.read_text().split() == ["c0"]
    assert [len(item.evaluations) for item in results] == [2, 1]


def test_keys_tell_methods_structures_and_inputs_apart() -> None:
    """The key changes with parameters, structure and required inputs, and with nothing else."""

    class Reading(ToyRelaxation):
        requires = ("density",)

    candidate = crystals(1)[0]
    (key,) = evaluation_keys(ToyRelaxation(), [candidate], Resources())
    renamed = candidate.model_copy(update={"candidate_id": "other"})
    assert evaluation_keys(ToyRelaxation(), [renamed], Resources()) == [key]
    assert evaluation_keys(ToyRelaxation(seconds=1.0), [candidate], Resources()) != [key]
    assert evaluation_keys(ToyRelaxation(), [crystals(2)[1]], Resources()) != [key]
    light = candidate.updated(None, {"density": Quantity(value=1.0, unit="g/cm^3")})
    heavy = candidate.updated(None, {"density": Quantity(value=2.0, unit="g/cm^3")})
    assert evaluation_keys(ToyRelaxation(), [light], Resources()) == [key]
    assert evaluation_keys(Reading(), [light], Resources()) != evaluation_keys(
        Reading(), [heavy], Resources()
    )
