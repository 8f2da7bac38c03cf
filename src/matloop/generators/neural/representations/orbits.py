"""A crystal as its space group, its occupied Wyckoff positions, and its free numbers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from ase.data import chemical_symbols
from moyopy import Cell, MoyoDataset, Setting
from pymatgen.core import Element, Lattice, Structure
from pyxtal.symmetry import Group

from matloop.generators.cells import Array
from matloop.generators.neural.representations.normalizer import (
    Description,
    descriptions,
    polar_axes,
)
from matloop.generators.volumes import estimated_volume
from matloop.generators.wyckoff import GENERIC, Position, SpaceGroup, space_group

SYMPREC = 0.1
"""Tolerance with which the space group of a training crystal is found (Å): what the Materials
Project uses for its own labels."""

LETTERS = "abcdefghijklmnopqrstuvwxyzA"
"""Wyckoff letters; group 47 alone needs all of them."""

FREE_CELL = {
    "triclinic": (0, 1, 2, 3, 4, 5),
    "monoclinic": (0, 1, 2, 4),
    "orthorhombic": (0, 1, 2),
    "tetragonal": (0, 2),
    "trigonal": (0, 2),
    "hexagonal": (0, 2),
    "cubic": (0,),
}
"""Which of a, b, c, α, β, γ are free, by crystal family; trigonal cells on hexagonal axes."""

_CLOSE = 2e-3
_GRAINS = 100_000
_STEPS = np.array(list(itertools.product(range(-2, 3), repeat=3)), dtype=float)


@dataclass(frozen=True)
class Orbit:
    """Atoms of one element on one Wyckoff position.

    Attributes
    ----------
    element
        Chemical symbol.
    letter
        Wyckoff letter.
    free
        Free coordinates of the generating point in the conventional cell, each in [0, 1), in the
        order of the axes that are free.
    """

    element: str
    letter: str
    free: tuple[float, ...]


@dataclass(frozen=True)
class SymmetricCrystal:
    """A crystal by what its symmetry leaves open.

    Attributes
    ----------
    space_group
        International number, in pyxtal's standard setting.
    cell
        Free numbers of the conventional cell, in the order of `FREE_CELL`: lengths as the logarithm
        of length over the edge of a cube of the estimated volume, angles as (angle - 90°) / 30°.
    orbits
        Occupied positions, sorted by electronegativity, then letter, then coordinates.
    """

    space_group: int
    cell: tuple[float, ...]
    orbits: tuple[Orbit, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Atoms of each element in the primitive cell."""
        sizes = multiplicities(self.space_group)
        found: Counter[str] = Counter()
        for orbit in self.orbits:
            found[orbit.element] += sizes[orbit.letter]
        return dict(found)

    @property
    def parameters(self) -> tuple[float, ...]:
        """Lengths (Å) and angles (°) of the conventional cell."""
        group = space_group(self.space_group)
        edge = (estimated_volume(self.counts) * group.centring) ** (1 / 3)
        free = {
            index: edge * float(np.exp(value)) if index < 3 else 90.0 + 30.0 * value
            for index, value in zip(FREE_CELL[group.lattice_type], self.cell, strict=True)
        }
        return whole_cell(group.lattice_type, free)

    def structure(self) -> Structure:
        """Return the crystal as a primitive cell."""
        group = space_group(self.space_group)
        sites: list[Array] = []
        symbols: list[str] = []
        for orbit in self.orbits:
            sites.append(_images(group, orbit))
            symbols += [orbit.element] * len(sites[-1])
        lattice = Lattice(group.primitive @ Lattice.from_parameters(*self.parameters).matrix)
        return Structure(lattice, symbols, np.concatenate(sites) % 1.0)


def whole_cell(family: str, free: Mapping[int, float]) -> tuple[float, ...]:
    """Return lengths (Å) and angles (°) of a conventional cell.

    Parameters
    ----------
    family
        Crystal family, as in `FREE_CELL`.
    free
        Its free lengths and angles, by their place among a, b, c, α, β, γ.
    """
    found = [1.0, 1.0, 1.0, 90.0, 90.0, 90.0]
    for index, value in free.items():
        found[index] = value
    if family == "cubic":
        found[1] = found[2] = found[0]
    elif family in ("tetragonal", "trigonal", "hexagonal"):
        found[1] = found[0]
    if family in ("trigonal", "hexagonal"):
        found[5] = 120.0
    return tuple(found)


