"""Elastic tensors from stresses of strained crystals, within the crystal's point group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Pairs of axes in Voigt's order: xx, yy, zz, yz, xz, xy."""

_WEIGHTS = np.sqrt([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
# In Kelvin's notation off-diagonal components carry sqrt(2): rotations are orthogonal 6x6 matrices
# and eigenvalues of a stiffness do not depend on the axes, which they do in Voigt's notation.


def kelvin(tensor: Floats) -> Floats:
    """Return symmetric tensors of shape (..., 3, 3) as Kelvin vectors of shape (..., 6)."""
    rows, columns = np.array(PAIRS).T
    return np.asarray(tensor[..., rows, columns] * _WEIGHTS)


def cartesian(vector: Floats) -> Floats:
    """Return a Kelvin vector as a symmetric tensor, shape (3, 3)."""
    tensor = np.zeros((3, 3))
    for (a, b), value in zip(PAIRS, vector / _WEIGHTS, strict=True):
        tensor[a, b] = tensor[b, a] = value
    return tensor


def deformation(strain: Floats) -> Floats:
    """Return the deformation without rotation that has a Green-Lagrange strain, (F^2 - 1) / 2."""
    values, vectors = np.linalg.eigh(np.eye(3) + 2.0 * strain)
    return np.asarray((vectors * np.sqrt(values)) @ vectors.T)


def second_piola_kirchhoff(cauchy: Floats, gradient: Floats) -> Floats:
    """Return the stress conjugate to the Green-Lagrange strain, J F^-1 s F^-T."""
    inverse = np.linalg.inv(gradient)
    return np.asarray(np.linalg.det(gradient) * inverse @ cauchy @ inverse.T)


def invariant_stiffnesses(rotations: Floats) -> Floats:
    """Return an orthonormal basis of the stiffnesses that a point group allows.

    Parameters
    ----------
    rotations
        Rotations in Cartesian coordinates, shape (k, 3, 3); with or without inversion.

    Returns
    -------
    numpy.ndarray
        Symmetric Kelvin matrices, shape (n, 6, 6): 3 for cubic crystals, 21 for triclinic ones.
    """
    units = np.array([cartesian(row) for row in np.eye(6)])
    turned = np.array([kelvin(r @ units @ r.T).T for r in rotations])
    general = []
    for a in range(6):
        for b in range(a, 6):
            one = np.zeros((6, 6))
            one[a, b] = one[b, a] = 1.0 if a == b else np.sqrt(0.5)
            general.append(one)
    basis = np.array(general)
    averages = np.einsum("kab,nbc,kdc->nad", turned, basis, turned) / len(turned)
    # The average over the group is a projector: its eigenvalues are 0 and 1.
    projector = np.einsum("mad,nad->mn", basis, averages)
    values, vectors = np.linalg.eigh(0.5 * (projector + projector.T))
    return np.asarray(np.einsum("mn,mad->nad", vectors[:, values > 0.5], basis))


def needed_strains(basis: Floats) -> list[int]:
    """Return which of the six strains, in Voigt's order, determine every allowed constant.

    A strain is left out if the ones before it already give what it would; two are left for cubic
    crystals, xx and yz.
    """
    chosen: list[int] = []
    rank = 0
    for strain in range(6):
        rows = basis[:, :, [*chosen, strain]].reshape(len(basis), -1)
        found = int(np.linalg.matrix_rank(rows, tol=0.1))
        if found > rank:
            chosen.append(strain)
            rank = found
    return chosen


@dataclass(frozen=True)
class Stiffness:
    """An elastic tensor and how well it describes the stresses it was fitted to.

    Attributes
    ----------
    kelvin
        Stiffness in Kelvin's notation, shape (6, 6), in the unit of the stresses.
    misfit
        Root mean square of the stresses it does not describe, over that of all.
    """

    kelvin: Floats
    misfit: float

    @property
    def voigt(self) -> Floats:
        """Stiffness in Voigt's notation, C11 to C66."""
        return np.asarray(self.kelvin / np.outer(_WEIGHTS, _WEIGHTS))

    @property
    def eigenvalues(self) -> Floats:
        """Stiffnesses against the six eigenstrains, rising; they do not depend on the axes."""
        return np.asarray(np.linalg.eigvalsh(self.kelvin))


def fit_stiffness(
    strains: Sequence[Floats], stresses: Sequence[Floats], basis: Floats
) -> Stiffness:
    """Fit the allowed stiffness to stresses of pairs of opposite strains.

    Only the odd part of the stress counts, [S(+E) - S(-E)] / 2. What the crystal felt without a
    strain and what is quadratic in it drop out exactly; the misfit is what is left beyond.

    Parameters
    ----------
    strains
        Green-Lagrange strains, each followed by its opposite, shape (3, 3).
    stresses
        Second Piola-Kirchhoff stresses under them, positive when the crystal wants to contract.
    basis
        Allowed stiffnesses, from `invariant_stiffnesses`.
    """
    odd_strains = kelvin(np.array(strains[::2]))
    vectors = kelvin(np.array(stresses))
    odd_stresses = 0.5 * (vectors[::2] - vectors[1::2])
    design = np.einsum("nab,sb->san", basis, odd_strains).reshape(-1, len(basis))
    target = odd_stresses.ravel()
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    left = target - design @ solution
    scale = float(np.sqrt(np.mean(target**2)))
    misfit = float(np.sqrt(np.mean(left**2))) / scale if scale > 0 else 0.0
    return Stiffness(np.einsum("n,nab->ab", solution, basis), misfit)
