"""A crystal as the text of a CIF in one canonical layout, and back.

    data_SrTiO3
    _chemical_formula_sum 'Sr1 Ti1 O3'
    _cell_formula_units_Z 1
    _space_group_IT_number 221
    _space_group_name_H-M_alt 'Pm-3m'
    loop_
    _space_group_symop_operation_xyz
    'x, y, z'
    ...
    _cell_length_a 3.91
    ...
    loop_
    _atom_site_label
    ...
    Sr1 Sr 1 a 0.000 0.000 0.000

The formula is the content of the primitive cell, elements by electronegativity. Cells and
coordinates are those of the standard setting; the operations stand in the text, so that no reader
needs to know the setting. Where the origin is free along an axis, the first site lies on it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Element, Lattice, Structure
from pyxtal.symmetry import Group

from matloop.generators.cells import Array
from matloop.generators.neural.representations.normalizer import polar_axes
from matloop.generators.neural.representations.orbits import (
    FREE_CELL,
    LETTERS,
    free_axes,
    positions,
    symmetric,
    whole_cell,
)
from matloop.generators.wyckoff import Position, SpaceGroup, space_group

HUNDREDTHS, TENTHS, THOUSANDTHS = 100, 10, 1000
"""Steps per ångström, degree and period. Half a step is 0.005 Å of a length, and of a coordinate
along 10 Å: a twentieth of the tolerance with which symmetry is found. A further digit would be
noise to learn."""

MOST_LENGTH, MOST_ANGLE = 100 * HUNDREDTHS, 180 * TENTHS

_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_SITE = ("label", "type_symbol", "symmetry_multiplicity", "Wyckoff_symbol")
_ATOL = 6e-4


@dataclass(frozen=True)
class Site:
    """Atoms of one element on one Wyckoff position.

    Attributes
    ----------
    element
        Chemical symbol.
    letter
        Wyckoff letter.
    free
        Free coordinates in thousandths of a period, in the order of the axes that are free.
    """

    element: str
    letter: str
    free: tuple[int, ...] = ()


@dataclass(frozen=True)
class CifCrystal:
    """What the canonical text of a crystal says, in whole steps.

    Attributes
    ----------
    space_group
        International number.
    cell
        Free numbers of the conventional cell in the order of `FREE_CELL`: lengths in hundredths of
        an ångström, angles in tenths of a degree.
    sites
        Occupied positions, by element in the order of electronegativity, letter, coordinates.
    """

    space_group: int
    cell: tuple[int, ...]
    sites: tuple[Site, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Atoms of each element in the primitive cell."""
        by_letter = positions(self.space_group)
        found: Counter[str] = Counter()
        for site in self.sites:
            found[site.element] += by_letter[site.letter].multiplicity
        return dict(found)

    @property
    def parameters(self) -> tuple[float, ...]:
        """Lengths (Å) and angles (°) of the conventional cell."""
        family = space_group(self.space_group).lattice_type
        free = {
            index: value / (HUNDREDTHS if index < 3 else TENTHS)
            for index, value in zip(FREE_CELL[family], self.cell, strict=True)
        }
        return whole_cell(family, free)

    def text(self) -> str:
        """Return the crystal as CIF."""
        group, counts = space_group(self.space_group), self.counts
        symbol, operations = _symbol_and_operations(self.space_group)
        lines = [
            f"data_{Composition(counts).reduced_formula}",
            f"_chemical_formula_sum '{' '.join(f'{name}{n}' for name, n in counts.items())}'",
            f"_cell_formula_units_Z {group.centring}",
            f"_space_group_IT_number {self.space_group}",
            f"_space_group_name_H-M_alt '{symbol}'",
            "loop_",
            "_space_group_symop_operation_xyz",
            *(f"'{operation}'" for operation in operations),
        ]
        for index, (name, value) in enumerate(zip(_CELL, self.parameters, strict=True)):
            lines.append(f"_cell_{name} {value:.{2 if index < 3 else 1}f}")
        lines += ["loop_", *(f"_atom_site_{name}" for name in _SITE)]
        lines += [f"_atom_site_fract_{axis}" for axis in "xyz"]
        for number, site in enumerate(self.sites, 1):
            position = positions(self.space_group)[site.letter]
            size = position.multiplicity * group.centring
            at = " ".join(_decimals(value) for value in _point(group, position, site.free))
            lines.append(f"{site.element}{number} {site.element} {size} {site.letter} {at}")
        return "\n".join(lines) + "\n"

    def structure(self) -> Structure:
        """Return the crystal as a primitive cell.

        Raises
        ------
        ValueError
            If the angles close no cell.
        """
        group, by_letter = space_group(self.space_group), positions(self.space_group)
        sites, symbols = [], []
        for site in self.sites:
            position = by_letter[site.letter]
            point = np.zeros(3)
            point[free_axes(position)] = np.array(site.free) / THOUSANDTHS
            sites.append(position.sites(point[None])[0])
            symbols += [site.element] * position.multiplicity
        conventional = Lattice.from_parameters(*self.parameters).matrix
        if not np.isfinite(conventional).all():
            raise ValueError("the angles close no cell")
        return Structure(
            Lattice(group.primitive @ conventional), symbols, np.concatenate(sites) % 1.0
        )


def cif_crystal(structure: Structure) -> CifCrystal | None:
    """Return what the canonical text of a crystal says; None where it cannot be written.

    The space group is found with `orbits.SYMPREC`.
    """
    found = symmetric(structure)
    if found is None:
        return None
    group = space_group(found.space_group)
    family = group.lattice_type
    cell = tuple(
        round(found.parameters[index] * (HUNDREDTHS if index < 3 else TENTHS))
        for index in FREE_CELL[family]
    )
    sites = [
        Site(one.element, one.letter, tuple(round(v * THOUSANDTHS) % THOUSANDTHS for v in one.free))
        for one in found.orbits
    ]
    return _canonical(CifCrystal(found.space_group, cell, tuple(sites)))