def symmetric(structure: Structure, symprec: float = SYMPREC) -> SymmetricCrystal | None:
    """Return a crystal by its space group and orbits; None where that does not give it back.

    Parameters
    ----------
    structure
        An ordered crystal.
    symprec
        Tolerance of the symmetry search (Å).
    """
    numbers = [site.specie.Z for site in structure]
    cell = Cell(structure.lattice.matrix.tolist(), structure.frac_coords.tolist(), numbers)
    try:
        found = MoyoDataset(cell, symprec=symprec, setting=Setting.standard())
        group = space_group(int(found.number))
        std = found.std_cell
        standard = MoyoDataset(std, symprec=1e-4, setting=Setting.standard())
    except (ValueError, KeyError):
        return None
    if standard.number != found.number:
        return None
    frac = np.array(std.positions) @ np.linalg.inv(group.primitive)
    members: dict[int, list[int]] = {}
    for site, orbit in enumerate(standard.orbits):
        members.setdefault(int(orbit), []).append(site)
    found_sites = [
        (chemical_symbols[std.numbers[sites[0]]], standard.wyckoffs[sites[0]], frac[sites])
        for sites in members.values()
    ]
    choice = _plainest(group, found_sites)
    if choice is None:
        return None
    description, orbits = choice
    crystal = SymmetricCrystal(group.number, (), orbits)
    if sum(crystal.counts.values()) * group.centring != len(frac):
        return None
    edge = (estimated_volume(crystal.counts) * group.centring) ** (1 / 3)
    lattice = Lattice(description.basis(np.array(std.basis)))
    parameters = [*np.log(np.array(lattice.abc) / edge), *((np.array(lattice.angles) - 90) / 30)]
    free_cell = tuple(float(parameters[index]) for index in FREE_CELL[group.lattice_type])
    return SymmetricCrystal(group.number, free_cell, orbits)


def _plainest(
    group: SpaceGroup, sites: Sequence[tuple[str, str, Array]]
) -> tuple[Description, tuple[Orbit, ...]] | None:
    """Return the description with the first letters, then the smallest coordinates, and its orbits.

    A crystal is so written in one way only, whatever its origin was; along polar axes the origin
    lies on an atom of the first element.

    Parameters
    ----------
    group
        The space group.
    sites
        Element, letter and primitive coordinates of each orbit.
    """
    lettered = [
        (description, [new[letter] for _, letter, _ in sites])
        for description, new in _relettered(group.number)
        if all(letter in new for _, letter, _ in sites)
    ]
    if not lettered:
        return None
    symbols = [element for element, _, _ in sites]
    ranks = [
        sorted((Element(e), LETTERS.index(n)) for e, n in zip(symbols, letters, strict=True))
        for _, letters in lettered
    ]
    first = min(ranks)
    found: list[tuple[list[float], list[float], Description, tuple[Orbit, ...]]] = []
    for rank, (description, letters) in zip(ranks, lettered, strict=True):
        if rank != first:
            continue
        moved = [description.sites(points @ group.primitive) for _, _, points in sites]
        origins = _origins(group.number, symbols, letters, moved)
        free = [
            _smallest_points(group, letter, points[None] - origins[:, None])
            for letter, points in zip(letters, moved, strict=True)
        ]
        for number, origin in enumerate(origins):
            if any(np.isnan(one[number]).any() for one in free):
                continue
            named = [
                Orbit(element, letter, tuple(map(float, one[number])))
                for element, letter, one in zip(symbols, letters, free, strict=True)
            ]
            orbits = tuple(sorted(named, key=_place))
            numbers = [x for orbit in orbits for x in orbit.free]
            shifted = Description(description.linear, description.shift - origin)
            found.append(([round(x, 2) % 1.0 for x in numbers], numbers, shifted, orbits))
    for *_, description, orbits in sorted(found, key=lambda one: one[:2]):
        if _gives_back(group, description, orbits, sites):
            return description, orbits
    return None


def _gives_back(
    group: SpaceGroup,
    description: Description,
    orbits: Sequence[Orbit],
    sites: Sequence[tuple[str, str, Array]],
) -> bool:
    """Whether orbits hold the sites that they were read from."""
    wanted: dict[str, list[Array]] = {}
    for element, _, points in sites:
        moved = description.sites(points @ group.primitive) @ np.linalg.inv(group.primitive)
        wanted.setdefault(element, []).append(moved)
    for element, placed in wanted.items():
        images = [_images(group, one) for one in orbits if one.element == element]
        if not _same_sites(np.concatenate(images), np.concatenate(placed)):
            return False
    return True


def _images(group: SpaceGroup, orbit: Orbit) -> Array:
    """Return the primitive coordinates of an orbit's sites, shape (n, 3)."""
    position, point = positions(group.number)[orbit.letter], np.zeros(3)
    point[free_axes(position)] = orbit.free
    return np.asarray(position.sites(point[None])[0])


def _place(orbit: Orbit) -> tuple[Element, int, tuple[float, ...]]:
    return Element(orbit.element), LETTERS.index(orbit.letter), orbit.free


