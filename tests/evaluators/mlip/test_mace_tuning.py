"""A MACE learns from labels, as mace's own gradients would have it."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.stress import voigt_6_to_full_3x3_stress
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from threadpoolctl import threadpool_limits

from matloop.documents.labelled import Frame, Labelled
from matloop.documents.theory import LevelOfTheory
from matloop.errors import ConfigurationError
from matloop.evaluators.mlip.mace import MaceModel
from matloop.evaluators.mlip.model import load_model
from matloop.potentials import Finetunable, Tuning
from matloop.surrogates.finetuning import finetune
from matloop.surrogates.potentials import sha256_of

from . import tiny_mace

if find_spec("mace") is None:
    pytest.skip("mace is not installed", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore")

EMT_THEORY = LevelOfTheory(kind="empirical", code="ase", version="3", model="emt")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a barely trained network."""
    place = tmp_path_factory.mktemp("mace") / "metals.model"
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        tiny_mace.train(place, steps=4)
    return place


def label(index: int) -> Labelled:
    rng = np.random.default_rng(index)
    species = [str(name) for name in rng.choice(["Cu", "Au"], size=2)]
    structure = Structure(Lattice.tetragonal(2.75, 3.9), species, [[0, 0, 0], [0.5, 0.5, 0.5]])
    structure.apply_strain(rng.uniform(-0.03, 0.05, 3)).perturb(0.15, seed=index)
    atoms = AseAtomsAdaptor.get_atoms(structure)
    atoms.calc = EMT()
    stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
    frame = Frame(
        structure=structure,
        energy=float(atoms.get_potential_energy()),
        forces=tuple(map(tuple, atoms.get_forces().tolist())),
        stress=tuple(map(tuple, stress.tolist())),
    )
    return Labelled(label_id=f"l{index}", group=f"g{index}", frame=frame, theory=EMT_THEORY)


def test_training_sees_what_inference_says(path: Path) -> None:
    """Energies, forces and stresses are those of prediction; the loss reaches every weight."""
    from matloop.evaluators.mlip.mace_tuning import MaceTrainee

    model = MaceModel(path=str(path))
    assert isinstance(model, Finetunable)
    frames = [label(index).frame for index in range(3)]
    trainee = MaceTrainee(model)
    trainee.network.requires_grad_(True)
    found = trainee.output([trainee.prepare(frame) for frame in frames])
    said = model.predict([frame.structure for frame in frames])
    energies = [one.energy / 2 for one in said]
    assert found.energies.detach().numpy() == pytest.approx(energies, abs=1e-9)
    assert found.forces.detach().numpy() == pytest.approx(
        np.concatenate([one.forces for one in said]), abs=1e-9
    )
    assert found.stresses.detach().numpy() == pytest.approx(
        np.stack([one.stress for one in said]), abs=1e-9
    )
    found.forces.square().sum().backward()
    touched = [p.grad is not None and bool(torch.any(p.grad)) for p in trainee.readout()]
    assert touched
    assert any(touched)


def test_it_learns_and_is_another_level_of_theory(path: Path, tmp_path: Path) -> None:
    """Errors fall on unseen crystals; the file is loaded beside the model it was tuned from."""
    settings = Tuning(steps=150, batch=8, rate=1e-2)
    parameters = {"path": str(path)}
    tuned = finetune(
        "mace", parameters, [label(index) for index in range(30)], settings=settings, seed=1
    )
    card = tuned.card
    assert card.accepted, card.reason
    assert card.after.force_mae < card.before.force_mae
    file = tmp_path / "tuned.safetensors"
    file.write_bytes(tuned.to_bytes())
    with_weights = {**parameters, "weights": str(file)}
    theory = load_model("mace", with_weights).theory
    parent = load_model("mace", parameters).theory
    assert theory.model_sha256 == sha256_of(file.read_bytes())
    assert theory.settings["tuned_from"] == parent.model_sha256 == card.parent_sha256
    assert theory == MaceModel(**parameters).theory(theory.model_sha256)
    probe = label(99).frame.structure
    own = MaceModel(**with_weights).predict([probe])[0]
    given = MaceModel(**parameters).predict([probe], tuned.weights)[0]
    assert own.energy == pytest.approx(given.energy, abs=1e-9)
    assert own.energy != pytest.approx(MaceModel(**parameters).predict([probe])[0].energy, abs=1e-3)
    with pytest.raises(ConfigurationError, match="weights of mace, not of chgnet"):
        load_model("chgnet", {"weights": str(file)})
