"""Bulk moduli against known values, and the conduct of the fit."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.evaluators.mlip.bulk_modulus import GPA, BulkModulus, fit_equation_of_state
from matloop.evaluators.mlip.relaxation import Relaxation, relax
from matloop.protocols import Resources

from .conftest import candidates


def relaxed(structures: list[Structure], relaxation: Relaxation) -> list[Structure]:
    found = [item.structure for item in relax(structures, relaxation)]
    return [structure for structure in found if structure is not None]


def primitive(group: str, a: float, species: list[str], places: list[list[float]]) -> Structure:
    crystal = Structure.from_spacegroup(group, Lattice.cubic(a), species, places)
    return crystal.get_primitive_structure()


def test_a_curve_gives_back_its_modulus() -> None:
    """Energies from a Birch-Murnaghan curve give its modulus, volume and no residual."""
    modulus, slope, least = 0.7, 4.6, 15.0
    volumes = np.linspace(13.8, 16.4, 7)
    x = (least / volumes) ** (2 / 3)
    energies = -3 + 9 * least * modulus / 16 * ((x - 1) ** 3 * slope + (x - 1) ** 2 * (6 - 4 * x))
    found = fit_equation_of_state(volumes, energies)
    assert not isinstance(found, str)
    assert found == pytest.approx((modulus, 0.0, least), rel=1e-6, abs=1e-9)


def test_a_slope_has_no_modulus() -> None:
    """Energies that only fall have no minimum, and the reason says so."""
    assert "no minimum" in str(fit_equation_of_state(np.linspace(10, 12, 7), -np.arange(7.0)))


def test_metals_of_effective_medium_theory() -> None:
    """Copper and gold have the moduli that finite differences of pressure give."""
    relaxation = Relaxation(model="ase", fmax=0.005)
    metals = relaxed(
        [primitive("Fm-3m", a, [s], [[0, 0, 0]]) for s, a in [("Cu", 3.6), ("Au", 4.05)]],
        relaxation,
    )
    found = BulkModulus(model="ase").evaluate(candidates(metals), Resources())
    from matloop.evaluators.mlip.ase import AseModel
    from matloop.evaluators.mlip.model import Member

    for metal, item in zip(metals, found, strict=True):
        pressures, volumes = [], []
        for scale in (0.999, 1.001):
            strained = Member.from_structure(metal)
            strained.cell, strained.positions = strained.cell * scale, strained.positions * scale
            stress = AseModel().load().predict([strained]).stresses[0]
            pressures.append(-np.trace(stress) / 3)
            volumes.append(np.linalg.det(strained.cell))
        slope = (pressures[1] - pressures[0]) / (volumes[1] - volumes[0])
        expected = -np.mean(volumes) * slope * GPA
        assert item.verdict == "pass"
        assert item.quantities["bulk_modulus"].value == pytest.approx(expected, rel=0.03)


def test_chgnet_is_in_the_range_of_experiment() -> None:
    """Silicon, magnesia and aluminium lie within 35 % of 98, 160 and 76 GPa (CHGNet is soft)."""
    crystals = relaxed(
        [
            primitive("Fd-3m", 5.45, ["Si"], [[0, 0, 0]]),
            primitive("Fm-3m", 4.2, ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
            primitive("Fm-3m", 4.05, ["Al"], [[0, 0, 0]]),
        ],
        Relaxation(fmax=0.02),
    )
    found = BulkModulus().evaluate(candidates(crystals), Resources())
    for item, experiment in zip(found, (98.0, 160.0, 76.0), strict=True):
        assert item.verdict == "pass"
        assert item.quantities["bulk_modulus"].value == pytest.approx(experiment, rel=0.35)
        assert item.quantities["eos_residual"].value < 1e-3
        assert item.theory is not None
        assert item.cost.calls >= 7


def test_an_unrelaxed_or_unreadable_candidate_harms_nobody() -> None:
    """Far from its minimum is a reject, an unknown element a failure, the good one as alone."""
    good = relaxed(
        [primitive("Fm-3m", 3.6, ["Cu"], [[0, 0, 0]])], Relaxation(model="ase", fmax=0.005)
    )[0]
    swollen = good.copy().scale_lattice(good.volume * 1.4)
    unknown = Structure(Lattice.cubic(3), ["U"], [[0, 0, 0]])
    evaluator = BulkModulus(model="ase")
    alone = evaluator.evaluate(candidates([good]), Resources())[0]
    found = evaluator.evaluate(candidates([swollen, unknown, good]), Resources())
    assert [item.verdict for item in found] == ["reject", "fail", "pass"]
    assert "no minimum" in found[0].reason
    assert "does not know U" in found[1].reason
    assert found[2].quantities == alone.quantities


def test_nonsense_parameters_are_refused() -> None:
    """Too few points and absurd strains are refused by name."""
    with pytest.raises(ValueError, match="points"):
        BulkModulus(points=3)
    with pytest.raises(ValueError, match="max_strain"):
        BulkModulus(max_strain=0.5)


def test_results_belong_to_the_weights_behind_them() -> None:
    """The identity that results are stored under names model and version, not parameters alone."""
    modulus = BulkModulus(model="ase")
    assert modulus.identity() == modulus.theory().key
    assert "emt" in modulus.identity()
