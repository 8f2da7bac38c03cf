"""Wyckoff positions in primitive cells, and random ways to fill them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from pyxtal.symmetry import Group

from matloop.generators.cells import Array

# Primitive vectors in rows, in units of the conventional ones (International Tables A, 1.5).
_PRIMITIVE = {
    "P": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "A": ((1, 0, 0), (0, 0.5, -0.5), (0, 0.5, 0.5)),
    "C": ((0.5, -0.5, 0), (0.5, 0.5, 0), (0, 0, 1)),
    "I": ((-0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.5, 0.5, -0.5)),
    "F": ((0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)),
    "R": ((2 / 3, 1 / 3, 1 / 3), (-1 / 3, 1 / 3, 1 / 3), (-1 / 3, -2 / 3, 1 / 3)),
}
GENERIC = np.array([0.137_281, 0.413_907, 0.271_663])
"""A point without symmetry, in fractional coordinates."""

_SEARCH = 120


@dataclass(frozen=True)
class Position:
    """One Wyckoff position, by the images of a point in the primitive cell.

    Attributes
    ----------
    letter
        Wyckoff letter.
    freedom
        Number of free coordinates.
    rotations
        Shape (sites, 3, 3): from a point in conventional coordinates to primitive ones.
    translations
        Shape (sites, 3), in primitive coordinates.
    """

    letter: str
    freedom: int
    rotations: Array
    translations: Array

    @property
    def multiplicity(self) -> int:
        """Number of sites in the primitive cell."""
        return len(self.translations)

    def sites(self, points: Array) -> Array:
        """Return the fractional coordinates of the sites, shape (batch, sites, 3).

        Parameters
        ----------
        points
            Generating points in conventional coordinates, shape (batch, 3).
        """
        images = np.einsum("sij,bj->bsi", self.rotations, points) + self.translations
        return np.asarray(images, dtype=float)


@dataclass(frozen=True)
class SpaceGroup:
    """A space group in its standard setting, as far as filling it needs.

    Attributes
    ----------
    number
        International number.
    lattice_type
        Crystal family as pyxtal names it.
    centring
        Lattice points per conventional cell.
    primitive
        Primitive vectors in rows, in units of the conventional ones, shape (3, 3).
    positions
        Wyckoff positions, the general one first.
    """

    number: int
    lattice_type: str
    centring: int
    primitive: Array
    positions: tuple[Position, ...]

    @cached_property
    def multiplicities(self) -> tuple[int, ...]:
        """Sites of each position in the primitive cell."""
        return tuple(position.multiplicity for position in self.positions)


@cache
def space_group(number: int) -> SpaceGroup:
    """Return a space group by its international number, 1 to 230."""
    group = Group(number)
    primitive = np.array(_PRIMITIVE[group.symbol[0]])
    centring = int(group.cellsize())
    positions = []
    for position in group:
        linear = np.array([op.rotation_matrix for op in position.ops], dtype=float)
        shifts = np.array([op.translation_vector for op in position.ops], dtype=float)
        # f_primitive = f_conventional · P⁻¹ for coordinates in rows.
        inverse = np.linalg.inv(primitive)
        linear, shifts = np.einsum("ji,sjk->sik", inverse, linear), shifts @ inverse
        kept = _distinct(linear @ GENERIC + shifts)
        positions.append(
            Position(position.letter, int(position.get_dof()), linear[kept], shifts[kept])
        )
    return SpaceGroup(number, group.lattice_type, centring, primitive, tuple(positions))


def fill(
    group: SpaceGroup, counts: Mapping[str, int], rng: np.random.Generator
) -> list[tuple[str, Position]] | None:
    """Choose Wyckoff positions that hold exactly the atoms of a primitive cell.

    Positions are chosen at random, larger ones more often; one without free coordinates is used
    once. The search stops after a fixed number of steps.

    Returns
    -------
    list or None
        Element and position of each orbit; None if the group cannot hold the atoms, or no way was
        found.
    """
    wanted = sorted(counts.items(), key=lambda item: -item[1])
    left = [number for _, number in wanted]
    sizes = group.multiplicities
    chosen: list[tuple[int, int]] = []
    taken: set[int] = set()
    steps = 0

    def search(index: int) -> bool:
        nonlocal steps
        while index < len(left) and left[index] == 0:
            index += 1
        if index == len(left):
            return True
        options = [i for i, size in enumerate(sizes) if size <= left[index] and i not in taken]
        # Exponential races give a weighted order without replacement.
        races = rng.exponential(size=len(options)).tolist()
        for _, option in sorted(
            (time / sizes[i], i) for time, i in zip(races, options, strict=True)
        ):
            steps += 1
            if steps > _SEARCH:
                return False
            left[index] -= sizes[option]
            chosen.append((index, option))
            if not group.positions[option].freedom:
                taken.add(option)
            if search(index):
                return True
            left[index] += sizes[option]
            chosen.pop()
            taken.discard(option)
        return False

    if min(left) < min(sizes) or not search(0):
        return None
    return [(wanted[index][0], group.positions[option]) for index, option in chosen]


def _distinct(coordinates: Array) -> list[int]:
    kept: list[int] = []
    for index, row in enumerate(coordinates):
        apart = coordinates[kept] - row
        if not kept or np.abs(apart - np.round(apart)).max(axis=1).min() > 1e-6:
            kept.append(index)
    return kept
