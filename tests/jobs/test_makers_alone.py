"""Makers work alone, in any jobflow flow, without a campaign (P7)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.calculators.emt import EMT
from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from matloop.documents.evaluation import Evaluation
from matloop.documents.outcome import Outcome
from matloop.evaluators.mlip.relaxation import Relaxation
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


def test_each_structure_has_a_document_of_its_relaxation(store: JobStore) -> None:
    """Energy, forces, steps, convergence and model of each, in blobs; what passed goes on."""
    places = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0.02]]
    structures = [
        Structure(Lattice.cubic(3.8), ["Cu"] * 4, places),
        Structure(Lattice.cubic(3.0), ["U"], [[0, 0, 0]]),
        Structure(Lattice.cubic(4.4), ["Au"] * 4, places),
        Structure(Lattice.cubic(4.4), ["Cu"] * 4, places),
    ]
    job = EvaluateMaker([Relaxation(model="ase", max_steps=20)]).make(structures)
    static = EvaluateMaker([Relaxation(model="ase", relax_cell=False)]).make(
        job.output["structures"]
    )
    run_locally(Flow([job, static]), store=store, log=False, ensure_success=True)
    small = store.docs_store.query_one({"uuid": job.uuid}, ["output"])
    assert len(json.dumps(small, default=str)) < 2000
    output = store.get_output(job.uuid, load=True)
    outcomes = [Outcome.model_validate(item) for item in output["outcomes"]]
    assert [item.index for item in outcomes] == [0, 1, 2, 3]
    assert [item.converged for item in outcomes] == [True, False, False, False]
    assert [item.steps for item in outcomes][1:] == [0, 20, 20]
    for item, given in zip(outcomes, structures, strict=True):
        assert item.formula == given.reduced_formula
        assert item.theory is not None
        assert item.theory.model == "emt"
        if item.verdict == "fail":
            assert item.energy is None
            assert item.forces is None
            assert "does not know U" in item.reason
            continue
        atoms = AseAtomsAdaptor.get_atoms(item.structure)
        atoms.calc = EMT(asap_cutoff=True)
        assert item.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(item.forces, atoms.get_forces(), atol=1e-7)
        np.testing.assert_allclose(item.stress, atoms.get_stress(voigt=False), atol=1e-9)
        assert item.max_force is not None
        assert (item.max_force < 0.1) is item.converged
        assert item.cost.calls == item.steps + 1
    assert store.get_output(static.uuid, load=True)["count"] == 1


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
