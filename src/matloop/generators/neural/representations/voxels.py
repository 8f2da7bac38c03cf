"""A crystal as one density per element on a periodic grid, and back again by its peaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from matloop.errors import MatloopError
from matloop.generators.cells import contact_limits, contact_ratio, symbols_of
from matloop.structures.symmetry import primitive_cell

WIDTH = 0.8
"""Standard deviation of an atom's Gaussian, in grid steps, along each axis of the cell."""

RESOLVED = 2.0
"""Atoms of one element nearer than this along every axis, in grid steps, run into one peak."""

TOLERANCES = (0.4, 0.25, 0.1)
"""Tolerances of the symmetry search on decoded crystals (Å), tried in turn: peaks of a 12-point
grid are off by up to 0.2 Å."""

CLASH = 0.6
"""Fraction of the sum of two covalent radii within which no second peak is taken."""

_CLOSEST = 0.55  # the same once atoms stand between grid points, where they may be a little closer

FAINT = 0.2
"""Share of a whole atom's peak below which nothing is taken for an atom."""

Grid = NDArray[np.float32]
Array = NDArray[np.float64]


def density(frac: Array, channel: NDArray[np.int64], channels: int, points: int) -> Grid:
    """Return Gaussians of height one around atoms.

    Parameters
    ----------
    frac
        Fractional coordinates, shape (atoms, 3).
    channel
        Channel of each atom, shape (atoms,).
    channels
        Number of channels.
    points
        Grid points along each axis.

    Returns
    -------
    numpy.ndarray
        Shape (channels, points, points, points).
    """
    apart = frac[:, :, None] - np.arange(points) / points
    steps = (apart - np.round(apart)) * points
    waves = np.exp(-0.5 * (steps / WIDTH) ** 2).astype(np.float32)
    grid = np.zeros((channels, points, points, points), np.float32)
    for one, (x, y, z) in zip(channel, waves, strict=True):
        grid[one] += x[:, None, None] * y[None, :, None] * z[None, None, :]
    return grid


def resolves(frac: Array, channel: NDArray[np.int64], points: int) -> bool:
    """Whether a grid tells all atoms of one channel apart."""
    apart = frac[:, None] - frac[None]
    steps = np.abs(apart - np.round(apart)).max(-1) * points
    same = channel[:, None] == channel[None]
    np.fill_diagonal(same, val=False)
    return not bool((steps[same] < RESOLVED).any())


def crystal_of_peaks(
    grid: Grid, elements: Sequence[str], counts: Sequence[int], matrix: Array
) -> Structure | None:
    """Return the crystal whose atoms are the highest peaks, each clear of all others.

    Parameters
    ----------
    grid
        Densities in units of a whole atom's height, shape (channels, points, points, points).
    elements
        Element of each channel that is used, in order.
    counts
        How many atoms of each there are.
    matrix
        Lattice vectors in rows (Å).

    Returns
    -------
    Structure or None
        None where fewer peaks stand out than there are atoms, or two come too close in the end.
    """
    points = grid.shape[-1]
    axes = np.indices((points,) * 3).reshape(3, -1).T / points
    limits = contact_limits(elements, CLASH)
    shifts = np.array(np.indices((3, 3, 3)).reshape(3, -1).T - 1.0, dtype=np.float64)
    itself = np.linalg.norm(shifts[np.any(shifts != 0, axis=1)] @ matrix, axis=1).min()
    if itself < np.diagonal(limits).max():
        return None
    field = grid[: len(elements)].reshape(len(elements), -1).copy()
    left = list(counts)
    symbols: list[str] = []
    sites: list[Array] = []
    placed: list[int] = []
    while any(left):
        field[[not count for count in left]] = -np.inf
        channel, index = divmod(int(field.argmax()), field.shape[1])
        if field[channel, index] < FAINT:
            return None
        place = _refined(grid[channel], np.unravel_index(index, (points,) * 3))
        if sites and not _clear(place, sites, matrix, limits[channel, placed], shifts):
            place = axes[index]  # which is clear of all atoms so far
        sites.append(place)
        placed.append(channel)
        symbols.append(elements[channel])
        left[channel] -= 1
        apart = axes - place
        apart = apart - np.round(apart)
        distance = np.min(
            [np.linalg.norm((apart + shift) @ matrix, axis=1) for shift in shifts], axis=0
        )
        for other in range(len(elements)):
            field[other, distance < limits[channel, other]] = -np.inf
        field[channel, index] = -np.inf
    crystal = Structure(Lattice(matrix), symbols, np.array(sites))
    return crystal if _contact(crystal) >= 1 else None


def symmetrised(structure: Structure) -> Structure:
    """Return the primitive cell on the highest symmetry that is nearly there, else as it is.

    A tolerance under which atoms would be lost or come too close, or the volume change by a fifth,
    is passed over.
    """
    volume, contact = structure.volume / len(structure), min(1.0, _contact(structure))
    for tolerance in TOLERANCES:
        try:
            found = primitive_cell(structure, tolerance)
        except MatloopError:
            continue
        same = found.composition.reduced_formula == structure.composition.reduced_formula
        alike = same and abs(found.volume / len(found) / volume - 1) < 0.2
        if alike and _contact(found) >= contact:
            return found
    return structure


def _clear(place: Array, sites: list[Array], matrix: Array, limits: Array, shifts: Array) -> bool:
    """Whether a place keeps its distance from atoms and all their images."""
    apart = np.array(sites) - place
    apart = apart - np.round(apart)
    distances = np.linalg.norm((apart[:, None] + shifts) @ matrix, axis=2).min(1)
    return bool((distances >= limits).all())


def _contact(structure: Structure) -> float:
    """Return the shortest distance in units of the shortest that is let through."""
    limits = contact_limits(symbols_of(structure), _CLOSEST)
    return float(
        contact_ratio(np.array(structure.lattice.matrix), np.array(structure.frac_coords), limits)
    )


def _refined(field: Grid, index: tuple[np.intp, ...]) -> Array:
    """Return a peak between the grid points: the vertex of a parabola through three logarithms."""
    points = field.shape[0]
    place = np.array(index, float)
    for axis in range(3):
        around = []
        for step in (-1, 0, 1):
            shifted = list(index)
            shifted[axis] = (shifted[axis] + step) % points
            around.append(np.log(max(float(field[tuple(shifted)]), 1e-3)))
        bend = around[0] - 2 * around[1] + around[2]
        if bend < -1e-6:
            place[axis] += float(np.clip(0.5 * (around[0] - around[2]) / bend, -0.5, 0.5))
    return np.asarray(place / points % 1.0)
