"""Whether two crystals are the same: first a proven bound, then `StructureMatcher` alone judges.

Two crystals are compared only if they share the reduced formula and the number of sites in the
primitive cell, and if their lattices can be mapped at all. Each of the three is a necessary
condition of a match, so nothing is lost by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from matloop.errors import MatloopError
from matloop.structures.geometry import objection, reduced_lattice

Bucket = tuple[str, int]

MAX_SITES = 200
"""Most sites of a crystal that is compared: the cost of one comparison grows with their square."""

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
            cell = bare.get_reduced_structure("niggli").get_primitive_structure()
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
        return bool((known.minima <= other.lengths * (1 + self.ltol) * (1 + 1e-6)).all())

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


class KnownIndex:
    """Known crystals by bucket, to find the one that a new crystal repeats.

    Crystals given at the start are prepared when one of their formula is first asked for, so a
    large archive costs little where few of its formulas occur.

    Parameters
    ----------
    matcher
        Judges.
    known
        Id and structure of each known crystal. One id may stand for several structures. A crystal
        that cannot be compared is left out: nothing can repeat it.
    """

    def __init__(self, matcher: Matcher, known: Iterable[tuple[str, Structure]] = ()) -> None:
        self.matcher = matcher
        self._buckets: dict[Bucket, list[tuple[str, Reduced]]] = {}
        self._waiting: dict[str, list[tuple[str, Structure]]] = {}
        for known_id, structure in known:
            if objection(structure) is not None:
                continue
            formula = structure.composition.element_composition.reduced_formula
            self._waiting.setdefault(formula, []).append((known_id, structure))

    def find(self, structure: Structure | Reduced, ignore: str | None = None) -> str | None:
        """Return the id of the first known crystal that matches, in the order they were added.

        Parameters
        ----------
        structure
            The new crystal, prepared by `Matcher.reduce` or not.
        ignore
            Id that does not count: the crystal's own.

        Raises
        ------
        IncomparableError
            If the new crystal cannot be compared.
        """
        new = self._prepared(structure)
        for known_id, reduced in self._buckets.get(new.bucket, []):
            if known_id != ignore and self.matcher.same(reduced, new):
                return known_id
        return None

    def add(self, known_id: str, structure: Structure | Reduced) -> None:
        """Add a known crystal.

        Raises
        ------
        IncomparableError
            If it cannot be compared.
        """
        new = self._prepared(structure)
        self._buckets.setdefault(new.bucket, []).append((known_id, new))

    def _prepared(self, structure: Structure | Reduced) -> Reduced:
        new = structure if isinstance(structure, Reduced) else self.matcher.reduce(structure)
        for known_id, known in self._waiting.pop(new.bucket[0], []):
            with suppress(IncomparableError):
                reduced = self.matcher.reduce(known)
                self._buckets.setdefault(reduced.bucket, []).append((known_id, reduced))
        return new


def _edges(lengths: NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.3g}" for length in sorted(lengths))
