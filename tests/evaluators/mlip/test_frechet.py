"""Matrix exponentials and forces on the logarithm of the deformation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from matloop.evaluators.mlip.frechet import log_deformation_force, matrix_exponential


def test_exponential_is_scipys() -> None:
    """Exponentials of small and large matrices agree with scipy's."""
    rng = np.random.default_rng(1)
    matrices = (
        rng.normal(size=(6, 3, 3)) * np.array([1e-9, 1e-3, 0.1, 1.0, 3.0, 8.0])[:, None, None]
    )
    for found, matrix in zip(matrix_exponential(matrices), matrices, strict=True):
        np.testing.assert_allclose(found, expm(matrix), rtol=1e-11, atol=1e-13)


def test_a_broken_matrix_breaks_no_other() -> None:
    """NaN and absurd entries give NaN for their own matrix alone."""
    matrices = np.zeros((3, 3, 3))
    matrices[0, 0, 0], matrices[2, 1, 1] = np.nan, 1e9
    found = matrix_exponential(matrices)
    np.testing.assert_array_equal(found[1], np.eye(3))
    assert np.isnan(found[[0, 2]]).all()


def test_force_is_the_derivative_of_the_energy() -> None:
    """The force on U is what a strain energy loses when U changes."""
    rng = np.random.default_rng(2)
    stiffness = rng.normal(size=(3, 3))

    def energy(logarithm: np.ndarray) -> float:
        deformation = expm(logarithm)
        return float(np.sum(stiffness * deformation) + np.linalg.det(deformation) ** 2)

    logarithm = rng.normal(0.0, 0.2, (3, 3))
    deformation = expm(logarithm)
    # dE/dF, as virial: -dE/dF F^T is the work on an infinitesimal strain.
    determinant = np.linalg.det(deformation)
    gradient = stiffness + 2 * determinant**2 * np.linalg.inv(deformation).T
    virial = -gradient @ deformation.T
    found = log_deformation_force(logarithm[None], deformation[None], virial[None])[0]
    step = 1e-5
    for row in range(3):
        for column in range(3):
            change = np.zeros((3, 3))
            change[row, column] = step
            slope = (energy(logarithm + change) - energy(logarithm - change)) / (2 * step)
            assert found[row, column] == pytest.approx(-slope, abs=1e-6)
