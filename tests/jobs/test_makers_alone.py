"""Makers work alone, in any jobflow flow, without a campaign (P7)."""

from __future__ import annotations

import pytest
from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure

from matloop.documents.evaluation import Evaluation
from matloop.jobs.evaluate import EvaluateMaker
from matloop.jobs.propose import ProposeMaker, apportion
from matloop.testing.toys import ToyGenerator, ToyRelaxation, toy_energy


@pytest.fixture
def store() -> JobStore:
    """Return a job store with the additional store that atomate2 users have."""
    return JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})


def test_evaluate_a_list_of_structures(store: JobStore) -> None:
    """Three structures, one poisoned: three documents in order, and only that one fails."""
    structures = [
        Structure(Lattice.cubic(3.0), ["Al"], [[0, 0, 0]]),
        Structure(Lattice.cubic(3.0), ["Al"], [[float("nan"), 0, 0]]),
        Structure(Lattice.cubic(4.0), ["Ni"], [[0, 0, 0]]),
    ]
    job = EvaluateMaker([ToyRelaxation()]).make(structures)
    run_locally(job, store=store, log=False, ensure_success=True)
    output = store.get_output(job.uuid, load=True)
    assert (output["count"], output["passed"]) == (3, 2)
    evaluations = [Evaluation.model_validate(item[0]) for item in output["evaluations"]]
    assert [evaluation.verdict for evaluation in evaluations] == ["pass", "fail", "pass"]
    assert evaluations[2].quantities["energy_per_atom"].value == toy_energy(structures[2])


def test_what_is_proposed_can_be_evaluated(store: JobStore) -> None:
    """Two Makers composed by their outputs alone judge every proposal."""
    propose = ProposeMaker(ToyGenerator()).make({"system": "Al-Ni"}, count=4, seed=7)
    evaluate = EvaluateMaker([ToyRelaxation()]).make(propose.output["structures"])
    run_locally(Flow([propose, evaluate]), store=store, log=False, ensure_success=True)
    assert store.get_output(evaluate.uuid, load=True)["count"] == 4


@pytest.mark.parametrize(
    ("count", "shares", "expected"),
    [
        (10, {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 4, "b": 3, "c": 3}),
        (7, {"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 4, "b": 2, "c": 1}),
        (1, {"a": 0.1, "b": 0.9}, {"a": 0, "b": 1}),
    ],
)
def test_shares_become_whole_numbers(count: int, shares: dict, expected: dict) -> None:
    """Largest remainders: nothing is lost in rounding, and the order of names breaks ties."""
    assert apportion(count, shares) == expected
