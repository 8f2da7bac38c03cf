"""Ways to write the same crystal in the same space group: other origins, other axes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
from pymatgen.core import Lattice
from pyxtal.symmetry import Group

from matloop.generators.cells import Array
from matloop.generators.wyckoff import space_group

_GENERIC_CELL = {
    "triclinic": (5.0, 6.0, 7.3, 81.0, 94.0, 103.0),
    "monoclinic": (5.0, 6.0, 7.3, 90.0, 104.0, 90.0),
    "orthorhombic": (5.0, 6.0, 7.3, 90.0, 90.0, 90.0),
    "tetragonal": (5.0, 5.0, 7.3, 90.0, 90.0, 90.0),
    "trigonal": (5.0, 5.0, 7.3, 90.0, 90.0, 120.0),
    "hexagonal": (5.0, 5.0, 7.3, 90.0, 90.0, 120.0),
    "cubic": (5.0, 5.0, 5.0, 90.0, 90.0, 90.0),
}
_HEXAGONAL = ("trigonal", "hexagonal")
_EXCHANGEABLE = ("monoclinic", "orthorhombic")
_SAME = 1e-6


@dataclass(frozen=True)
class Description:
    """A change of origin and axes that leaves every operation of a space group in the group.

    A site at the conventional coordinates f is written as ``linear @ f + shift`` instead.

    Attributes
    ----------
    linear
        Shape (3, 3), whole numbers.
    shift
        Shape (3,).
    """

    linear: Array
    shift: Array

    def sites(self, frac: Array) -> Array:
        """Return conventional coordinates, shape (n, 3), as this description writes them."""
        return np.asarray(frac @ self.linear.T + self.shift)

    def basis(self, rows: Array) -> Array:
        """Return the vectors of a conventional cell, in rows, as this description writes them."""
        return np.asarray(np.linalg.inv(self.linear).T @ rows)


@cache
def descriptions(number: int) -> tuple[Description, ...]:
    """Return the descriptions in which a space group looks the same, the given one first.

    These are the cosets of the group in its normalizer, as far as they keep the angles of the cell
    (axes of orthorhombic cells may be exchanged) and move the origin by sixths or quarters; along
    polar axes, where any shift will do, by nothing. Groups without an inversion are given it: the
    mirror image of a crystal has the same energy and passes for the same crystal.

    Parameters
    ----------
    number
        International number, in pyxtal's standard setting.

    References
    ----------
    Normalizers: International Tables for Crystallography A, chapter 3.5.
    """
    rotations, shifts = _operations(number)
    primitive = space_group(number).primitive
    into_primitive = np.linalg.inv(primitive)
    family = space_group(number).lattice_type
    steps = 6 if family in _HEXAGONAL else 4
    polar = polar_axes(number)
    axes = [(0,) if axis in polar else range(steps) for axis in range(3)]
    grid = np.array(list(itertools.product(*axes))) / steps
    grid = grid[_distinct(grid @ into_primitive)]
    found = []
    for linear in _cosets(_keeping_angles(family), rotations):
        lattice = primitive @ linear.T @ into_primitive
        if np.abs(lattice - np.round(lattice)).max() > _SAME:
            continue
        turned = linear @ rotations @ np.linalg.inv(linear)
        match = np.abs(turned[:, None] - rotations[None]).max(axis=(2, 3)) < _SAME
        if not match.any(axis=1).all():
            continue
        partner = match.argmax(axis=1)
        moved = shifts @ linear.T - shifts[partner]
        for shift in grid:
            off = (moved + shift - rotations[partner] @ shift) @ into_primitive
            if np.abs(off - np.round(off)).max() < _SAME:
                found.append(Description(linear, shift))
    return tuple(found)


@cache
def polar_axes(number: int) -> tuple[int, ...]:
    """Return the axes along which the origin of a space group may be anywhere."""
    rotations, _ = _operations(number)
    unit = np.eye(3)
    return tuple(
        axis for axis in range(3) if np.abs(rotations @ unit[axis] - unit[axis]).max() < _SAME
    )


def _operations(number: int) -> tuple[Array, Array]:
    """Return one operation per rotation, in conventional coordinates: (n, 3, 3) and (n, 3)."""
    operations = Group(number)[0].ops
    rotations = np.array([one.rotation_matrix for one in operations], dtype=float)
    shifts = np.array([one.translation_vector for one in operations], dtype=float)
    first = np.unique(rotations.reshape(-1, 9), axis=0, return_index=True)[1]
    kept = np.sort(first)
    return rotations[kept], shifts[kept]


@cache
def _keeping_angles(family: str) -> tuple[Array, ...]:
    """Return changes of axes after which a cell of the family has the same angles."""
    cell = Lattice.from_parameters(*_GENERIC_CELL[family]).matrix
    rows = np.array(list(itertools.product((-1, 0, 1), repeat=3)), dtype=float)
    if family not in _HEXAGONAL:
        rows = rows[np.abs(rows).sum(axis=1) == 1]
    changes = np.array(list(itertools.product(rows, repeat=3)))
    changes = changes[np.abs(np.abs(np.linalg.det(changes)) - 1) < _SAME]
    vectors = np.linalg.inv(changes).swapaxes(1, 2) @ cell
    products = vectors @ vectors.swapaxes(1, 2)
    lengths = np.sqrt(np.einsum("nii->ni", products))
    cosines = products / (lengths[:, :, None] * lengths[:, None])
    same = np.abs(cosines - _cosines(cell)).max(axis=(1, 2)) < _SAME
    if family not in _EXCHANGEABLE:
        same &= np.abs(lengths - np.linalg.norm(cell, axis=1)).max(axis=1) < _SAME
    return (np.eye(3), *changes[same])


def _cosines(cell: Array) -> Array:
    """Return the cosines between the vectors of a cell in rows, shape (3, 3)."""
    units = cell / np.linalg.norm(cell, axis=1, keepdims=True)
    return np.asarray(units @ units.T)


def _cosets(changes: tuple[Array, ...], rotations: Array) -> list[Array]:
    """Return one change of axes of each coset of the point group, the first ones first."""
    found: list[Array] = []
    seen: set[bytes] = set()
    for linear in changes:
        if np.round(linear).astype(int).tobytes() not in seen:
            found.append(linear)
            seen |= {np.round(one).astype(int).tobytes() for one in rotations @ linear}
    return found


def _distinct(points: Array) -> list[int]:
    """Return which points, shape (n, 3), are no lattice translation away from an earlier one."""
    kept: list[int] = []
    for index, point in enumerate(points):
        apart = points[kept] - point
        if not kept or np.abs(apart - np.round(apart)).max(axis=1).min() > _SAME:
            kept.append(index)
    return kept
