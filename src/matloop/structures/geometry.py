"""Distances, volumes and sanity of a crystal, for any crystal that can be written down.

Generators propose cells that are flat, empty, crowded or not a number. Nothing here raises or hangs
on them: `objection` says what is wrong, and the numbers are NaN where they have no meaning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import moyopy
import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Structure
from pymatgen.optimization.neighbors import find_points_in_spheres

Array = NDArray[np.float64]

MAX_SITES = 1000
"""Most sites measured; larger cells are refused by `objection`, so that no one of them hangs."""

SMALLEST_LENGTH, LARGEST_LENGTH = 0.1, 1000.0
"""Lattice lengths (Å) outside which a cell is no crystal: a proton's bond is 0.7 Å long, and the
longest cells of known crystals are below 200 Å."""

SMALLEST_VOLUME = 0.1
"""Volume of a cell (Å^3) below which it counts as flat: structural validity in CDVAE
(Xie et al., ICLR 2022)."""

# Densest packing of equal spheres: N spheres of diameter d fill at most pi/sqrt(18) of the volume,
# so no cell has a shortest distance above 2^(1/6) (V/N)^(1/3).
_PACKING = 2 ** (1 / 6)

# Covalent radii (Å) for Z = 1 to 96: Cordero et al., Dalton Trans. 2008, 2832. Of several values
# for one element it is the larger one (high spin), and that of sp3 carbon.
_COVALENT = (
    "0.31 0.28 1.28 0.96 0.84 0.76 0.71 0.66 0.57 0.58 1.66 1.41 1.21 1.11 1.07 1.05 1.02 "
    "1.06 2.03 1.76 1.70 1.60 1.53 1.39 1.61 1.52 1.50 1.24 1.32 1.22 1.22 1.20 1.19 1.20 "
    "1.20 1.16 2.20 1.95 1.90 1.75 1.64 1.54 1.47 1.46 1.42 1.39 1.45 1.44 1.42 1.39 1.39 "
    "1.38 1.39 1.40 2.44 2.15 2.07 2.04 2.03 2.01 1.99 1.98 1.98 1.96 1.94 1.92 1.92 1.89 "
    "1.90 1.87 1.87 1.75 1.70 1.62 1.51 1.44 1.41 1.36 1.36 1.32 1.45 1.46 1.48 1.40 1.50 "
    "1.50 2.60 2.21 2.15 2.06 2.00 1.96 1.90 1.87 1.80 1.69"
)
_RADII = np.array([np.nan, *map(float, _COVALENT.split())])


@dataclass(frozen=True)
class Contact:
    """Two sites of a crystal, periodic images included.

    Attributes
    ----------
    first, second
        Indices of the sites; equal for a site and its own image.
    distance
        Distance (Å).
    ratio
        Distance over the sum of the two covalent radii; NaN where a radius is unknown.
    """

    first: int
    second: int
    distance: float
    ratio: float


def objection(structure: Structure) -> str | None:
    """Say why a crystal cannot be measured; None if it can.

    It asks for finite numbers, ordered sites of chemical elements, and a cell that is neither flat
    nor exploded nor huge.
    """
    if len(structure) == 0:
        return "holds no atoms"
    if len(structure) > MAX_SITES:
        return f"has {len(structure)} sites, at most {MAX_SITES} are measured"
    if not np.isfinite(structure.lattice.matrix).all():
        return "a lattice vector is not a finite number"
    if not np.isfinite(structure.frac_coords).all():
        site = int(np.flatnonzero(~np.isfinite(structure.frac_coords).all(axis=1))[0])
        return f"the coordinates of site {site} are not finite numbers"
    try:
        symbols = {site.specie.symbol for site in structure}
    except AttributeError:
        return "a site is disordered"
    for symbol in sorted(symbols):
        if not Element.is_valid_symbol(symbol):
            return f"holds {symbol}, which is no chemical element"
    lengths = np.linalg.norm(structure.lattice.matrix, axis=1)
    if lengths.min() < SMALLEST_LENGTH:
        return f"a lattice vector is {lengths.min():.3g} Å long"
    if lengths.max() > LARGEST_LENGTH:
        return f"a lattice vector is {lengths.max():.3g} Å long"
    volume = abs(float(np.linalg.det(structure.lattice.matrix)))
    if volume < SMALLEST_VOLUME:
        return f"the cell is flat: {volume:.3g} Å^3"
    return None


def volume_per_atom(structure: Structure) -> float:
    """Return the volume per atom (Å^3); NaN for a cell of no atoms or of no numbers."""
    if not len(structure) or not np.isfinite(structure.lattice.matrix).all():
        return math.nan
    return abs(float(np.linalg.det(structure.lattice.matrix))) / len(structure)


def density(structure: Structure) -> float:
    """Return the mass density (g/cm^3); NaN where volume or masses are unknown."""
    volume = volume_per_atom(structure) * len(structure)
    try:
        mass = float(structure.composition.weight)  # dalton
    except (AttributeError, TypeError, ValueError):  # an element without a mass
        return math.nan
    return mass * 1.66053906660 / volume if volume > 0 else math.nan


def reduced_lattice(crystal: Structure | Array) -> Array:
    """Return Minkowski-reduced lattice vectors as rows (Å): the shortest that span the lattice.

    Parameters
    ----------
    crystal
        A crystal, or its lattice vectors as rows, shape (3, 3).

    Raises
    ------
    ValueError
        If the lattice is flat or not finite.
    """
    matrix = crystal.lattice.matrix if isinstance(crystal, Structure) else crystal
    basis, _ = moyopy.minkowski_reduce(matrix.tolist())
    return np.asarray(basis, dtype=float)


def aspect(structure: Structure) -> float:
    """Return the longest reduced lattice vector over the smallest height of the reduced cell.

    It does not depend on how the cell was chosen. A cube has 1, a face-centred primitive cell 1.2;
    NaN for a flat cell.
    """
    try:
        basis = reduced_lattice(structure)
        heights = 1 / np.linalg.norm(np.linalg.inv(basis), axis=0)
    except (ValueError, np.linalg.LinAlgError):
        return math.nan
    return float(np.linalg.norm(basis, axis=1).max() / heights.min())


def closest_contact(structure: Structure) -> Contact:
    """Return the shortest distance between two sites, images included, also in tiny cells.

    Raises
    ------
    ValueError
        If `objection` has one.
    """
    lattice, coords = _checked(structure)
    shortest = float(np.linalg.norm(lattice, axis=1).min())  # a site and its own image
    packing = _PACKING * (abs(np.linalg.det(lattice)) / len(coords)) ** (1 / 3)
    first, second, distances = _pairs(lattice, coords, min(shortest, packing))
    best = int(np.argmin(distances))
    radii = _radii(structure)
    i, j, distance = int(first[best]), int(second[best]), float(distances[best])
    return Contact(i, j, distance, distance / float(radii[i] + radii[j]))


def tightest_contact(structure: Structure) -> Contact:
    """Return the contact with the smallest distance relative to the sum of covalent radii.

    Sites whose element has no covalent radius take no part; with none left the ratio is NaN.
    The ratio serves ionic crystals too: of 2,500 Materials Project crystals drawn at random the
    smallest is 0.66, 99 % lie above 0.75, and the median is 0.91.

    Raises
    ------
    ValueError
        If `objection` has one.

    References
    ----------
    Radii: Cordero et al., Dalton Trans. 2008, 2832.
    """
    closest = closest_contact(structure)
    lattice, coords = _checked(structure)
    radii = _radii(structure)
    if not np.isfinite(radii).any():
        return closest
    # An upper bound of the smallest ratio bounds the distance at which it can be found.
    largest = float(np.nanmax(radii))
    own_image = float(np.linalg.norm(lattice, axis=1).min()) / (2 * largest)
    bound = min(own_image, closest.ratio if math.isfinite(closest.ratio) else math.inf)
    first, second, distances = _pairs(lattice, coords, bound * 2 * largest)
    ratios = distances / (radii[first] + radii[second])
    best = int(np.nanargmin(ratios))
    return Contact(int(first[best]), int(second[best]), float(distances[best]), float(ratios[best]))


def _checked(structure: Structure) -> tuple[Array, Array]:
    # Lattice rows and Cartesian coordinates in the reduced cell.
    problem = objection(structure)
    if problem:
        raise ValueError(problem)
    lattice = reduced_lattice(structure)
    cartesian = np.mod(structure.frac_coords, 1.0) @ structure.lattice.matrix
    # Minkowski reduction keeps the orientation, so Cartesian coordinates stay what they are.
    fractional = np.mod(cartesian @ np.linalg.inv(lattice), 1.0)
    return np.ascontiguousarray(lattice), np.ascontiguousarray(fractional @ lattice)


def _pairs(
    lattice: Array, coords: Array, radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    # All ordered pairs of sites within the radius, each site's own position left out.
    first, second, images, distances = find_points_in_spheres(
        coords,
        coords,
        r=radius * (1 + 1e-6) + 1e-6,
        pbc=np.array([1, 1, 1], dtype=np.int64),
        lattice=lattice,
        tol=1e-8,
    )
    other = (first != second) | (np.asarray(images) != 0).any(axis=1)
    return first[other], second[other], distances[other]


def _radii(structure: Structure) -> Array:
    numbers = [site.specie.Z for site in structure]
    return _RADII[[number if number < len(_RADII) else 0 for number in numbers]]
