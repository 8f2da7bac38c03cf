"""The batched MACE against mace's own ASE calculator, and what its files may hold."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from threadpoolctl import threadpool_limits

from matloop.errors import ConfigurationError
from matloop.evaluators.mlip.bond_model import SKIN
from matloop.evaluators.mlip.mace import LoadedMace, MaceModel
from matloop.evaluators.mlip.mace_file import checked_source, import_mace, read_model
from matloop.evaluators.mlip.model import Member
from matloop.evaluators.mlip.relaxation import Relaxation, relax

from . import tiny_mace
from .conftest import shaken

UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
AFTER_IMPORT: list[str] = []

if find_spec("mace") is None:
    pytest.skip("mace is not installed", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a network trained on Al, Cu and Au."""
    place = tmp_path_factory.mktemp("mace") / "metals.model"
    if "mace" not in sys.modules:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv(UNSAFE, raising=False)
            import_mace()
            AFTER_IMPORT.extend(name for name in os.environ if name == UNSAFE)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        tiny_mace.train(place)
    return place


@pytest.fixture
def metals() -> list[Structure]:
    """Return strained and rattled metals and an alloy of 1 to 8 atoms."""
    rng = np.random.default_rng(2)
    half = Lattice.from_parameters(1, 1, 1, 60, 60, 60)
    places = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    crystals = [
        Structure(Lattice.cubic(3.65), ["Cu"] * 4, places),
        Structure(Lattice.cubic(4.05), ["Al"] * 4, places) * (2, 1, 1),
        Structure(Lattice.cubic(3.9), ["Au", "Cu", "Cu", "Cu"], places),
        Structure(half.scale(17.5), ["Au"], [[0, 0, 0]]),
    ]
    return [shaken(crystal, rng) for crystal in crystals]


def members(structures: list[Structure]) -> list[Member]:
    return [Member.from_structure(structure) for structure in structures]


