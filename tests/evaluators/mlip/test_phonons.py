"""Phonons against Hessians, phonopy's own thermodynamics and experiment; conduct with bad ones."""

from __future__ import annotations

import ase
import numpy as np
import pytest
from ase import units
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure

from matloop.documents.evaluation import Evaluation
from matloop.evaluators.mlip.lattice_dynamics import Displacements
from matloop.evaluators.mlip.model import Member, load_model
from matloop.evaluators.mlip.phonons import Phonons
from matloop.evaluators.mlip.relaxation import Relaxation, relax
from matloop.evaluators.mlip.single_points import single_points
from matloop.protocols import Resources
from matloop.structures.symmetry import primitive_cell
from matloop.testing.conformance import check_evaluator

from .conftest import candidates

ARGON = {"model": "ase", "model_parameters": {"calculator": "lj"}}
METAL = {"model": "ase"}


def crystal(group: str, a: float, species: list[str], places: list[list[float]]) -> Structure:
    found = Structure.from_spacegroup(group, Lattice.cubic(a), species, places)
    return found.get_primitive_structure()


def relaxed(structures: list[Structure], fmax: float = 0.002, **model: object) -> list[Structure]:
    found = relax(structures, Relaxation(fmax=fmax, max_steps=500, **model))
    assert [item.verdict for item in found] == ["pass"] * len(found)
    return [item.structure for item in found if item.structure is not None]


def judged(structures: list[Structure], evaluator: Phonons) -> list[Evaluation]:
    return evaluator.evaluate(candidates(structures), Resources())


@pytest.fixture(scope="module")
def copper() -> Structure:
    return relaxed([crystal("Fm-3m", 3.6, ["Cu"], [[0, 0, 0]])], **METAL)[0]


def value(evaluation: Evaluation, name: str) -> float:
    return evaluation.quantities[name].value


def test_close_packed_metals_are_stable(copper: Structure) -> None:
    """Copper, aluminium and ordered AlCu3 have real modes only; translations count as zero."""
    alloy = crystal("Pm-3m", 3.7, ["Al", "Cu"], [[0, 0, 0], [0.5, 0.5, 0]])
    aluminium = crystal("Fm-3m", 4.05, ["Al"], [[0, 0, 0]])
    for item in judged([copper, *relaxed([aluminium, alloy], **METAL)], Phonons(**METAL)):
        assert item.verdict == "pass"
        assert value(item, "lowest_frequency") == 0.0
        assert 5.0 < value(item, "highest_frequency") < 12.0
        assert item.theory is not None


