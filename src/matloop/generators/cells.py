"""Cells and contacts: what every generator needs of a crystal's geometry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from moyopy import Cell, MoyoDataset, niggli_reduce
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element, Lattice, Structure

Array = NDArray[np.float64]

SANE_CONTACT = 0.5
"""No proposal holds a distance below this fraction of the sum of two covalent radii."""

ANION_CONTACT = 0.85
"""Two of the most electronegative ions keep this fraction of the sum of their ionic radii.

At 2 × 1.26 Å for oxide it forbids O-O below 2.14 Å: a peroxide bond measures 1.49 Å, the shortest
contact between oxide ions in carbonate 2.24 Å.
"""

MOST_SITES = 400
"""Larger parents are passed over: they cannot shrink to a cell that a space allows."""

_FLATTEST_CELL = 0.8
_SYMPREC = 1e-3
_MOST_SIMILAR = 0.05


def plain_cell(structure: Structure) -> Structure | None:
    """Return the Niggli-reduced primitive cell of a parent; None if it cannot be used.

    Oxidation states, site properties and labels are dropped. Disordered crystals, those with more
    than `MOST_SITES` sites, and those with numbers that are not finite cannot be used.
    """
    if not 0 < len(structure) <= MOST_SITES or not structure.is_ordered:
        return None
    try:
        symbols = [site.specie.symbol for site in structure]
        matrix = np.array(structure.lattice.matrix, dtype=float)
        frac = np.array(structure.frac_coords, dtype=float)
        if not (np.isfinite(matrix).all() and np.isfinite(frac).all()):
            return None
        if any(symbol not in atomic_numbers for symbol in symbols):
            return None
        found = reduced(symbols, matrix, frac)
    except (ValueError, TypeError, AttributeError, np.linalg.LinAlgError):
        return None
    return found[0] if found else None


def reduced(symbols: Sequence[str], matrix: Array, frac: Array) -> tuple[Structure, int] | None:
    """Return the Niggli-reduced primitive cell and the number of its space group.

    None if the crystal is too strange for either.

    Parameters
    ----------
    symbols
        Chemical symbol of each site.
    matrix
        Lattice vectors in rows, shape (3, 3) (Å).
    frac
        Fractional coordinates, shape (sites, 3).
    """
    numbers = [atomic_numbers[symbol] for symbol in symbols]
    try:
        dataset = MoyoDataset(
            Cell(matrix.tolist(), (frac % 1.0).tolist(), numbers), symprec=_SYMPREC
        )
        cell = dataset.prim_std_cell
        basis = np.array(niggli_reduce(cell.basis)[0])
    except ValueError:
        return None
    cartesian = np.array(cell.positions) @ np.array(cell.basis)
    names = [chemical_symbols[number] for number in cell.numbers]
    return crystal(names, basis, cartesian @ np.linalg.inv(basis)), int(dataset.number)


def crystal(symbols: Sequence[str], matrix: Array, frac: Array) -> Structure:
    """Return a crystal with sites sorted by electronegativity, as in its formula."""
    frac = np.round(frac % 1.0, 8) % 1.0
    keys = [(Element(symbol), index) for index, symbol in enumerate(symbols)]
    order = [index for _, index in sorted(keys)]
    return Structure(Lattice(np.round(matrix, 8)), [symbols[index] for index in order], frac[order])


def counts_of(symbols: Iterable[str]) -> dict[str, int]:
    """Return the number of atoms of each element, sorted by electronegativity."""
    symbols = list(symbols)
    return {str(e): symbols.count(str(e)) for e in sorted({Element(s) for s in symbols})}


def symbols_of(structure: Structure) -> list[str]:
    """Return the chemical symbol of each site."""
    return [site.specie.symbol for site in structure]


def contact_limits(symbols: Sequence[str], scale: float, ionic: bool = False) -> Array:
    """Return the shortest distance allowed between each two sites, shape (sites, sites) (Å).

    Parameters
    ----------
    symbols
        Chemical symbol of each site.
    scale
        Fraction of the sum of two covalent radii (Cordero et al., Dalton Trans. 2008).
    ionic
        Keep the ions of the most electronegative element apart as well, see `ANION_CONTACT`.
    """
    radii = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in symbols])
    limits = scale * (radii[:, None] + radii[None, :])
    if ionic:
        anion = max({Element(symbol) for symbol in symbols})
        ion = float(anion.average_anionic_radius or 0.0)
        sites = np.array([symbol == anion.symbol for symbol in symbols])
        both = sites[:, None] & sites[None, :]
        limits[both] = np.maximum(limits[both], 2 * ANION_CONTACT * ion)
    return np.asarray(limits, dtype=float)


def contact_ratio(matrix: Array, frac: Array, limits: Array) -> Array:
    """Return the smallest ratio of a distance to its limit, over all pairs and periodic images.

    Parameters
    ----------
    matrix
        Lattice vectors in rows, shape (3, 3) (Å).
    frac
        Fractional coordinates, shape (sites, 3), or (batch, sites, 3).
    limits
        Shortest distance allowed between each two sites, shape (sites, sites) (Å).

    Returns
    -------
    Array
        Shape () or (batch,). Exact where it is below 1; at least 1 means all is well. Cells too
        flat for any crystal give 0.
    """
    batch = frac if frac.ndim == 3 else frac[None]
    images = image_vectors(matrix, float(limits.max()))
    if images is None or not np.isfinite(batch).all():
        ratios = np.zeros(len(batch))
        return ratios if frac.ndim == 3 else ratios[0]
    shifts = images @ matrix
    away = np.linalg.norm(shifts[np.any(images != 0, axis=1)], axis=1).min()
    ratios = np.full(len(batch), away / np.diagonal(limits).max())
    first, second = np.triu_indices(batch.shape[1], 1)
    if len(first):
        apart = batch[:, first] - batch[:, second]
        apart = (apart - np.round(apart)) @ matrix
        squares = ((apart[:, :, None, :] + shifts) ** 2).sum(axis=-1).min(axis=-1)
        pairs = np.sqrt(squares) / limits[first, second]
        ratios = np.minimum(ratios, pairs.min(axis=1))
    return ratios if frac.ndim == 3 else ratios[0]


def image_vectors(matrix: Array, reach: float) -> NDArray[np.int64] | None:
    """Return the lattice translations, in cells, that may bring two atoms within reach.

    None for a cell that is flatter than any crystal, which would need very many.
    """
    volume = abs(float(np.linalg.det(matrix)))
    faces = np.cross(matrix[[1, 2, 0]], matrix[[2, 0, 1]])
    areas = np.linalg.norm(faces, axis=1)
    if not np.isfinite(areas).all() or volume <= _FLATTEST_CELL * areas.max():
        return None
    most = np.maximum(1, np.floor(reach * areas / volume + 0.5).astype(int))
    steps = [np.arange(-n, n + 1) for n in most]
    return np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)


def is_sane(structure: Structure, scale: float = SANE_CONTACT) -> bool:
    """Say whether all numbers are finite and no two atoms sit on each other."""
    limits = contact_limits(symbols_of(structure), scale)
    matrix = np.array(structure.lattice.matrix)
    return bool(contact_ratio(matrix, np.array(structure.frac_coords), limits) >= 1.0)


class Seen:
    """Crystals met so far, so that each is proposed once."""

    def __init__(self) -> None:
        self._matcher = StructureMatcher(
            ltol=_MOST_SIMILAR, stol=_MOST_SIMILAR, angle_tol=1, scale=True, primitive_cell=False
        )
        self._crystals: dict[tuple[str, int], list[Structure]] = {}

    def is_new(self, cell: Structure) -> bool:
        """Remember a primitive cell, and say whether no other one agrees with it.

        They agree within 5 % in lengths and positions and 1° in angles, whatever their volumes.
        """
        key = (cell.composition.reduced_formula, len(cell))
        alike = self._crystals.setdefault(key, [])
        if any(self._matcher.fit(cell, other) for other in alike):
            return False
        alike.append(cell)
        return True


def element_names(structure: Structure) -> set[str]:
    """Return the symbols of the elements in a crystal."""
    return set(structure.symbol_set)
