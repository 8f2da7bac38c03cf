"""Space groups and standard cells, found with moyo within a stated tolerance."""

from __future__ import annotations

from dataclasses import dataclass

import moyopy
import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Lattice, Structure

from matloop.errors import MatloopError
from matloop.structures.geometry import objection


class SymmetryError(MatloopError):
    """The symmetry of a crystal cannot be found; the message says why."""


@dataclass(frozen=True)
class SpaceGroup:
    """The symmetry of a crystal.

    Attributes
    ----------
    number
        Space group number, 1 to 230.
    symbol
        Short Hermann-Mauguin symbol, such as ``Pm-3m``.
    symprec
        Distance (Å) within which sites counted as equivalent: the tolerance asked for, or the
        smaller one at which the search succeeded.
    wyckoffs
        Wyckoff letter of each site of the crystal as given.
    orbits
        For each site the index of the first site it is equivalent to.
    """

    number: int
    symbol: str
    symprec: float
    wyckoffs: tuple[str, ...]
    orbits: tuple[int, ...]

    @property
    def wyckoff_sequence(self) -> str:
        """Wyckoff letters of the inequivalent sites, sorted: ``a b c`` for a cubic perovskite."""
        firsts = sorted(set(self.orbits))
        return " ".join(sorted(self.wyckoffs[site] for site in firsts))


def space_group(structure: Structure, symprec: float = 0.1) -> SpaceGroup:
    """Return the space group of a crystal.

    Where the search fails at the tolerance asked for, it is repeated at tighter ones, and the
    result says at which it succeeded.

    Parameters
    ----------
    structure
        An ordered crystal.
    symprec
        Distance tolerance (Å). 0.1 suits crystals relaxed to a finite force, 0.01 exact ones.

    Raises
    ------
    SymmetryError
        If the crystal is no crystal (not finite, flat, disordered), or no tolerance worked.
    """
    found = _dataset(structure, symprec)
    symbol = moyopy.SpaceGroupType(found.number).hm_short.replace(" ", "")
    return SpaceGroup(
        number=int(found.number),
        symbol=symbol,
        symprec=float(found.symprec),
        wyckoffs=tuple(found.wyckoffs),
        orbits=tuple(map(int, found.orbits)),
    )


def primitive_cell(structure: Structure, symprec: float = 0.1) -> Structure:
    """Return the primitive standard cell, its lattice and sites moved onto the exact symmetry.

    Raises
    ------
    SymmetryError
        As `space_group`.
    """
    return _structure(_dataset(structure, symprec).prim_std_cell)


def conventional_cell(structure: Structure, symprec: float = 0.1) -> Structure:
    """Return the conventional standard cell, its lattice and sites moved onto the exact symmetry.

    Raises
    ------
    SymmetryError
        As `space_group`.
    """
    return _structure(_dataset(structure, symprec).std_cell)


def rotations(structure: Structure, symprec: float = 0.01) -> NDArray[np.int64]:
    """Return the point group of a crystal: rotations of fractional coordinates, on columns.

    Returns
    -------
    numpy.ndarray
        Each rotation once, in a fixed order, shape (k, 3, 3).

    Raises
    ------
    SymmetryError
        As `space_group`.
    """
    found = np.array(_dataset(structure, symprec).operations.rotations, dtype=np.int64)
    return np.unique(found.reshape(-1, 9), axis=0).reshape(-1, 3, 3)


def primitive_size(structure: Structure, symprec: float = 0.01) -> int:
    """Return the number of atoms in the primitive cell; the cell's own where none can be found."""
    try:
        return len(_dataset(structure, symprec).prim_std_cell.numbers)
    except SymmetryError:
        return len(structure)


def _dataset(structure: Structure, symprec: float) -> moyopy.MoyoDataset:
    problem = objection(structure)
    if problem:
        raise SymmetryError(problem)
    cell = moyopy.Cell(
        basis=structure.lattice.matrix.tolist(),
        positions=structure.frac_coords.tolist(),
        numbers=[site.specie.Z for site in structure],
    )
    reason = ""
    for tolerance in (symprec, symprec / 10, symprec / 100):
        try:
            return moyopy.MoyoDataset(cell, symprec=tolerance)
        except ValueError as error:
            reason = str(error)
    raise SymmetryError(f"no symmetry was found down to {symprec / 100:.2g} Å: {reason.lower()}")


def _structure(cell: moyopy.Cell) -> Structure:
    species = [Element.from_Z(number) for number in cell.numbers]
    return Structure(Lattice(cell.basis), species, cell.positions)
