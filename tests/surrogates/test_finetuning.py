"""Potentials are tuned behind a gate: better on the frozen set, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from matloop.documents.labelled import Frame, Labelled
from matloop.documents.objective import Objective
from matloop.documents.phase import Phase, PhaseSet
from matloop.errors import ConfigurationError
from matloop.evaluators.mlip.chgnet import ChgnetModel
from matloop.evaluators.mlip.model import load_model
from matloop.evaluators.mlip.relaxation import Relaxation
from matloop.potentials import Tuning
from matloop.surrogates.finetuning import Tuned, admitted, finetune, frozen_ids
from matloop.surrogates.model_errors import element_offsets, flips
from matloop.surrogates.potentials import read_card, sha256_of

from .emt_labels import THEORY, labels

SETTINGS = Tuning(steps=12, batch=6, rate=2e-4)


@pytest.fixture(scope="module")
def tuned() -> Tuned:
    """Return CHGNet, tuned on effective medium theory."""
    return finetune("chgnet", {}, labels(24), settings=SETTINGS, seed=1)


@pytest.fixture(scope="module")
def file(tuned: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tuned") / "model.safetensors"
    path.write_bytes(tuned.to_bytes())
    return path


def test_good_labels_make_it_better(tuned: Tuned) -> None:
    """Errors fall on crystals it has not seen, beyond what another zero of energy explains."""
    card = tuned.card
    assert card.accepted, card.reason
    assert card.after.energy_mae < 0.95 * card.shifted.energy_mae < 0.1 * card.before.energy_mae
    assert card.after.relative_mae < 0.95 * card.before.relative_mae
    assert card.after.force_mae < card.before.force_mae
    assert (card.after.crystals, card.after.components) == (5, 30)
    assert not set(card.training) & set(card.frozen)
    assert len(card.training) + len(card.frozen) == 24


def test_the_file_is_another_level_of_theory(tuned: Tuned, file: Path) -> None:
    """What is loaded computes what was judged; its energies never meet those of its parent."""
    assert read_card(file) == tuned.card
    parameters = {"weights": str(file)}
    theory = load_model("chgnet", parameters).theory
    assert theory.model_sha256 == sha256_of(file.read_bytes())
    assert theory == ChgnetModel().theory(theory.model_sha256)
    assert Relaxation(model_parameters=parameters).identity() != Relaxation().identity()
    probe = labels(1, seed=9)[0].frame.structure
    own = ChgnetModel(weights=str(file)).predict([probe])[0]
    given = ChgnetModel().predict([probe], tuned.weights)[0]
    assert own.energy == pytest.approx(given.energy, abs=1e-6)
    assert abs(own.energy - ChgnetModel().predict([probe])[0].energy) > 0.1


def test_garbage_is_refused() -> None:
    """Labels turned upside down make the model worse on the frozen set, and it says so."""
    good = labels(16)
    held = frozen_ids(good, 0.25)
    bad = [item if item.label_id in held else _garbled(item) for item in good]
    settings = Tuning(steps=12, batch=6, rate=1e-3)
    found = finetune("chgnet", {}, bad, settings=settings, frozen=sorted(held), seed=1)
    assert not found.card.accepted
    assert found.card.reason.startswith("refused: ")
    assert found.card.after.force_mae > found.card.before.force_mae


def test_only_converged_labels_of_one_theory_enter() -> None:
    """Unconverged, broken and foreign labels are left out, and counted by reason."""
    other = THEORY.model_copy(update={"model": "lda"})
    mixed = labels(4)
    mixed += [item.model_copy(update={"theory": other}) for item in labels(2, seed=1)]
    mixed += [item.model_copy(update={"converged": False}) for item in labels(3, seed=2)]
    broken = labels(1, seed=3)[0]
    frame = broken.frame.model_copy(update={"energy": float("nan")})
    mixed.append(broken.model_copy(update={"frame": frame}))
    usable, excluded, theory = admitted(mixed)
    assert len(usable) == 4
    assert theory == THEORY
    assert excluded == {"another level of theory": 2, "not converged": 3, "not finite": 1}
    assert admitted(mixed, theory=other.key)[1]["another level of theory"] == 4
    with pytest.raises(ConfigurationError, match="there are: ase-"):
        admitted(mixed, theory="vasp")
    with pytest.raises(ConfigurationError, match="too few"):
        finetune("chgnet", {}, labels(3), settings=SETTINGS)
    with pytest.raises(ConfigurationError, match="cannot be tuned"):
        finetune("ase", {}, labels(6), settings=SETTINGS)


def test_another_zero_of_energy_is_found() -> None:
    """Offsets per element are recovered from residuals, and groups are frozen whole."""
    some = labels(16)
    predicted = ChgnetModel().predict([item.frame.structure for item in some])
    moved = []
    for item, said in zip(some, predicted, strict=True):
        amounts = item.frame.structure.composition
        energy = said.energy + 2.0 * amounts["Cu"] - 1.0 * amounts["Au"]
        moved.append(item.frame.model_copy(update={"energy": energy}))
    offsets = element_offsets(moved, predicted)
    assert offsets == pytest.approx({29: 2.0, 79: -1.0}, abs=0.02)
    twins = [item.model_copy(update={"label_id": f"{item.label_id}b"}) for item in some]
    held = frozen_ids([*some, *twins], 0.25)
    assert len(held) == 8
    assert {name.removesuffix("b") for name in held} == {n for n in held if not n.endswith("b")}


def test_flips_are_listed() -> None:
    """A crystal that only one of the models holds stable is named with both distances."""
    model = ChgnetModel()
    crystals = {item.label_id: item.frame.structure for item in labels(12, seed=4)}
    pure = {s.composition.reduced_formula: s for s in crystals.values() if len(s.elements) == 1}
    assert set(pure) == {"Cu", "Au"}
    phases = PhaseSet(
        theory=model.theory(),
        phases=tuple(
            Phase(phase_id=name, structure=s, energy=0.0, theory=model.theory())
            for name, s in pure.items()
        ),
    )
    own = model.shifted({})
    upside = {**own, "mlp.layers.7.weight": -0.5 * own["mlp.layers.7.weight"]}
    objective = Objective(minimize="e_above_hull", discovery="e_above_hull <= 0.0 eV/atom")
    changed = flips(model, (("", None), ("f" * 64, upside)), phases, crystals, objective)
    assert changed
    for flip in changed:
        assert (flip.before <= 0.0) != (flip.after <= 0.0)
        assert crystals[flip.crystal_id].composition.reduced_formula == flip.formula
    assert not flips(model, (("", None), ("", None)), phases, crystals, objective)


def _garbled(item: Labelled) -> Labelled:
    frame = item.frame
    forces = tuple(tuple(-3.0 * part for part in force) for force in frame.forces)
    wrong = Frame(structure=frame.structure, energy=-5.0 * frame.energy, forces=forces)
    return item.model_copy(update={"frame": wrong})
