"""Every registered plugin, built-in or not, fulfils its contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop import registry
from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.evaluation import Evaluation
from matloop.documents.objective import Objective
from matloop.documents.phase import Archive, Known, Phase, PhaseSet
from matloop.documents.space import ChemicalSpace
from matloop.protocols import (
    Judged,
    Observation,
    Parent,
    ProposalRequest,
    Resources,
    SelectionRequest,
)
from matloop.testing import conformance
from matloop.testing.toys import ToyGenerator, ToyRelaxation, toy_energy

OBJECTIVE = Objective(minimize="e_above_hull")
CHEAP = {
    "relaxation": {"model": "ase", "max_steps": 30},
    "bulk_modulus": {"model": "ase"},
    "elastic_tensor": {"model": "ase"},
    "phonons": {"model": "ase"},
    "chemical_space": {"system": "Al-Ni"},
    "reinforcement": {"steps": 2},
}


def crystal(index: int) -> Structure:
    """Return one of many aluminium-nickel crystals, all different."""
    species = ["Al", "Ni"] if index % 2 else ["Al", "Ni", "Ni", "Ni"]
    sites = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]][: len(species)]
    if len(species) == 2:
        sites[1] = [0.5, 0.5, 0.5]
    return Structure(Lattice.tetragonal(2.8 + 0.05 * index, 2.9 + 0.03 * index), species, sites)


def candidate(index: int) -> Candidate:
    """Return a candidate with the quantities that evaluators require."""
    structure = crystal(index)
    energy = Quantity(
        value=toy_energy(structure), unit="eV/atom", theory=ToyRelaxation().theory.key
    )
    return Candidate(
        candidate_id=f"c{index}",
        structure=structure,
        origin=Origin(generator="test"),
        quantities={"energy_per_atom": energy},
    )


@pytest.fixture(scope="module")
def history() -> list[Observation]:
    """Return forty observations with an energy above the hull that depends on the crystal."""
    seen = []
    for index in range(40):
        proposed = candidate(index)
        value = float(abs(np.sin(index)) * 0.2)
        distance = Quantity(value=value, unit="eV/atom", theory=ToyRelaxation().theory.key)
        final = proposed.updated(None, {"e_above_hull": distance})
        seen.append(Observation(proposed, final, index // 10, "test", -value, value < 0.05, 100.0))
    return seen


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory, history: list[Observation]) -> Resources:
    """Return the artifacts that evaluators read."""
    folder = tmp_path_factory.mktemp("artifacts")
    theory = ToyRelaxation().theory
    elements = [Structure(Lattice.cubic(2.6), [name], [[0, 0, 0]]) for name in ("Al", "Ni")]
    phases = PhaseSet(
        theory=theory,
        phases=tuple(
            Phase(
                phase_id=s.formula,
                structure=s,
                energy=toy_energy(s),
                theory=theory,
            )
            for s in elements
        ),
    )
    archive = Archive(crystals=(Known(known_id="old", structure=crystal(3)),))
    learner = registry.build("learners", "surrogate", {})
    lesson = learner.learn(history, OBJECTIVE, 1)
    assert lesson is not None
    contents = {
        "phases": phases.to_bytes(),
        "archive": archive.to_bytes(),
        "surrogate": lesson.content,
    }
    paths: dict[str, Path] = {}
    for name, content in contents.items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    return Resources(paths, {name: name for name in paths})


# Each needs what cannot stand in a campaign file alone, a program or a trained autoencoder, and is
# checked where that is made: in tests/generators.
ELSEWHERE = {"command", "mattergen", "latent_search"}


@pytest.mark.parametrize("name", sorted(set(registry.names("generators")) - ELSEWHERE))
def test_generators(name: str, tmp_path: Path) -> None:
    """A generator is bounded, repeatable, inside the space, and its crystals are sound."""
    parameters: dict[str, Any] = {}
    if name == "files":
        crystal(1).to(filename=str(tmp_path / "one.cif"))
        parameters = {"paths": [str(tmp_path)]}
    request = ProposalRequest(
        ChemicalSpace(system="Al-Ni", max_atoms=8),
        count=6,
        seed=5,
        found=[Parent(f"c{index}", crystal(index), -0.1 * index) for index in range(4)],
        references=[Parent("Al", Structure(Lattice.cubic(2.6), ["Al"], [[0, 0, 0]]))],
    )
    generator = registry.build("generators", name, parameters)
    assert generator.propose(request), f"{name} proposes nothing in a simple space"
    conformance.check_generator(generator, request)


@pytest.mark.parametrize("name", registry.names("evaluators"))
def test_evaluators(name: str, resources: Resources) -> None:
    """An evaluator gives one reasoned verdict each, whatever stands beside a candidate."""
    evaluator = registry.build("evaluators", name, CHEAP.get(name, {}))
    conformance.check_evaluator(evaluator, [candidate(1), candidate(2)], resources)


@pytest.mark.parametrize("name", registry.names("selectors"))
@pytest.mark.parametrize("keep", [None, 2])
def test_selectors(name: str, keep: int | None) -> None:
    """A selector makes one reasoned choice each, and lets nothing pass that was turned down."""
    batch = []
    for index in range(6):
        value = Quantity(value=0.02 * index, unit="eV/atom", uncertainty=0.01)
        item = candidate(index).updated(None, {"predicted_e_above_hull": value})
        verdict = "reject" if index == 1 else "fail" if index == 2 else "pass"
        said = Evaluation(candidate_id=item.candidate_id, verdict=verdict, reason="said so")
        batch.append(Judged(item, (said,)))
    selector = registry.build("selectors", name, {})
    conformance.check_selector(selector, batch, SelectionRequest(OBJECTIVE, 3, keep))


@pytest.mark.parametrize("name", registry.names("learners"))
def test_learners(name: str, history: list[Observation]) -> None:
    """A learner learns the same from the same, and nothing from nothing."""
    learner = registry.build("learners", name, CHEAP.get(name, {}))
    conformance.check_learner(learner, history, OBJECTIVE)


@pytest.mark.parametrize("name", registry.names("allocators"))
def test_allocators(name: str) -> None:
    """Shares add up to one and nobody dies."""
    conformance.check_allocator(registry.build("allocators", name, {}))


def test_an_upset_evaluator_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluator that raises for a bad neighbour breaks its contract."""
    sound = ToyRelaxation.evaluate

    def upset(self, candidates, resources):
        if any("nan" in item.candidate_id for item in candidates):
            raise ValueError("poison")
        return sound(self, candidates, resources)

    monkeypatch.setattr(ToyRelaxation, "evaluate", upset)
    with pytest.raises(ValueError, match="poison"):
        conformance.check_evaluator(ToyRelaxation(), [candidate(1), candidate(2)], Resources())


def test_an_influenced_evaluator_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluator whose verdict on one crystal depends on its neighbours breaks its contract."""
    sound = ToyRelaxation.evaluate

    def influenced(self, candidates, resources):
        verdict = "pass" if len(candidates) < 3 else "reject"
        said = sound(self, candidates, resources)
        return [evaluation.model_copy(update={"verdict": verdict}) for evaluation in said]

    monkeypatch.setattr(ToyRelaxation, "evaluate", influenced)
    with pytest.raises(AssertionError, match="beside a poisoned candidate"):
        conformance.check_evaluator(ToyRelaxation(), [candidate(1), candidate(2)], Resources())


def test_a_greedy_generator_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that returns more than it is asked for breaks its contract."""
    sound = ToyGenerator.propose

    def greedy(self, request):
        return sound(self, request) * 2

    monkeypatch.setattr(ToyGenerator, "propose", greedy)
    request = ProposalRequest(ChemicalSpace(system="Al-Ni"), count=3, seed=1)
    with pytest.raises(AssertionError, match="more than it is asked for"):
        conformance.check_generator(ToyGenerator(), request)
