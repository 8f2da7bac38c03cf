"""A crystal as its space group, its occupied Wyckoff positions, and its free numbers."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
from ase.data import chemical_symbols
from moyopy import Cell, MoyoDataset, Setting
from pymatgen.core import Element, Lattice, Structure
from pyxtal.symmetry import Group

from matloop.generators.cells import Array
from matloop.generators.volumes import estimated_volume
from matloop.generators.wyckoff import Position, space_group

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
        numbers = [1.0, 1.0, 1.0, 90.0, 90.0, 90.0]
        for index, value in zip(FREE_CELL[group.lattice_type], self.cell, strict=True):
            numbers[index] = edge * float(np.exp(value)) if index < 3 else 90.0 + 30.0 * value
        if group.lattice_type == "cubic":
            numbers[1] = numbers[2] = numbers[0]
        elif group.lattice_type in ("tetragonal", "trigonal", "hexagonal"):
            numbers[1] = numbers[0]
        if group.lattice_type in ("trigonal", "hexagonal"):
            numbers[5] = 120.0
        return tuple(numbers)

    def structure(self) -> Structure:
        """Return the crystal as a primitive cell."""
        group = space_group(self.space_group)
        by_letter = positions(self.space_group)
        sites, symbols = [], []
        for orbit in self.orbits:
            position = by_letter[orbit.letter]
            point = np.zeros(3)
            point[free_axes(position)] = orbit.free
            sites.append(position.sites(point[None])[0])
            symbols += [orbit.element] * position.multiplicity
        lattice = Lattice(group.primitive @ Lattice.from_parameters(*self.parameters).matrix)
        return Structure(lattice, symbols, np.concatenate(sites) % 1.0)


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
    orbits = []
    members: dict[int, list[int]] = {}
    for site, orbit in enumerate(standard.orbits):
        members.setdefault(int(orbit), []).append(site)
    for sites in members.values():
        letter = standard.wyckoffs[sites[0]]
        position = positions(group.number).get(letter)
        free = _generating_point(position, frac[sites]) if position else None
        if free is None:
            return None
        orbits.append(Orbit(chemical_symbols[std.numbers[sites[0]]], letter, free))
    orbits.sort(key=lambda one: (Element(one.element), LETTERS.index(one.letter), one.free))
    crystal = SymmetricCrystal(group.number, (), tuple(orbits))
    if sum(crystal.counts.values()) * group.centring != len(frac):
        return None
    edge = (estimated_volume(crystal.counts) * group.centring) ** (1 / 3)
    lattice = Lattice(std.basis)
    parameters = [*np.log(np.array(lattice.abc) / edge), *((np.array(lattice.angles) - 90) / 30)]
    free_cell = tuple(float(parameters[index]) for index in FREE_CELL[group.lattice_type])
    return SymmetricCrystal(group.number, free_cell, tuple(orbits))


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


def _generating_point(position: Position, sites: Array) -> tuple[float, ...] | None:
    """Return the smallest point that generates the sites, given in primitive coordinates."""
    if position.multiplicity > len(sites):
        return None
    axes = free_axes(position)
    linear, shift = position.rotations[0][:, axes], position.translations[0]
    if not axes:
        return () if _generates(position, np.zeros(3), sites) else None
    steps = np.array(list(itertools.product((-1, 0, 1), repeat=3)), dtype=float)
    images = (sites[:, None, :] + steps[None]).reshape(-1, 3) - shift
    points = images @ np.linalg.pinv(linear).T
    residue = np.abs(points @ linear.T - images).max(axis=1)
    candidates = np.round(points[residue < _CLOSE] % 1.0, 5) % 1.0
    for free in sorted(set(map(tuple, candidates.tolist()))):
        point = np.zeros(3)
        point[axes] = free
        if _generates(position, point, sites):
            return tuple(map(float, free))
    return None


def _generates(position: Position, point: Array, sites: Array) -> bool:
    """Whether the images of a point are the sites, which may name each several times."""
    images = position.sites(point[None])[0]
    apart = sites[:, None, :] - images[None]
    near = np.abs(apart - np.round(apart)).max(axis=2) < 2 * _CLOSE
    return bool(near.any(axis=1).all() and near.any(axis=0).all())


def element_order(symbols: list[str]) -> list[str]:
    """Return chemical symbols sorted by electronegativity, as in formulas."""
    return [element.symbol for element in sorted({Element(name) for name in symbols})]