def calculator(path: Path, **settings: Any) -> Any:
    import_mace()
    from mace.calculators import MACECalculator

    return MACECalculator(model_paths=str(path), device="cpu", **settings)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_same_numbers_as_maces_calculator(path: Path, metals: list[Structure], dtype: str) -> None:
    """Energies, forces and stresses of a batch are those of mace, one crystal at a time."""
    model = MaceModel(str(path), dtype=dtype).load()
    found = model.predict(members(metals))
    reference = calculator(path, default_dtype=dtype)
    start = 0
    for k, structure in enumerate(metals):
        atoms: ase.Atoms = AseAtomsAdaptor.get_atoms(structure)
        atoms.calc = reference
        stop = start + len(structure)
        assert found.energies[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(found.forces[start:stop], atoms.get_forces(), atol=1e-5)
        stress = atoms.get_stress(voigt=False)
        np.testing.assert_allclose(found.stresses[k], stress, atol=1e-5)
        start = stop
    assert not found.faults
    assert np.abs(found.forces).max() > 0.3
    assert np.abs(found.stresses).max() > 0.01


def test_batching_and_old_lists_change_nothing(path: Path, metals: list[Structure]) -> None:
    """Alone, together, in pieces, and with a neighbour list found earlier: the same numbers."""
    model = LoadedMace(MaceModel(str(path)))
    pieces = LoadedMace(MaceModel(str(path), batch_edges=300))
    whole = model.predict(members(metals))
    cut = pieces.predict(members(metals))
    alone = [model.predict(members([structure])) for structure in metals]
    energies = np.concatenate([found.energies for found in alone])
    forces = np.concatenate([found.forces for found in alone])
    for found_energies, found_forces in ((cut.energies, cut.forces), (energies, forces)):
        np.testing.assert_allclose(found_energies, whole.energies, atol=1e-10)
        np.testing.assert_allclose(found_forces, whole.forces, atol=1e-10)
    wandered = members(metals)
    model.predict(wandered)
    lists = [member.scratch for member in wandered]
    rng = np.random.default_rng(4)
    for member in wandered:
        member.positions = member.positions + rng.uniform(-0.1, 0.1, member.positions.shape)
    kept = model.predict(wandered)
    assert [member.scratch for member in wandered] == lists
    fresh = model.predict([Member(m.numbers, m.positions, m.cell) for m in wandered])
    np.testing.assert_allclose(kept.energies, fresh.energies, atol=1e-10)
    np.testing.assert_allclose(kept.forces, fresh.forces, atol=1e-10)


def test_stress_is_the_derivative_of_the_energy(path: Path, metals: list[Structure]) -> None:
    """Straining a cell changes the energy as the stress says."""
    model = MaceModel(str(path)).load()
    member = Member.from_structure(metals[2])
    strain = np.random.default_rng(0).normal(size=(3, 3))
    strain = (strain + strain.T) / 2
    energies = []
    for step in (1e-4, -1e-4):
        deformation = np.eye(3) + step * strain
        moved = Member(member.numbers, member.positions @ deformation, member.cell @ deformation)
        energies.append(float(model.predict([moved]).energies[0]))
    stress = model.predict([member]).stresses[0]
    expected = abs(np.linalg.det(member.cell)) * np.sum(stress * strain)
    assert (energies[0] - energies[1]) / 2e-4 == pytest.approx(expected, rel=1e-3)


def test_relaxation_ends_as_with_ase(path: Path, metals: list[Structure]) -> None:
    """A relaxation by name takes ASE's steps to ASE's energy; BFGS ends within a few meV."""
    parameters: dict[str, Any] = {"path": str(path)}
    options: dict[str, Any] = {"model": "mace", "model_parameters": parameters, "fmax": 0.03}
    fire = relax(metals, Relaxation(**options))
    bfgs = relax(metals, Relaxation(**options, optimizer="bfgs"))
    reference = calculator(path, default_dtype="float64")
    for structure, found, quick in zip(metals, fire, bfgs, strict=True):
        atoms: ase.Atoms = AseAtomsAdaptor.get_atoms(structure)
        atoms.calc = reference
        optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
        assert optimizer.run(fmax=0.03, steps=300)
        assert found.verdict == quick.verdict == "pass"
        assert found.quantities["relaxation_steps"].value == optimizer.nsteps
        energy = atoms.get_potential_energy() / len(atoms)
        assert found.quantities["energy_per_atom"].value == pytest.approx(energy, abs=1e-6)
        assert quick.quantities["energy_per_atom"].value == pytest.approx(energy, abs=5e-3)
        assert found.structure is not None
        assert found.structure.volume == pytest.approx(atoms.get_volume(), rel=1e-5)


def test_theory_is_the_file(path: Path) -> None:
    """The level of theory has the file's hash, head and precision; elements are the model's."""
    model = MaceModel(str(path)).load()
    assert model.theory.kind == "mlip"
    assert model.theory.model_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.theory.settings == {"head": "Default", "dtype": "float64"}
    assert model.elements == {13, 29, 79}
    single = MaceModel(str(path), dtype="float32").load()
    assert single.theory.key != model.theory.key


def test_a_head_is_chosen_by_name(tmp_path: Path, metals: list[Structure]) -> None:
    """Of several heads one is read, as mace does; without a name, none is guessed."""
    file = tmp_path / "heads.model"
    torch.save(tiny_mace.network(heads=("pbe", "r2scan")), file)
    with pytest.raises(ConfigurationError, match="heads pbe, r2scan"):
        MaceModel(str(file)).load()
    found = MaceModel(str(file), head="r2scan").load().predict(members(metals[:1]))
    atoms: ase.Atoms = AseAtomsAdaptor.get_atoms(metals[0])
    atoms.calc = calculator(file, head="r2scan")
    assert found.energies[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    other = MaceModel(str(file), head="pbe").load().predict(members(metals[:1]))
    assert abs(other.energies[0] - found.energies[0]) > 1e-6


def test_faulty_members_are_named_and_harm_nobody(path: Path, metals: list[Structure]) -> None:
    """Lost atoms, coinciding atoms, NaN, crowds and unknown elements fail; the others relax."""
    lost = Structure(Lattice.cubic(9), ["Cu", "Cu"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    crowd = np.random.default_rng(0).uniform(0, 1, (60, 3))
    bad = {
        "no neighbour": lost,
        "not finite": Structure(Lattice.cubic(4), ["Cu", "Cu"], [[0, 0, 0], [0, 0, 0]]),
        "does not know U": Structure(Lattice.cubic(3), ["U"], [[0, 0, 0]]),
        "explosion": Structure(Lattice.cubic(3.95), ["Cu"] * 60, crowd),
    }
    options: dict[str, Any] = {"model": "mace", "model_parameters": {"path": str(path)}}
    relaxation = Relaxation(**options)
    without = relax(metals[:2], relaxation)
    found = relax([metals[0], *bad.values(), metals[1]], relaxation)
    for reason, evaluation in zip(bad, found[1:-1], strict=True):
        assert evaluation.verdict == "fail"
        assert reason in evaluation.reason
    for a, b in zip((found[0], found[-1]), without, strict=True):
        assert a.verdict == b.verdict == "pass"
        energies = [item.quantities["energy_per_atom"].value for item in (a, b)]
        assert energies[0] == pytest.approx(energies[1], abs=1e-8)


def test_lists_reach_as_far_as_they_must(path: Path) -> None:
    """Atoms beyond the cutoff exert no force: a list with a skin is exact."""
    model = MaceModel(str(path)).load()
    far = tiny_mace.R_MAX + SKIN / 2
    apart = Member(np.array([29, 29, 29]), np.zeros((3, 3)), np.eye(3) * 30)
    apart.positions = np.array([[0, 0, 0], [2.5, 0, 0], [2.5 + far, 0, 0]])
    found = model.predict([apart])
    assert "no neighbour" in found.faults[0]
    np.testing.assert_allclose(found.forces[2], 0.0, atol=1e-12)


class Thief:
    """Pickles as a call of the system's shell."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch stolen",)


def test_a_file_cannot_run_commands(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle that names anything beyond MACE's classes is refused before it is opened."""
    monkeypatch.chdir(tmp_path)
    network = torch.load(path, weights_only=False)
    network.extra = Thief()
    torch.save(network, tmp_path / "thief.model")
    with pytest.raises(ConfigurationError, match=r"system.*trusted"):
        MaceModel("thief.model").load()
    assert not (tmp_path / "stolen").exists()
    (tmp_path / "old.model").write_bytes(pickle.dumps(Thief()))
    with pytest.raises(ConfigurationError, match="no MACE model file"):
        read_model(tmp_path / "old.model")
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize(
    "line",
    [
        "return __import__('os').system('true')",
        "import os",
        "return torch.load(x)",
        "return torch.functional.einsum.__globals__",
        "return [x for x in y]",
        "return x.permute.__func__(x)",
        "return x.__class__",
        "self.forward.__globals__",
    ],
)
def test_source_in_a_file_is_tensor_algebra_or_refused(line: str) -> None:
    """What torch.fx writes into a file is run, so nothing but contractions may stand there."""
    checked_source("def forward(self, x, y):\n    return torch.functional.einsum('ab,bc', x, y)\n")
    with pytest.raises(ConfigurationError):
        checked_source(f"def forward(self, x, y):\n    {line}\n")


def test_what_is_no_model_is_said_in_one_line(tmp_path: Path) -> None:
    """A missing file, a wrong file and a table of weights are configuration errors."""
    with pytest.raises(ConfigurationError, match="there is no file"):
        MaceModel(str(tmp_path / "missing.model")).load()
    (tmp_path / "text.model").write_text("not a model")
    with pytest.raises(ConfigurationError, match="no MACE model file"):
        MaceModel(str(tmp_path / "text.model")).load()
    torch.save({"weight": torch.zeros(2)}, tmp_path / "table.model")
    with pytest.raises(ConfigurationError, match="holds a dict"):
        MaceModel(str(tmp_path / "table.model")).load()
    torch.save(torch.nn.Linear(2, 2), tmp_path / "linear.model")
    with pytest.raises(ConfigurationError, match="no energies"):
        MaceModel(str(tmp_path / "linear.model")).load()


def test_importing_mace_leaves_safe_loading_on(path: Path) -> None:
    """Mace switches off torch's safe loading for its process; that is undone."""
    assert not AFTER_IMPORT