def test_energies_are_those_of_the_whole_hessian(copper: Structure) -> None:
    """The modes of 64 atoms, from every second derivative by ASE, have the same energies."""
    primitive = primitive_cell(copper, 0.01)
    evaluator = Phonons(**METAL, distance=0.01, mesh_length=4 * primitive.lattice.a * 0.8)
    found = judged([copper], evaluator)[0]
    atoms = ase.Atoms(["Cu"], [[0, 0, 0]], cell=primitive.lattice.matrix, pbc=True) * (4, 4, 4)
    atoms.calc = EMT(asap_cutoff=True)
    hessian = np.empty((3 * len(atoms), 3 * len(atoms)))
    start = atoms.positions.copy()
    for row in range(len(hessian)):
        pulls = []
        for sign in (1, -1):
            atoms.positions = start
            atoms.positions[row // 3, row % 3] += sign * 0.01
            pulls.append(atoms.get_forces().ravel())
        hessian[row] = (pulls[1] - pulls[0]) / 0.02
    squares = np.linalg.eigvalsh(0.5 * (hessian + hessian.T)) / atoms.get_masses()[0]
    quanta = units._hbar * units._e**-1 * 1e10 * np.sqrt(squares[3:] * units._e / units._amu)
    assert value(found, "zero_point_energy") == pytest.approx(quanta.sum() / 2 / 64, rel=1e-4)
    thermal = units.kB * 300
    free = (quanta / 2 + thermal * np.log(1 - np.exp(-quanta / thermal))).sum() / 64
    assert value(found, "vibrational_free_energy_300K") == pytest.approx(free, abs=1e-5)
    highest = quanta.max() / (units._hplanck / units._e * 1e12)
    assert value(found, "highest_frequency") == pytest.approx(highest, rel=1e-4)


def test_thermodynamics_agree_with_phonopy() -> None:
    """Energies of a binary crystal are those phonopy gives for the same force constants."""
    cell = crystal("Pm-3m", 3.7, ["Al", "Cu"], [[0, 0, 0], [0.5, 0.5, 0]])
    alloy = primitive_cell(relaxed([cell], **METAL)[0], 0.01)
    model, member = load_model("ase", {}), Member.from_structure(alloy)
    displaced = Displacements(member, 2 * np.eye(3, dtype=np.int64), 0.03)
    forces = [point.forces for point in single_points(model, displaced.cells, 1000)]
    spectrum = displaced.spectrum(forces, model.predict([member]).forces, 30.0)
    phonopy = displaced._phonopy
    phonopy.run_thermal_properties(temperatures=[0, 300], exclude_gamma_acoustic=True)
    judge = np.array(phonopy.thermal_properties.free_energy) * units.kJ / units.mol / 4
    assert spectrum.zero_point_energy() == pytest.approx(judge[0], rel=1e-5)
    assert spectrum.free_energy(300.0) == pytest.approx(judge[1], rel=1e-4)
    # twelve modes at each wave vector, but for the three translations at Gamma
    mesh = np.prod(phonopy.mesh.mesh_numbers)
    assert spectrum.weights.sum() == pytest.approx(12 - 3 / mesh)
    assert spectrum.frequencies.min() > 0.05


def test_argon_vibrates_as_it_does() -> None:
    """Solid argon's highest phonon is 2.0 THz (Fujii et al., Phys. Rev. B 10, 3647, 1974)."""
    argon = relaxed([crystal("Fm-3m", 5.3, ["Ar"], [[0, 0, 0]])], fmax=0.0005, **ARGON)
    found = judged(argon, Phonons(**ARGON))[0]
    assert found.verdict == "pass"
    assert value(found, "highest_frequency") == pytest.approx(2.0, rel=0.1)


def test_open_lattices_of_central_forces_are_unstable() -> None:
    """Body-centred and simple cubic argon would shear away (Born, 1940); the reason says where."""
    open_lattices = relaxed(
        [crystal(group, a, ["Ar"], [[0, 0, 0]]) for group, a in [("Im-3m", 4.2), ("Pm-3m", 3.6)]],
        fmax=0.0005,
        **ARGON,
    )
    for item in judged(open_lattices, Phonons(**ARGON)):
        assert item.verdict == "reject"
        assert value(item, "lowest_frequency") < -0.2
        assert "imaginary mode of" in item.reason
        assert "q = (" in item.reason
        assert "zero_point_energy" not in item.quantities
    lenient = judged(open_lattices, Phonons(**ARGON, tolerance=5.0))
    assert [item.verdict for item in lenient] == ["pass", "pass"]


def test_any_cell_of_a_crystal_gives_the_same(copper: Structure) -> None:
    """A conventional, turned or doubled cell has the frequencies of the primitive one."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    double = copper * (2, 1, 1)
    turned = Structure(double.lattice.matrix @ turn, double.species, double.frac_coords)
    first, *others = judged([copper, copper.to_conventional(), turned], Phonons(**METAL))
    for item in others:
        for name, quantity in first.quantities.items():
            assert value(item, name) == pytest.approx(quantity.value, abs=1e-5)


def test_a_crystal_that_is_not_at_rest_is_rejected(copper: Structure) -> None:
    """A swollen cell, or atoms out of place, are told apart from an instability."""
    swollen = copper.copy().scale_lattice(copper.volume * 1.1)
    shaken = copper.to_conventional().perturb(0.1)
    for item in judged([swollen, shaken], Phonons(**METAL)):
        assert item.verdict == "reject"
        assert "not at rest" in item.reason
        assert item.quantities == {}
        assert item.cost.calls == 1


def test_what_is_too_large_fails(copper: Structure) -> None:
    """The reason says how large the supercell would have to be."""
    found = judged([copper], Phonons(**METAL, max_atoms=30))[0]
    assert found.verdict == "fail"
    assert "take more than 30 primitive cells" in found.reason


def test_together_as_alone_whatever_stands_beside(copper: Structure) -> None:
    """Conformance with crystals that pass, and the same numbers in a batch as alone."""
    aluminium = relaxed([crystal("Fm-3m", 4.05, ["Al"], [[0, 0, 0]])], **METAL)[0]
    evaluator = Phonons(**METAL, min_length=5.0)
    check_evaluator(evaluator, candidates([copper, aluminium]), Resources())
    together = judged([copper, aluminium, copper], evaluator)
    alone = judged([aluminium], evaluator)[0]
    assert together[1].quantities == alone.quantities
    assert together[0].quantities == together[2].quantities
    assert together[1].cost.work == alone.cost.work == 1 + 8
    assert evaluator.identity() == evaluator.theory().key


def test_chgnet_silicon_and_strontium_titanate() -> None:
    """Silicon is stable and too soft (15.5 THz measured); cubic SrTiO3 tilts its octahedra at R.

    Experiment: Dolling, in Inelastic Scattering of Neutrons II (1963). CHGNet is up to a third too
    soft, as other models trained near equilibrium are (Deng et al., npj Comput. Mater. 11, 9,
    2025). The tilt at R is the real transition of SrTiO3 at 105 K.
    """
    silicon = crystal("Fd-3m", 5.45, ["Si"], [[0, 0, 0]])
    titanate = crystal("Pm-3m", 3.9, ["Sr", "Ti", "O"], [[0.5] * 3, [0, 0, 0], [0.5, 0, 0]])
    found = judged(relaxed([silicon, titanate], fmax=0.01), Phonons())
    assert found[0].verdict == "pass"
    assert 0.67 * 15.5 < value(found[0], "highest_frequency") < 15.5
    assert found[1].verdict == "reject"
    assert "q = (1/2, 1/2, 1/2)" in found[1].reason


@pytest.mark.parametrize(
    ("parameter", "wrong"),
    [("tolerance", -1.0), ("distance", 0.0), ("distance", 1.0), ("min_length", 0.0)],
)
def test_nonsense_parameters_are_refused(parameter: str, wrong: float) -> None:
    """The message names the parameter."""
    with pytest.raises(ValueError, match=parameter):
        Phonons(**{parameter: wrong})
