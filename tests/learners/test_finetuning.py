"""The fine-tuning learner: frozen set of the first round, parents, and what is kept beside."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from matloop.documents.campaign import Campaign, CandidateRecord
from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.decision import Decision
from matloop.documents.evaluation import Evaluation, EvaluationRecord
from matloop.documents.labelled import Frame
from matloop.documents.objective import Objective
from matloop.documents.phase import Phase, PhaseSet
from matloop.documents.theory import LevelOfTheory
from matloop.jobs.reading import observations
from matloop.learners.finetuning import ChgnetFinetune
from matloop.ledger.past import Past
from matloop.protocols import Lesson, Observation, Resources
from matloop.surrogates.potentials import read_card, read_weights, sha256_of

OBJECTIVE = Objective(minimize="e_above_hull")
DFT = LevelOfTheory(kind="dft", code="emt", version="1", model="standing in for DFT")
LEARNER = ChgnetFinetune(min_labels=12, new_labels=4, steps=6, batch=6, rate=2e-4, margin=0.01)
CAMPAIGN = Campaign.model_validate(
    {
        "name": "tuned",
        "space": {"system": "Cu-Au"},
        "objective": {"minimize": "e_above_hull"},
        "generators": ["random_symmetric"],
        "stages": [{"name": "dft", "calculate": "gpaw", "evaluate": ["hull_distance"]}],
    }
)


def crystal(index: int) -> Structure:
    rng = np.random.default_rng(index)
    species = [str(name) for name in rng.choice(["Cu", "Au"], size=2)]
    structure = Structure(Lattice.tetragonal(2.75, 3.9), species, [[0, 0, 0], [0.5, 0.5, 0.5]])
    structure.apply_strain(rng.uniform(-0.03, 0.05, 3))
    return structure.perturb(0.1, seed=index)


def past(index: int, iteration: int, *, converged: bool = True) -> Past:
    """Return what the ledger holds of a crystal that was calculated."""
    structure = crystal(index)
    atoms = AseAtomsAdaptor.get_atoms(structure)
    atoms.calc = EMT()
    energy = float(atoms.get_potential_energy())
    frame = Frame(
        structure=structure, energy=energy, forces=tuple(map(tuple, atoms.get_forces().tolist()))
    )
    name = f"c{index}"
    known = {"energy_per_atom": (energy / 2, DFT.key), "e_above_hull": (0.01, DFT.key)}
    evaluation = Evaluation(
        candidate_id=name,
        verdict="pass" if converged else "fail",
        reason="calculated",
        quantities={n: Quantity(value=v, unit="eV/atom", theory=t) for n, (v, t) in known.items()},
        theory=DFT,
        frames=(frame,),
    )
    record = EvaluationRecord(
        key=f"{index:064d}",
        structure_digest="",
        evaluator="gpaw",
        method="",
        evaluation=evaluation,
        recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    candidate = Candidate(
        candidate_id=name, structure=structure, origin=Origin(generator="random_symmetric")
    )
    proposed = CandidateRecord(
        campaign_id="tuned", iteration=iteration, index=index, candidate=candidate
    )
    decision = Decision(
        campaign_id="tuned",
        iteration=iteration,
        stage="dft",
        candidate_id=name,
        outcome="passed",
        reason="calculated",
        selector="gate",
        evaluations=(record.key,),
    )
    return Past(proposed, (decision,), (record,))


def history(first: int, second: int = 0) -> list[Observation]:
    seen = [past(index, 0) for index in range(first)]
    seen += [past(100 + index, 1) for index in range(second)]
    return observations(seen, CAMPAIGN)


def stored(lesson: Lesson, folder: Path, phases: Path) -> Resources:
    """Return the artifacts of the next round."""
    paths = {"phases": phases}
    contents = {LEARNER.resource: lesson.content}
    contents |= {f"{LEARNER.resource}.{name}": c for name, c in lesson.beside.items()}
    for name, content in contents.items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    return Resources(paths, {n: sha256_of(p.read_bytes()) for n, p in paths.items()})


@pytest.fixture(scope="module")
def phases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    known = tuple(
        Phase(
            phase_id=name,
            structure=Structure(Lattice.cubic(a), [name] * 4, fcc),
            energy=0.0,
            theory=DFT,
        )
        for name, a, fcc in (
            (name, a, [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
            for name, a in (("Cu", 3.6), ("Au", 4.1))
        )
    )
    path = tmp_path_factory.mktemp("phases") / "phases"
    path.write_bytes(PhaseSet(theory=DFT, phases=known).to_bytes())
    return path


def test_rounds_share_a_frozen_set_and_models_have_parents(phases: Path, tmp_path: Path) -> None:
    """The second model starts from the first, is judged on the same crystals, and says so."""
    known = LEARNER.informed(Resources({"phases": phases}, {"phases": ""}))
    seen = history(14)
    assert known.learn(seen[:11], OBJECTIVE, 1) is None
    first = known.learn(seen, OBJECTIVE, 1)
    assert first is not None
    assert first.content == known.learn(seen, OBJECTIVE, 1).content  # type: ignore[union-attr]
    assert first.metrics["accepted"] == 1.0, first.metrics
    assert first.metrics["compared"] == 14
    assert first.metrics["labels"] + first.metrics["frozen"] == 14
    resources = stored(first, tmp_path, phases)
    again = LEARNER.informed(resources)
    assert again.learn(history(14, 3), OBJECTIVE, 2) is None, "three labels are not enough"
    second = again.learn(history(14, 6), OBJECTIVE, 2)
    assert second is not None
    old = read_card(resources.paths[LEARNER.resource])
    paths = stored(second, tmp_path / "..", phases).paths
    name = LEARNER.resource if second.metrics["accepted"] else f"{LEARNER.resource}.refused"
    new = read_card(paths[name])
    assert new.frozen == old.frozen
    assert new.parent_sha256 == resources.digests[LEARNER.resource]
    assert new.parent.model == "chgnet-0.3.0-tuned"
    assert len(new.training) == len(old.training) + 6
    assert new.trained_on == DFT


def test_a_refused_model_is_kept_beside(phases: Path, tmp_path: Path) -> None:
    """Nothing replaces the parent, the attempt is there all the same, and the next starts anew."""
    strict = ChgnetFinetune(min_labels=12, new_labels=4, steps=2, batch=6, margin=0.95)
    lesson = strict.informed(Resources({"phases": phases}, {"phases": ""})).learn(
        history(14), OBJECTIVE, 1
    )
    assert lesson is not None
    assert lesson.metrics["accepted"] == 0.0
    resources = stored(lesson, tmp_path, phases)
    assert not read_weights(resources.paths[strict.resource])
    refused = resources.paths[f"{strict.resource}.refused"]
    assert read_weights(refused)
    card = read_card(refused)
    assert card.reason.startswith("refused: on 3 frozen crystals")
    following = strict.informed(resources)
    assert following.learn(history(14, 2), OBJECTIVE, 1) is None
    second = following.learn(history(14, 4), OBJECTIVE, 1)
    assert second is not None
    (tmp_path / "next").write_bytes(second.beside["refused"])
    later = read_card(tmp_path / "next")
    assert later.frozen == card.frozen
    assert later.parent == card.parent


def test_what_did_not_converge_teaches_nothing() -> None:
    """A failed calculation's geometries are labels that are not converged, and are counted."""
    seen = observations(
        [past(i, 0) for i in range(13)] + [past(20 + i, 0, converged=False) for i in range(3)],
        CAMPAIGN,
    )
    assert [label.converged for item in seen for label in item.labels].count(False) == 3
    assert {label.iteration for item in seen for label in item.labels} == {0}
    lesson = ChgnetFinetune(min_labels=12, steps=0).learn(seen, OBJECTIVE, 1)
    assert lesson is not None
    assert lesson.metrics["excluded"] == 3
    assert lesson.metrics["labels"] + lesson.metrics["frozen"] == 13
