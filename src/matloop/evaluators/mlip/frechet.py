"""Cell and atoms of many crystals in one set of coordinates: the logarithm of the deformation.

The cell of a crystal is its first cell times the transposed deformation F = exp(U). Atoms are held
by their positions x in the undeformed cell, so that their Cartesian positions are x F^T. An
optimiser moves x and n U, n being the number of atoms, which gives cell and atoms a similar
stiffness. These are the coordinates of ASE's `FrechetCellFilter`.
"""

from __future__ import annotations

import numpy as np

from matloop.evaluators.mlip.model import Floats

_TAYLOR_ORDER = 14  # with a norm below 1/2 the rest is under 1e-16
_MAX_NORM = 0.5


def matrix_exponential(matrices: Floats) -> Floats:
    """Return exp of each matrix, shape (m, k, k), by scaling, Taylor series and squaring.

    Matrices with entries that are not finite give NaN.
    """
    norm = np.abs(matrices).sum(axis=-1).max(initial=0.0)
    if not np.isfinite(norm) or norm > 1e3:
        sound = np.abs(matrices).sum(axis=-1).max(axis=-1) <= 1e3  # False for NaN
        result = np.full_like(matrices, np.nan)
        if sound.any():
            result[sound] = matrix_exponential(matrices[sound])
        return result
    squarings = max(0, int(np.ceil(np.log2(norm / _MAX_NORM)))) if norm > _MAX_NORM else 0
    scaled = matrices / 2.0**squarings
    identity = np.eye(matrices.shape[-1])
    result = identity + scaled / _TAYLOR_ORDER
    for order in range(_TAYLOR_ORDER - 1, 0, -1):
        result = identity + scaled @ result / order
    for _ in range(squarings):
        result = result @ result
    return result


def log_deformation_force(logarithms: Floats, deformations: Floats, virials: Floats) -> Floats:
    """Return minus the derivative of the energy with respect to U, shape (m, 3, 3) (eV).

    The derivative of exp at U in direction E is linear in E, and its adjoint is the derivative at
    U^T; so one derivative per crystal gives all nine components.

    Parameters
    ----------
    logarithms
        U of each crystal, shape (m, 3, 3).
    deformations
        exp(U).
    virials
        Minus volume times stress (eV).
    """
    with np.errstate(invalid="ignore"):  # a broken stress gives NaN for its own crystal
        gradient = virials @ np.linalg.inv(deformations.transpose(0, 2, 1))
    block = np.zeros((len(logarithms), 6, 6))
    block[:, :3, :3] = block[:, 3:, 3:] = logarithms.transpose(0, 2, 1)
    # exp of [[A, E], [0, A]] holds the derivative of exp at A in direction E in its corner. It is
    # linear in E, which is scaled to keep the matrix small.
    scale = np.abs(gradient).sum(axis=-1).max(axis=-1)[:, None, None] + 1e-300
    block[:, :3, 3:] = gradient / scale
    force: Floats = matrix_exponential(block)[:, :3, 3:] * scale
    return force