def _origins(
    number: int, symbols: Sequence[str], letters: Sequence[str], sites: Sequence[Array]
) -> Array:
    """Return where the origin may go along polar axes, shape (n, 3): onto atoms of an orbit."""
    axes = list(polar_axes(number))
    if not axes:
        return np.zeros((1, 3))
    ranks = [(Element(e), LETTERS.index(n)) for e, n in zip(symbols, letters, strict=True)]
    found: list[Array] = []
    for rank, points in zip(ranks, sites, strict=True):
        for point in points if rank == min(ranks) else ():
            origin = np.zeros(3)
            origin[axes] = point[axes]
            if all(np.abs(origin - other).max() > _CLOSE for other in found):
                found.append(origin)
    return np.array(found)


def _smallest_points(group: SpaceGroup, letter: str, sites: Array) -> Array:
    """Return the smallest generating points of orbits, shape (m, freedom); NaN where none does.

    Parameters
    ----------
    group
        The space group.
    letter
        The Wyckoff position that all the orbits are on.
    sites
        Conventional coordinates of the sites of each orbit, shape (m, n, 3).
    """
    position = positions(group.number)[letter]
    axes, linear, inverse = _variety(group.number, letter)
    if not axes:
        return np.zeros((len(sites), 0))
    primitive = (sites @ np.linalg.inv(group.primitive) - position.translations[0]) % 1.0
    images = primitive[:, :, None] + _STEPS
    points = images @ inverse.T
    on_it = np.abs(points @ linear.T - images).max(axis=-1) < _CLOSE
    whole = np.round(points % 1.0 * _GRAINS).astype(np.int64) % _GRAINS
    order = whole @ np.array([_GRAINS**k for k in reversed(range(len(axes)))])
    order = np.where(on_it, order, np.iinfo(np.int64).max).reshape(len(sites), -1)
    chosen = order.argmin(axis=1)
    found = whole.reshape(len(sites), -1, len(axes))[np.arange(len(sites)), chosen] / _GRAINS
    return np.where(on_it.reshape(len(sites), -1).any(axis=1)[:, None], found, np.nan)


@cache
def _variety(number: int, letter: str) -> tuple[list[int], Array, Array]:
    """Return free axes of a position, the map from them to primitive coordinates, its inverse."""
    position = positions(number)[letter]
    axes = free_axes(position)
    linear = position.rotations[0][:, axes]
    return axes, linear, np.linalg.pinv(linear) if axes else np.zeros((0, 3))


@cache
def _relettered(number: int) -> list[tuple[Description, dict[str, str]]]:
    """Return the descriptions of a group, and how each names the positions of the given one."""
    group = space_group(number)
    into_primitive = np.linalg.inv(group.primitive)
    found = []
    for description in descriptions(number):
        new: dict[str, str] = {}
        for position in group.positions:
            sites = position.sites(GENERIC[None])[0] @ group.primitive
            moved = description.sites(sites)
            alike = [
                other
                for other in group.positions
                if other.multiplicity == position.multiplicity and other.freedom == position.freedom
            ]
            for other in alike:
                free = _smallest_points(group, other.letter, moved[None])[0]
                orbit = Orbit("", other.letter, tuple(map(float, free)))
                whole = not np.isnan(free).any()
                if whole and _same_sites(_images(group, orbit), moved @ into_primitive):
                    new[position.letter] = other.letter
                    break
        found.append((description, new))
    return found


@cache
def positions(number: int) -> dict[str, Position]:
    """Return the Wyckoff positions of a space group by letter."""
    return {position.letter: position for position in space_group(number).positions}


@cache
def multiplicities(number: int) -> dict[str, int]:
    """Return the sites in the primitive cell of each Wyckoff position of a space group."""
    return {letter: position.multiplicity for letter, position in positions(number).items()}


@cache
def site_symmetries(number: int) -> dict[str, str]:
    """Return the site symmetry symbol of each Wyckoff position of a space group."""
    found = {}
    for position in Group(number):
        position.get_site_symmetry()
        found[position.letter] = str(position.site_symm)
    return found


def free_axes(position: Position) -> list[int]:
    """Return which coordinates of a position's generating point are free."""
    return [axis for axis in range(3) if np.any(position.rotations[0][:, axis] != 0)]


def _same_sites(images: Array, sites: Array) -> bool:
    """Whether two sets of sites are the same; each may be named several times."""
    apart = sites[:, None, :] - images[None]
    near = np.abs(apart - np.round(apart)).max(axis=2) < 2 * _CLOSE
    return bool(near.any(axis=1).all() and near.any(axis=0).all())


def element_order(symbols: list[str]) -> list[str]:
    """Return chemical symbols sorted by electronegativity, as in formulas."""
    return [element.symbol for element in sorted({Element(name) for name in symbols})]
