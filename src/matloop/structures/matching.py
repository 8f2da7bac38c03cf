"""Whether two crystals are the same: first a proven bound, then `StructureMatcher` alone judges.

Two crystals are compared only if they share the reduced formula and the number of sites in the
primitive cell, and if their lattices can be mapped at all. Each of the three is a necessary
condition of a match, so nothing is lost by it. `matloop.structures.identity` finds, among many, the
crystals that are worth comparing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from matloop.errors import MatloopError
from matloop.structures.fingerprint import fingerprint
from matloop.structures.geometry import objection, reduced_lattice

Bucket = tuple[str, int]

MAX_SITES = 200
"""Most sites of a crystal that is compared: the cost of one comparison grows with their square."""

_PRIMITIVE_WITHIN = 0.25  # Å; the tolerance of `Structure.get_primitive_structure`
_QUICKLY_SEARCHED = 60  # sites up to which looking for translations takes a fraction of a ms

MAX_VECTORS = 20_000
"""Most lattice vectors a mapping may have to choose from; a needle of 1 x 1 x 200 Å has more."""


class IncomparableError(MatloopError):
    """A crystal cannot be compared with others; the message says why."""


@dataclass(frozen=True)
class Reduced:
    """A crystal prepared for comparison, once.

    Attributes
    ----------
    structure
        Niggli-reduced primitive cell, without oxidation states and site properties.
    bucket
        Reduced formula and number of sites: different buckets never match.
    lengths
        Lattice lengths over the cube root of the volume, sorted.
    minima
        Successive minima of the lattice over the cube root of the volume: lengths of the shortest
        three vectors that span it.
    """

    structure: Structure
    bucket: Bucket
    lengths: NDArray[np.float64]
    minima: NDArray[np.float64]

    @cached_property
    def fingerprint(self) -> NDArray[np.float64]:
        """What `matloop.structures.fingerprint.fingerprint` says of it, found when asked for."""
        return fingerprint(self.structure)


@dataclass(frozen=True)
class Matcher:
    """Decide whether two crystals are the same within tolerances.

    Cells are scaled to one volume first, so a crystal and its strained copy are the same.

    Attributes
    ----------
    ltol
        Relative tolerance of the lattice lengths.
    stol
        Tolerance of the site positions, as a fraction of the cube root of the volume per atom.
    angle_tol
        Tolerance of the lattice angles (degrees).

    References
    ----------
    Default tolerances: novelty and uniqueness in Zeni et al., MatterGen, Nature 2025. The
    algorithm is pymatgen's `StructureMatcher`.
    """

    ltol: float = 0.2
    stol: float = 0.3
    angle_tol: float = 5.0

    @property
    def text(self) -> str:
        """The tolerances, as reasons quote them."""
        return f"ltol {self.ltol:g}, stol {self.stol:g}, angle {self.angle_tol:g}°"

    def reduce(self, structure: Structure) -> Reduced:
        """Prepare a crystal for comparison.

        Raises
        ------
        IncomparableError
            If it is no crystal, too large, or too elongated to be compared in bounded time. The
            bounds are counts, never times: the same crystal always gets the same answer.
        """
        problem = objection(structure)
        if problem is None and len(structure) > MAX_SITES:
            problem = f"has {len(structure)} sites, at most {MAX_SITES} are compared"
        if problem is None:
            problem = self._too_elongated(structure)
        if problem is not None:
            raise IncomparableError(problem)
        try:
            # From the shortest vectors on: Niggli reduction of a skew cell can take minutes.
            bare = Structure(
                reduced_lattice(structure),
                [site.specie.symbol for site in structure],
                structure.cart_coords,
                coords_are_cartesian=True,
                to_unit_cell=True,
            )
            cell = bare.get_reduced_structure("niggli")
            if not _is_primitive(cell):
                cell = cell.get_primitive_structure()
            edge = cell.volume ** (1 / 3)
            return Reduced(
                structure=cell,
                bucket=(cell.composition.reduced_formula, len(cell)),
                lengths=np.sort(cell.lattice.abc) / edge,
                minima=np.sort(np.linalg.norm(reduced_lattice(cell), axis=1)) / edge,
            )
        except Exception as error:  # many kinds, from several libraries, on pathological cells
            raise IncomparableError(
                f"cannot be reduced to a primitive cell ({type(error).__name__}: {error})"
            ) from error

    def same(self, known: Reduced, other: Reduced) -> bool:
        """Whether two prepared crystals match; the second is laid over the first.

        Where the comparison itself breaks down, the crystals count as different.
        """
        if not self.may_match(known, other):
            return False
        try:
            matcher = self._judge
            return bool(
                matcher.fit(known.structure, other.structure, skip_structure_reduction=True)
            )
        except (ValueError, np.linalg.LinAlgError, ZeroDivisionError, IndexError, MemoryError):
            return False

    def distance(self, known: Reduced, other: Reduced) -> float | None:
        """Return how far apart the sites of two matching crystals are; None if they do not match.

        It is the root mean square distance over the cube root of the volume per atom, as
        `StructureMatcher.get_rms_dist` gives it.
        """
        if not self.may_match(known, other):
            return None
        try:
            found = self._judge.get_rms_dist(known.structure, other.structure)
        except (ValueError, np.linalg.LinAlgError, ZeroDivisionError, IndexError, MemoryError):
            return None
        return None if found is None else float(found[0])

    def may_match(self, known: Reduced, other: Reduced) -> bool:
        """Whether a match is possible at all; False only where it is not.

        A match needs a basis of the known lattice, scaled to equal volume, whose vectors are at
        most ``1 + ltol`` times as long as those of the other cell. Three independent vectors are
        never shorter, sorted, than the successive minima of their lattice. So each minimum of the
        known lattice is at most ``1 + ltol`` times the corresponding length of the other cell.
        """
        if known.bucket != other.bucket:
            return False
        return bool((known.minima <= self.longest(other)).all())

    def longest(self, other: Reduced) -> NDArray[np.float64]:
        """Return what the minima of a known lattice of the same bucket must not exceed, (3,)."""
        return np.asarray(other.lengths * (1 + self.ltol) * (1 + 1e-6))

    def matches(self, known: Structure, other: Structure) -> bool:
        """Whether two crystals are the same.

        Raises
        ------
        IncomparableError
            If one of them cannot be compared.
        """
        return self.same(self.reduce(known), self.reduce(other))

    @cached_property
    def _judge(self) -> StructureMatcher:
        return StructureMatcher(ltol=self.ltol, stol=self.stol, angle_tol=self.angle_tol)

    def _too_elongated(self, structure: Structure) -> str | None:
        # Lattice vectors shorter than the longest edge, among which a mapping is sought.
        lengths = np.linalg.norm(reduced_lattice(structure), axis=1)
        radius = lengths.max() * (1 + self.ltol)
        volume = abs(float(np.linalg.det(structure.lattice.matrix)))
        if 4 / 3 * math.pi * radius**3 / volume > MAX_VECTORS:
            return f"the cell is too elongated to be compared: {_edges(lengths)} Å"
        return None


def _is_primitive(cell: Structure) -> bool:
    """Whether `Structure.get_primitive_structure` is certain to return the cell as it is.

    It looks for a translation, by a fraction of the cell, that brings every site onto a site of
    its element, within twice its tolerance along each axis. Without one nothing is made smaller.
    """
    numbers = np.array(cell.atomic_numbers)
    counts = np.bincount(numbers)
    units = math.gcd(*map(int, counts[counts > 0]))
    if units == 1:
        return True
    lengths = np.array(cell.lattice.abc)
    # A fraction is no smaller than one part in so many; where that is within the tolerance, or the
    # cell is large, the search itself must tell.
    if lengths.min() / units <= _PRIMITIVE_WITHIN * 1.01 or len(cell) > _QUICKLY_SEARCHED:
        return False
    within = 2.02 * _PRIMITIVE_WITHIN / lengths
    groups = [cell.frac_coords[numbers == number] for number in np.flatnonzero(counts)]
    rarest = min(groups, key=len)
    shifts = rarest[1:] - rarest[0]
    for group in sorted(groups, key=len):
        moved = group[None, :, None] + shifts[:, None, None] - group[None, None]
        close = (np.abs(moved - np.round(moved)) < within).all(axis=-1)
        shifts = shifts[close.any(axis=-1).all(axis=-1)]
        if not len(shifts):
            return True
    return False


def _edges(lengths: NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.3g}" for length in sorted(lengths))
