"""A continuous fingerprint of a crystal: sorted neighbour distances between its elements.

It does not depend on cell, origin or order of sites, and moves by no more than twice what a site is
moved by, as the pointwise distance distributions that it condenses (Widdowson and Kurlin, Phys.
Rev. Research 7, 2025, and NeurIPS 2022). Distances are in units of the cube root of the volume per
atom: a swollen copy has the fingerprint of the original, as it matches the original.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element
from pymatgen.optimization.neighbors import find_points_in_spheres

from matloop.structures.geometry import reduced_lattice

Array = NDArray[np.float64]

NEIGHBOURS = 16
"""Neighbours looked at around each site, shared evenly among the elements."""


def fingerprint(lattice: Array, numbers: NDArray[np.integer], coords: Array) -> Array:
    """Return the fingerprint of a crystal.

    For every ordered pair of elements, the first shares of `NEIGHBOURS` nearest sites of the second
    are found around each site of the first; of the distances to the 1st, 2nd, ... of them the
    smallest, the median and the largest are kept. Elements are in the order of their symbols, so
    that crystals of one formula have comparable fingerprints of equal length.

    Parameters
    ----------
    lattice
        Lattice vectors as rows (Å), shape (3, 3).
    numbers
        Atomic numbers, shape (n,).
    coords
        Fractional coordinates, shape (n, 3).

    Returns
    -------
    numpy.ndarray
        Distances over the cube root of the volume per atom and over the square root of their
        number, so that the Euclidean distance of two fingerprints is a mean over distances.
    """
    names = sorted(set(numbers.tolist()), key=lambda z: Element.from_Z(z).symbol)
    kinds = np.array([names.index(z) for z in numbers.tolist()])
    share = max(2, NEIGHBOURS // len(names))
    unit = (abs(np.linalg.det(lattice)) / len(numbers)) ** (1 / 3)
    cartesian = coords @ lattice
    lattice = np.ascontiguousarray(reduced_lattice(lattice))
    fractional = np.mod(cartesian @ np.linalg.inv(lattice), 1.0)
    sites = np.ascontiguousarray(fractional @ lattice)
    rarest = np.bincount(kinds).min() / len(kinds)
    # On average a sphere of this radius holds 1.5 times as many of the rarest element as are asked.
    radius = unit * (1.5 * share / rarest * 3 / (4 * np.pi)) ** (1 / 3)
    distances = None
    while distances is None:
        distances = _nearest(lattice, sites, kinds, len(names), share, radius)
        radius *= 1.25
    parts = []
    for kind in range(len(names)):
        column = np.sort(distances[kinds == kind], axis=0)
        middle = (column[(len(column) - 1) // 2] + column[len(column) // 2]) / 2
        parts += [column[0], middle, column[-1]]
    found = np.concatenate(parts, axis=None) / unit
    return np.asarray(found / np.sqrt(len(found)))


def _nearest(
    lattice: Array, coords: Array, kinds: NDArray[np.intp], elements: int, share: int, radius: float
) -> Array | None:
    # Sorted distances to the nearest sites of each element, shape (sites, elements * share); None
    # if some are further away than the radius.
    first, second, _, distances = find_points_in_spheres(
        coords, coords, r=radius, pbc=np.ones(3, dtype=np.int64), lattice=lattice, tol=1e-8
    )
    other = distances > 1e-8  # not the site itself
    first, second, distances = first[other], second[other], distances[other]
    block = first * elements + kinds[second]
    counts = np.bincount(block, minlength=len(coords) * elements)
    if counts.min() < share:
        return None
    order = np.lexsort((distances, block))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    nearest = distances[order[starts[:, None] + np.arange(share)]]
    return np.asarray(nearest.reshape(len(coords), elements * share))
