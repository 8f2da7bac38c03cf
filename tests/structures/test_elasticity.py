"""Elastic tensors: how many constants symmetry leaves, and what a fit makes of stresses."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.elasticity.elastic import ElasticTensor
from pymatgen.analysis.elasticity.strain import Strain
from pymatgen.analysis.elasticity.stress import Stress
from pymatgen.core import Lattice
from pymatgen.symmetry.groups import PointGroup

from matloop.structures.elasticity import (
    PAIRS,
    cartesian,
    deformation,
    fit_stiffness,
    invariant_stiffnesses,
    kelvin,
    needed_strains,
    second_piola_kirchhoff,
)

# Nye, Physical Properties of Crystals (1957), table 9.
CONSTANTS = {
    "m-3m": (3, 2),
    "23": (3, 2),
    "6/mmm": (5, 3),
    "4/mmm": (6, 4),
    "4/m": (7, 4),
    "-3m": (6, 3),
    "-3": (7, 3),
    "mmm": (9, 6),
    "2/m": (13, 6),
    "-1": (21, 6),
}


def rotations(symbol: str) -> np.ndarray:
    """Return a point group in Cartesian coordinates."""
    hexagonal = symbol in ("6/mmm", "-3m", "-3")
    lattice = Lattice.hexagonal(1, 1.5) if hexagonal else Lattice.cubic(1)
    columns = lattice.matrix.T
    turns = [op.rotation_matrix for op in PointGroup(symbol).symmetry_ops]
    return np.array([columns @ turn @ np.linalg.inv(columns) for turn in turns])


@pytest.mark.parametrize("symbol", CONSTANTS)
def test_the_number_of_constants_is_that_of_the_textbook(symbol: str) -> None:
    """Each point group leaves as many independent constants as Nye's table says."""
    constants, _ = CONSTANTS[symbol]
    turns = rotations(symbol)
    basis = invariant_stiffnesses(turns)
    assert len(basis) == constants
    for one in basis:
        tensor = np.zeros((3, 3, 3, 3))
        for p, (a, b) in enumerate(PAIRS):
            for q, (c, d) in enumerate(PAIRS):
                value = one[p, q] / np.sqrt((1 + (p > 2)) * (1 + (q > 2)))
                tensor[a, b, c, d] = tensor[b, a, c, d] = tensor[a, b, d, c] = value
                tensor[b, a, d, c] = value
        for turn in turns[:: max(1, len(turns) // 6)]:
            turned = np.einsum("ia,jb,kc,ld,abcd->ijkl", turn, turn, turn, turn, tensor)
            assert turned == pytest.approx(tensor, abs=1e-9)


@pytest.mark.parametrize("symbol", CONSTANTS)
def test_few_strains_determine_every_constant(symbol: str) -> None:
    """The strains kept give back any allowed tensor; cubic crystals need two of six."""
    basis = invariant_stiffnesses(rotations(symbol))
    chosen = needed_strains(basis)
    assert len(chosen) <= CONSTANTS[symbol][1]
    truth = np.einsum("n,nab->ab", np.random.default_rng(3).normal(size=len(basis)), basis)
    strains, stresses = [], []
    for k in chosen:
        for sign in (0.01, -0.01):
            strains.append(sign * cartesian(np.eye(6)[k]))
            stresses.append(cartesian(truth @ kelvin(strains[-1])))
    found = fit_stiffness(strains, stresses, basis)
    assert found.kelvin == pytest.approx(truth, abs=1e-9)
    assert found.misfit == pytest.approx(0.0, abs=1e-9)


def test_the_fit_agrees_with_pymatgen_and_drops_what_is_even() -> None:
    """Residual stress and terms quadratic in the strain leave the tensor as it was."""
    rng = np.random.default_rng(11)
    root = rng.normal(size=(6, 6))
    truth = root @ root.T + 20 * np.eye(6)
    even = cartesian(rng.normal(size=6))
    strains, stresses, plain = [], [], []
    for k in range(6):
        for size in (0.005, 0.01):
            for sign in (1, -1):
                strain = sign * size * cartesian(np.eye(6)[k])
                strains.append(strain)
                plain.append(cartesian(truth @ kelvin(strain)))
                stresses.append(plain[-1] + 3.0 * even + 1e3 * size**2 * even)
    found = fit_stiffness(strains, stresses, invariant_stiffnesses(np.eye(3)[None]))
    assert found.kelvin == pytest.approx(truth, rel=1e-9)
    judge = ElasticTensor.from_independent_strains(
        [Strain(strain) for strain in strains], [Stress(stress) for stress in plain]
    )
    assert found.voigt == pytest.approx(np.array(judge.voigt), rel=1e-6)


def test_what_is_not_linear_is_told() -> None:
    """Stresses with a cubic part leave a misfit of its size."""
    strains, stresses = [], []
    for k in range(6):
        for size in (0.005, 0.01):
            for sign in (1, -1):
                strains.append(sign * size * cartesian(np.eye(6)[k]))
                stresses.append(strains[-1] * (1.0 + 0.5 * (size > 0.006)))
    found = fit_stiffness(strains, stresses, invariant_stiffnesses(np.eye(3)[None]))
    assert 0.05 < found.misfit < 0.3


def test_eigenvalues_do_not_depend_on_the_axes() -> None:
    """A turned crystal has another Voigt matrix with the same Kelvin eigenvalues."""
    cubic = ElasticTensor.from_voigt(
        np.diag([173.0, 173.0, 173.0, 90.0, 90.0, 90.0])
        + 116.0 * np.pad(np.ones((3, 3)) - np.eye(3), (0, 3))
    )
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    turned = cubic.rotate(turn * np.linalg.det(turn), tol=1e-6)
    strains = [sign * 0.01 * cartesian(row) for row in np.eye(6) for sign in (1, -1)]
    stresses = [np.array(turned.calculate_stress(strain)) for strain in strains]
    found = fit_stiffness(strains, stresses, invariant_stiffnesses(np.eye(3)[None]))
    assert found.eigenvalues == pytest.approx([57, 57, 180, 180, 180, 405], rel=1e-6)


def test_deformations_give_their_strain_and_do_work() -> None:
    """F gives back E without turning, and S : dE is the work of the Cauchy stress."""
    rng = np.random.default_rng(5)
    strain = 0.02 * rng.normal(size=(3, 3))
    strain = strain + strain.T
    gradient = deformation(strain)
    assert gradient == pytest.approx(gradient.T)
    assert 0.5 * (gradient.T @ gradient - np.eye(3)) == pytest.approx(strain, abs=1e-12)
    cauchy = rng.normal(size=(3, 3))
    cauchy = cauchy + cauchy.T
    rate = rng.normal(size=(3, 3))  # dF
    velocity = rate @ np.linalg.inv(gradient)
    work = np.linalg.det(gradient) * np.sum(cauchy * 0.5 * (velocity + velocity.T))
    strain_rate = 0.5 * (rate.T @ gradient + gradient.T @ rate)
    conjugate = second_piola_kirchhoff(cauchy, gradient)
    assert np.sum(conjugate * strain_rate) == pytest.approx(work)
