"""The invariant features of a MACE as a representation of the surrogate."""

from __future__ import annotations

import hashlib
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.objective import Objective
from matloop.errors import ConfigurationError
from matloop.evaluators.surrogate import Surrogate
from matloop.learners.surrogate import SurrogateRefit
from matloop.protocols import Observation, Resources
from matloop.selectors.diversity import batch_features
from matloop.surrogates.embedding import checkpoint_digest, embed_all_with

from ..evaluators.mlip import tiny_mace

if find_spec("mace") is None:
    pytest.skip("mace is not installed", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore")
HALF = Lattice.from_parameters(1, 1, 1, 60, 60, 60)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a network trained on Al, Cu and Au."""
    place = tmp_path_factory.mktemp("mace") / "metals.model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny_mace.train(place)
    return place


def metals(count: int) -> list[Structure]:
    rng = np.random.default_rng(2)
    found = []
    for index in range(count):
        names = [str(rng.choice(["Al", "Cu", "Au"])) for _ in range(2)]
        crystal = Structure(Lattice.tetragonal(2.9, 3.9), names, [[0, 0, 0], [0.5, 0.5, 0.5]])
        crystal.scale_lattice(float(rng.uniform(26, 36)))
        found.append(crystal.perturb(0.05) if index % 2 else crystal)
    return found


def test_features_are_those_of_mace_and_of_the_crystal_alone(path: Path) -> None:
    """Equal to the mean of mace's own descriptors; turned, moved and doubled cells are the same."""
    from mace.calculators import MACECalculator

    crystals = metals(6)
    features, failures = embed_all_with(str(path), crystals)
    assert not failures
    own = MACECalculator(model_paths=str(path), device="cpu", default_dtype="float64")
    for row, crystal in zip(features, crystals, strict=True):
        expected = own.get_descriptors(AseAtomsAdaptor.get_atoms(crystal)).mean(axis=0)
        assert row == pytest.approx(expected, abs=1e-9)
    crystal = crystals[1]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = Structure(crystal.lattice.matrix @ turn, crystal.species, crystal.frac_coords)
    moved = crystal.copy()
    moved.translate_sites(range(len(moved)), [0.1, 0.2, 0.3])
    for same in (turned, moved, crystal * (2, 1, 1)):
        alone, _ = embed_all_with(str(path), [same])
        assert alone[0] == pytest.approx(features[1], abs=1e-9)
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_what_cannot_be_embedded_harms_nobody(path: Path) -> None:
    """An unknown element, a cell without numbers and atoms far apart have a reason each."""
    good = metals(1)[0]
    strange = good.copy()
    strange.replace_species(dict.fromkeys(strange.symbol_set, "Fe"))
    broken = good.copy()
    broken.lattice = Lattice(np.full((3, 3), np.nan))
    lonely = Structure(Lattice.cubic(30.0), ["Cu"], [[0, 0, 0]])
    features, failures = embed_all_with(str(path), [strange, good, broken, lonely])
    assert sorted(failures) == [0, 2, 3]
    assert "does not know Fe" in failures[0]
    assert "no neighbour" in failures[3]
    assert np.isfinite(features[1]).all()


def test_a_surrogate_learns_on_them(path: Path, tmp_path: Path) -> None:
    """What depends on the volume alone is learned better than by composition alone."""
    crystals = metals(60)
    candidates = [
        Candidate(candidate_id=f"c{i}", structure=crystal, origin=Origin(generator="test"))
        for i, crystal in enumerate(crystals)
    ]
    truth = np.array([0.01 * (crystal.volume - 31.0) ** 2 for crystal in crystals])
    objective = Objective(minimize="e_above_hull")
    errors = {}
    for kind, checkpoint in (("mace", str(path)), ("composition", "")):
        settings = {"representation": kind, "checkpoint": checkpoint}
        history = [
            Observation(
                item,
                item.updated(None, {"e_above_hull": Quantity(value=value, unit="eV/atom")}),
                0, "test", None, False, 0.0,
            )
            for item, value in zip(candidates[:40], truth.tolist(), strict=False)
        ]  # fmt: skip
        lesson = SurrogateRefit(trees=20, **settings).learn(history, objective, 0)
        assert lesson is not None
        file = tmp_path / f"{kind}.npz"
        file.write_bytes(lesson.content)
        digest = hashlib.sha256(lesson.content).hexdigest()
        resources = Resources({"surrogate": file}, {"surrogate": digest})
        evaluator = Surrogate(**settings)
        found = evaluator.evaluate(candidates[40:], resources)
        values = [one.quantities["predicted_e_above_hull"].value for one in found]
        errors[kind] = np.abs(np.array(values) - truth[40:]).mean()
        if kind == "mace":
            assert evaluator.identity() == checkpoint_digest(str(path))
            other = tmp_path / "other.model"
            tiny_mace.train(other, steps=1, seed=1)
            with pytest.raises(ConfigurationError, match="another model file"):
                Surrogate("mace", str(other)).evaluate(candidates[40:], resources)
    assert errors["mace"] < 0.75 * errors["composition"]
    assert batch_features(crystals, "mace", str(path)).shape[0] == 60


def test_a_model_file_belongs_to_mace_alone() -> None:
    """Without a file, and a file without need, is refused when the plugin is made."""
    for plugin in (Surrogate, SurrogateRefit):
        with pytest.raises(ValueError, match="needs a model file; set checkpoint"):
            plugin(representation="mace")
        with pytest.raises(ValueError, match="checkpoint is for representation mace"):
            plugin(checkpoint="x.model")
    with pytest.raises(ConfigurationError, match="there is no file"):
        Surrogate("mace", "none.model").identity()
