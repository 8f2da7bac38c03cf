"""Worker processes: a chunk may raise or kill, and only the guilty candidate pays."""

from __future__ import annotations

import os

import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin
from matloop.errors import TheoryMismatchError
from matloop.jobs.workers import evaluate_chunk, evaluate_chunks
from matloop.protocols import Resources
from matloop.testing.toys import ToyRelaxation


def crystals(*elements: str) -> list[Candidate]:
    """Return one-atom crystals named after their element and place."""
    return [
        Candidate(
            candidate_id=f"{element}-{index}",
            structure=Structure(Lattice.cubic(3.0 + 0.1 * index), [element], [[0, 0, 0]]),
            origin=Origin(generator="test"),
        )
        for index, element in enumerate(elements)
    ]


def verdicts(evaluations: list) -> dict[str, str]:
    return {evaluation.candidate_id: evaluation.verdict for evaluation in evaluations}


def test_a_raising_candidate_fails_alone() -> None:
    """One candidate that raises becomes one failure that quotes the exception."""
    results = evaluate_chunk(ToyRelaxation(raises="Cu"), crystals("Al", "Cu", "Ni"), Resources())
    assert verdicts(results) == {"Al-0": "pass", "Cu-1": "fail", "Ni-2": "pass"}
    assert "ValueError: Cu is more than this toy can bear" in results[1].reason


@pytest.mark.slow
def test_a_killer_is_found_and_its_neighbours_are_saved() -> None:
    """A candidate that kills its worker fails; chunk mates and chunks flying beside it do not."""
    chunks = [crystals("Al", "Ni"), crystals("Al", "Cu", "Ni"), crystals("Mg", "Ni")]
    results = dict(evaluate_chunks(ToyRelaxation(fatal="Cu"), chunks, Resources(), workers=2))
    assert sorted(results) == [0, 1, 2]
    assert verdicts(results[0]) == {"Al-0": "pass", "Ni-1": "pass"}
    assert verdicts(results[1]) == {"Al-0": "pass", "Cu-1": "fail", "Ni-2": "pass"}
    assert verdicts(results[2]) == {"Mg-0": "pass", "Ni-1": "pass"}
    assert "died" in results[1][1].reason


def test_workers_have_one_thread_and_the_parent_keeps_its_own() -> None:
    """Starting workers pins their threads and leaves the caller's environment alone."""
    before = dict(os.environ)
    results = dict(evaluate_chunks(ToyRelaxation(), [crystals("Al")], Resources(), workers=1))
    assert verdicts(results[0]) == {"Al-0": "pass"}
    assert dict(os.environ) == before


def test_a_mistake_of_the_campaign_is_not_blamed_on_candidates() -> None:
    """An error that concerns the whole campaign is raised, not turned into verdicts."""

    class Mismatched(ToyRelaxation):
        def evaluate(self, candidates, resources):
            raise TheoryMismatchError("two levels of theory")

    with pytest.raises(TheoryMismatchError):
        evaluate_chunk(Mismatched(), crystals("Al", "Ni"), Resources())


def test_an_evaluator_that_loses_candidates_is_caught() -> None:
    """An evaluator that answers fewer candidates than asked fails those it lost."""

    class Forgetful(ToyRelaxation):
        def evaluate(self, candidates, resources):
            return super().evaluate(candidates, resources)[:-1]

    results = evaluate_chunk(Forgetful(), crystals("Al", "Ni"), Resources())
    assert set(verdicts(results).values()) == {"fail"}
    assert len(results) == 2