def read_cif_text(text: str) -> CifCrystal:
    """Return what a text of the canonical layout says.

    Raises
    ------
    ValueError
        If it is none, or contradicts its own symmetry.
    """
    fields = dict(re.findall(r"^(_cell_\S+|_space_group_IT_number) (\S+)$", text, re.MULTILINE))
    rows = re.findall(r"^(\S+) ([A-Z][a-z]?) (\d+) ([a-zA]) (\S+) (\S+) (\S+)$", text, re.MULTILINE)
    try:
        group = space_group(int(fields["_space_group_IT_number"]))
        numbers = [float(fields[f"_cell_{name}"]) for name in _CELL]
    except KeyError as error:
        raise ValueError(f"the text has no {error}") from None
    cell = tuple(
        round(numbers[index] * (HUNDREDTHS if index < 3 else TENTHS))
        for index in FREE_CELL[group.lattice_type]
    )
    sites = []
    for _, element, size, letter, *at in rows:
        position = positions(group.number).get(letter)
        if position is None or position.multiplicity * group.centring != int(size):
            raise ValueError(f"space group {group.number} has no position {size}{letter}")
        point = np.array(list(map(float, at)))
        free = _whole((point[free_axes(position)] * THOUSANDTHS).round())
        apart = point - _point(group, position, free)
        if np.abs(apart - np.round(apart)).max() > _ATOL:
            raise ValueError(f"{' '.join(at)} does not lie on {size}{letter}")
        sites.append(Site(element, letter, free))
    found = CifCrystal(group.number, cell, tuple(sites))
    if not sites or not np.allclose(found.parameters, numbers, atol=1e-6):
        raise ValueError("the text has no sites, or another cell than its space group")
    return found


def _canonical(crystal: CifCrystal) -> CifCrystal:
    """Return a crystal with its free origin on the first site, smallest points, sites sorted."""
    order = sorted((_smallest(crystal.space_group, site) for site in crystal.sites), key=_place)
    polar = polar_axes(crystal.space_group)
    if polar:
        by_letter = positions(crystal.space_group)
        axes = free_axes(by_letter[order[0].letter])
        origin = {axis: order[0].free[axes.index(axis)] for axis in polar}
        moved = []
        for site in order:
            axes = free_axes(by_letter[site.letter])
            free = [v - origin.get(axis, 0) for axis, v in zip(axes, site.free, strict=True)]
            moved.append(replace(site, free=_whole(np.array(free))))
        rest = sorted((_smallest(crystal.space_group, site) for site in moved[1:]), key=_place)
        order = [moved[0], *rest]
    return replace(crystal, sites=tuple(order))


def _place(site: Site) -> tuple[Element, int, tuple[int, ...]]:
    return Element(site.element), LETTERS.index(site.letter), site.free


def _smallest(number: int, site: Site) -> Site:
    """Return a site by the smallest of the points that generate it."""
    if not site.free:
        return site
    free = np.array(site.free, dtype=float)
    found = min(
        tuple(((linear @ free + shift * THOUSANDTHS).round() % THOUSANDTHS).astype(int).tolist())
        for linear, shift in _maps(number, site.letter)
    )
    return replace(site, free=found)


def _whole(values: NDArray[np.float64] | NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(value) % THOUSANDTHS for value in values)


def _point(group: SpaceGroup, position: Position, free: Sequence[int]) -> Array:
    """Return the first site of a position in conventional coordinates, each in [0, 1)."""
    point = np.zeros(3)
    point[free_axes(position)] = np.array(free) / THOUSANDTHS
    linear, shift = _conventional(group, position)
    return np.asarray((linear[0] @ point + shift[0]).round(6) % 1.0)


def _decimals(value: float) -> str:
    short = round(value * THOUSANDTHS)
    return f"{value:.3f}" if math.isclose(short / THOUSANDTHS, value) else f"{value:.6f}"


def _conventional(group: SpaceGroup, position: Position) -> tuple[Array, Array]:
    """Return the images of a point as maps of conventional coordinates."""
    back = group.primitive.T
    return back @ position.rotations, position.translations @ group.primitive


@cache
def _symbol_and_operations(number: int) -> tuple[str, tuple[str, ...]]:
    group = Group(number)
    return str(group.symbol), tuple(op.as_xyz_str() for op in group[0].ops)


@cache
def _lattice_points(number: int) -> Array:
    """Return the centring translations in conventional coordinates, shape (centring, 3)."""
    operations = Group(number)[0].ops
    turns = np.array([one.rotation_matrix for one in operations], dtype=float)
    shifts = np.array([one.translation_vector for one in operations], dtype=float)
    return np.asarray(shifts[np.all(np.isclose(turns, np.eye(3)), axis=(1, 2))] % 1.0)


@cache
def _maps(number: int, letter: str) -> tuple[tuple[Array, Array], ...]:
    """Return the maps of free coordinates that lead from a point to the others of its orbit."""
    group, position = space_group(number), positions(number)[letter]
    axes = free_axes(position)
    linear, shift = _conventional(group, position)
    found: list[tuple[Array, Array]] = []
    for turn, start in zip(linear, shift, strict=True):
        if not np.allclose(linear[0][:, axes] @ turn[axes], turn):
            continue
        for point in _lattice_points(number):
            at = start + point
            apart = linear[0][:, axes] @ at[axes] + shift[0] - at
            if np.abs(apart - np.round(apart)).max() < 1e-6:
                found.append((turn[np.ix_(axes, axes)], at[axes] % 1.0))
    return tuple(found)
