"""Niggli-reduced primitive cells as arrays, equal to those of `StructureMatcher`, but faster.

pymatgen builds a crystal three times over on the way. Here translations are looked for in arrays,
with its tolerance, and pymatgen decides only where one is neither clearly a symmetry nor clearly
none.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import moyopy
import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Lattice, Structure

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]
Cell = tuple[Array, Numbers, Array]
"""Lattice vectors as rows (Å), atomic numbers in rising order, fractional coordinates in [0, 1)."""

_WITHIN = 0.25  # Å along each axis; the tolerance of `Structure.get_primitive_structure`
_CLEARLY = 0.1  # Å, within which a translation is a symmetry for certain
_SYMBOLS = ["X", *(Element.from_Z(z).symbol for z in range(1, 119))]


def primitive_cell(lattice: Array, numbers: Numbers, cartesian: Array) -> Cell:
    """Return the Niggli-reduced primitive cell of a crystal.

    Parameters
    ----------
    lattice
        Lattice vectors as rows (Å), shape (3, 3).
    numbers
        Atomic numbers, shape (n,).
    cartesian
        Cartesian coordinates (Å), shape (n, 3).
    """
    order = np.argsort(numbers, kind="stable")
    numbers, cartesian = numbers[order], cartesian[order]
    niggli = niggli_lattice(lattice)
    coords = _inside(cartesian @ np.linalg.inv(niggli))
    units = math.gcd(*(group.stop - group.start for group in element_groups(numbers)))
    if units == 1:
        return niggli, numbers, coords
    shifts = _translations(niggli, numbers, coords)
    sizes = _sizes(niggli, numbers, coords, units, shifts)
    if not sizes:
        return niggli, numbers, coords
    clear = len(shifts) + 1 in sizes
    divided = _divided(niggli, numbers, coords, shifts) if clear else None
    return _searched(niggli, numbers, coords) if divided is None else primitive_cell(*divided)


def element_groups(numbers: NDArray[np.integer]) -> list[slice]:
    """Return the sites of each element, that with the fewest sites first.

    Parameters
    ----------
    numbers
        Atomic numbers in rising order, shape (n,).
    """
    ends = [*(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(numbers)]
    found = [slice(first, last) for first, last in zip([0, *ends], ends, strict=False)]
    return sorted(found, key=lambda group: int(group.stop - group.start))


def structure_of(lattice: Array, numbers: Numbers, coords: Array) -> Structure:
    """Return a cell as a crystal of pymatgen."""
    return Structure(Lattice(lattice), [_SYMBOLS[z] for z in numbers.tolist()], coords)


def niggli_lattice(lattice: Array) -> Array:
    """Return the Niggli-reduced lattice with the tolerance of pymatgen, right-handed.

    Among cells that are equal within 1e-5 the choice follows the tolerance, and verdicts follow the
    choice.

    References
    ----------
    Grosse-Kunstleve, Sauter and Adams, Acta Cryst. A 60 (2004) 1; steps A1 to A8.
    """
    # From the shortest vectors on: few steps are left.
    rows = moyopy.minkowski_reduce(lattice.tolist())[0]
    within = 1e-5 * abs(float(np.linalg.det(lattice))) ** (1 / 3)
    for _ in range(100):
        step = _niggli_step(rows, within)
        if step is None:
            break
        rows = step
    reduced = np.array(rows)
    return reduced if np.linalg.det(reduced) > 0 else -reduced


def _niggli_step(rows: list[list[float]], e: float) -> list[list[float]] | None:
    # The next basis; None if this one is reduced but for the signs, which are set in place.
    a, b, c = rows
    aa, bb, cc = _dot(a, a), _dot(b, b), _dot(c, c)
    xi, eta, zeta = 2 * _dot(b, c), 2 * _dot(a, c), 2 * _dot(a, b)
    if bb + e < aa or (abs(aa - bb) < e and abs(xi) > abs(eta) + e):
        a, b, aa, bb, xi, eta = b, a, bb, aa, eta, xi
    if cc + e < bb or (abs(bb - cc) < e and abs(eta) > abs(zeta) + e):
        return [a, c, b]
    signs = [0 if abs(value) < e else math.copysign(1, value) for value in (xi, eta, zeta)]
    if signs[0] * signs[1] * signs[2] == 1:
        flips = [-1 if sign == -1 else 1 for sign in signs]
    else:
        flips = [-1 if sign == 1 else 1 for sign in signs]
        if flips[0] * flips[1] * flips[2] == -1:
            free = next(n for n in (2, 1, 0) if signs[n] == 0)
            flips[free] = -1
    a, b, c = ([flip * x for x in row] for flip, row in zip(flips, (a, b, c), strict=True))
    rows[:] = [a, b, c]
    xi, eta, zeta = 2 * _dot(b, c), 2 * _dot(a, c), 2 * _dot(a, b)
    if abs(xi) > bb + e or (abs(xi - bb) < e and zeta - e > 2 * eta):
        return [a, b, _less(c, b, xi)]
    if abs(xi + bb) < e and -e > zeta:
        return [a, b, _less(c, b, xi)]
    if abs(eta) > aa + e or (abs(eta - aa) < e and zeta - e > 2 * xi):
        return [a, b, _less(c, a, eta)]
    if abs(eta + aa) < e and -e > zeta:
        return [a, b, _less(c, a, eta)]
    if abs(zeta) > aa + e or (abs(zeta - aa) < e and eta - e > 2 * xi):
        return [a, _less(b, a, zeta), c]
    if abs(zeta + aa) < e and -e > eta:
        return [a, _less(b, a, zeta), c]
    total = xi + eta + zeta + aa + bb
    if -e > total or (abs(total) < e < zeta + 2 * (aa + eta)):
        return [a, b, [x + y + z for x, y, z in zip(a, b, c, strict=True)]]
    return None


def _dot(first: list[float], second: list[float]) -> float:
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def _less(first: list[float], second: list[float], sign: float) -> list[float]:
    return [x - math.copysign(1, sign) * y for x, y in zip(first, second, strict=True)]


def _inside(coords: Array) -> Array:
    coords = coords - np.floor(coords)
    return np.where(coords < 1.0, coords, 0.0)


def _translations(lattice: Array, numbers: Numbers, coords: Array) -> Array:
    # Fractions of the cell that bring every site onto a site of its element, within twice the
    # tolerance along each axis, zero left out. Without one pymatgen makes nothing smaller.
    within = 2.02 * _WITHIN / np.sqrt((lattice**2).sum(axis=1))
    groups = [coords[group] for group in element_groups(numbers)]
    shifts = groups[0][1:] - groups[0][0]
    for group in groups:
        for site in group[1:] if group is groups[0] else group:
            apart = (site + shifts)[:, None] - group
            apart -= np.round(apart)
            shifts = shifts[(np.abs(apart) < within).all(axis=2).any(axis=1)]
            if not len(shifts):
                return np.asarray(shifts)
    return np.asarray(shifts)


def _sizes(lattice: Array, numbers: Numbers, coords: Array, units: int, shifts: Array) -> set[int]:
    # How many times smaller the cells are that pymatgen may take: their vectors are translations,
    # or none at all, being shorter than its tolerance.
    lengths = np.sqrt((lattice**2).sum(axis=1))
    if not len(shifts) and lengths.min() / units > _WITHIN * 1.01:
        return set()
    matrices, inverses, fractions = _superlattices(units)
    near = np.ones(len(inverses), dtype=bool)
    if not len(shifts):
        near = (fractions < 1.01 * _WITHIN / lengths).all(axis=(1, 2))
    for row in (2, 1, 0) if len(shifts) else ():
        apart = inverses[near, row, None] - np.concatenate([np.zeros((1, 3)), shifts])
        apart -= np.round(apart)
        near[near] = (np.abs(apart) < 1.01 * _WITHIN / lengths).all(axis=2).any(axis=1)
    found = set()
    for matrix, inverse in zip(matrices[near], inverses[near], strict=True):
        size = round(abs(float(np.linalg.det(matrix))))
        within = 1.01 * _WITHIN / np.sqrt(((inverse @ lattice) ** 2).sum(axis=1))
        if size not in found and all(
            _in_sets(coords[group], matrix, within, lengths, size)
            for group in element_groups(numbers)
        ):
            found.add(size)
    return found


def _in_sets(coords: Array, matrix: Array, within: Array, lengths: Array, size: int) -> bool:
    # Whether each site may fall together with as many sites, none of them next to it, as the
    # smaller cell fits into the cell.
    apart = coords[:, None] - coords
    smaller = apart @ matrix
    together = (np.abs(smaller - np.round(smaller)) < within).all(axis=2)
    apart = np.abs(apart - np.round(apart)) * lengths
    distinct = (apart > 1.98 * _WITHIN).any(axis=2) | np.eye(len(coords), dtype=bool)
    return bool(((together & distinct).sum(axis=0) >= size).all())


@lru_cache(maxsize=64)
def _superlattices(units: int) -> tuple[Array, Array, Array]:
    # Integer matrices of all sublattices whose index divides `units`, 1 left out, their inverses,
    # and how far the numbers in these are from whole ones.
    found = [
        [[a, b, c], [0, e, f], [0, 0, index // (a * e)]]
        for index in range(2, units + 1)
        if units % index == 0
        for a in range(1, index + 1)
        if index % a == 0
        for e in range(1, index // a + 1)
        if index // a % e == 0
        for b, c, f in itertools.product(range(a), range(a), range(e))
    ]
    matrices = np.array(found, dtype=float)
    inverses = np.linalg.inv(matrices)
    return matrices, inverses, np.abs(inverses - np.round(inverses))


def _divided(lattice: Array, numbers: Numbers, coords: Array, shifts: Array) -> Cell | None:
    # A smaller cell with Cartesian coordinates, where all translations are clear; else None.
    lengths = np.sqrt((lattice**2).sum(axis=1))
    order = len(shifts) + 1
    whole = np.round(shifts * order)
    if (np.abs(shifts - whole / order) * lengths > _CLEARLY).any():
        return None
    exact = np.concatenate([np.zeros((1, 3)), whole / order])
    moved = (coords[None] + exact[:, None])[:, :, None] - coords
    moved -= np.round(moved)
    distances = np.abs(moved) * lengths
    same = numbers[:, None] == numbers
    onto = (distances < _CLEARLY).all(axis=3) & same
    near = (distances < 2.02 * _WITHIN).all(axis=3) & same
    if not ((onto.sum(axis=2) == 1).all() and (near.sum(axis=2) == 1).all()):
        return None
    partners = onto.argmax(axis=2)  # shape (translations, sites)
    first = partners.min(axis=0)
    kept = np.flatnonzero(first == np.arange(len(numbers)))
    if len(kept) * order != len(numbers):
        return None
    smaller = _generated(whole.astype(int), order) @ lattice
    # Mean over the sites that fall together: of site k, those at k + t, moved back by t.
    steps = np.take_along_axis(moved, partners[..., None, None], axis=2)[:, kept, 0]
    positions = (coords[kept] - steps.mean(axis=0)) @ lattice
    return smaller, numbers[kept], positions


def _generated(whole: NDArray[np.int_], order: int) -> Array:
    # Rows that span the lattice of the unit vectors and of these translations times the order:
    # integer row reduction.
    rows = [[order if i == j else 0 for j in range(3)] for i in range(3)] + whole.tolist()
    basis = []
    for axis in range(3):
        pivot = rows.pop(next(n for n, row in enumerate(rows) if row[axis]))
        for n in range(len(rows)):
            while rows[n][axis]:
                factor = pivot[axis] // rows[n][axis]
                less = [p - factor * r for p, r in zip(pivot, rows[n], strict=True)]
                pivot, rows[n] = rows[n], less
        basis.append(pivot)
    return np.array(basis) / order


def _searched(lattice: Array, numbers: Numbers, coords: Array) -> Cell:
    found = structure_of(lattice, numbers, coords).get_primitive_structure()
    kinds = np.array(found.atomic_numbers)
    order = np.argsort(kinds, kind="stable")
    niggli = niggli_lattice(found.lattice.matrix)
    return niggli, kinds[order], _inside(found.cart_coords[order] @ np.linalg.inv(niggli))
