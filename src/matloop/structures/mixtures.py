"""The mixture of least energy at a composition: a small simplex method started at the elements.

The lower hull at a composition is a linear programme with one row per element. Systems have few
elements and the pure ones are always a feasible start, so the textbook method on dense arrays needs
about a tenth of the time of a general solver.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NOTHING = 1e-9
"""Shares of the atoms below it are rounding."""

_GAIN = 1e-11  # eV/atom; a phase that lowers the energy by less does not enter
_PIVOT = 1e-11
_REFRESH = 16  # steps after which the inverse is computed anew, so that rounding cannot grow


def least_mixture(fractions: Array, energies: Array, target: Array) -> tuple[float, Array]:
    """Return the lowest energy of a mixture of phases at a composition, and its shares.

    Parameters
    ----------
    fractions
        Atomic fractions of the phases, shape (phases, elements); the pure elements are among them.
    energies
        Energies of the phases (eV/atom); infinity excludes a phase.
    target
        Atomic fractions of the composition, shape (elements,).

    Returns
    -------
    tuple
        The energy (eV/atom), and the phases' shares of the atoms, which add up to 1. Of several
        equal mixtures the order of the phases decides.

    Raises
    ------
    ArithmeticError
        If the steps do not end, which means that the numbers are not finite.
    """
    basis = _best_basis(fractions, energies, target)
    shares = np.maximum(np.linalg.solve(fractions[basis].T, target), 0.0)
    shares[shares < NOTHING] = 0.0
    shares /= shares.sum()
    everything = np.zeros(len(energies))
    everything[basis] = shares
    return float(shares @ energies[basis]), everything


def supporting_plane(fractions: Array, energies: Array, target: Array) -> tuple[float, Array]:
    """Return the lowest energy of a mixture, and the plane through its phases.

    Parameters
    ----------
    fractions, energies, target
        As for `least_mixture`.

    Returns
    -------
    tuple
        The energy (eV/atom), and the energy that the plane gives each pure element, shape
        (elements,): the chemical potentials. No phase lies below the plane.

    Raises
    ------
    ArithmeticError
        As `least_mixture`.
    """
    basis = _best_basis(fractions, energies, target)
    plane: Array = np.linalg.solve(fractions[basis], energies[basis]).astype(float, copy=False)
    return float(target @ plane), plane


def _best_basis(fractions: Array, energies: Array, target: Array) -> NDArray[np.int64]:
    # The phases of the best mixture, as many as elements: the simplex method, from the elements on.
    basis = _corners(fractions, energies)
    columns = fractions[basis].T
    inverse = np.linalg.inv(columns)
    shares = inverse @ target
    limit = 200 + 20 * len(energies)
    for step in range(limit):
        gains = energies - fractions @ (energies[basis] @ inverse)
        gains[basis] = 0.0
        if step < limit // 2:
            entering = int(gains.argmin())
            if gains[entering] > -_GAIN:
                break
        else:  # the first that gains: this rule of Bland's cannot go round in circles
            gaining = np.flatnonzero(gains < -_GAIN)
            if not len(gaining):
                break
            entering = int(gaining[0])
        direction = inverse @ fractions[entering]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(direction > _PIVOT, shares / direction, np.inf)
        leaving = int(ratios.argmin())
        basis[leaving] = entering
        if step % _REFRESH == _REFRESH - 1:
            inverse = np.linalg.inv(fractions[basis].T)
            shares = np.maximum(inverse @ target, 0.0)
            continue
        shares = shares - ratios[leaving] * direction
        shares[leaving] = ratios[leaving]
        shares = np.maximum(shares, 0.0)
        row = inverse[leaving] / direction[leaving]
        inverse = inverse - np.outer(direction, row)
        inverse[leaving] = row
    else:
        raise ArithmeticError("the hull could not be solved: its energies are not finite")
    return basis


def _corners(fractions: Array, energies: Array) -> NDArray[np.int64]:
    # The lowest phase of each pure element: a start that every composition can be mixed from.
    elements = fractions.shape[1]
    corners = np.empty(elements, dtype=np.int64)
    for element in range(elements):
        pure = np.flatnonzero(fractions[:, element] > 1 - NOTHING)
        corners[element] = pure[energies[pure].argmin()]
    return corners
