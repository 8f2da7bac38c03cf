"""Whether two crystals are the same, as `StructureMatcher` says, after a proven bound.

Two crystals are compared only if they share the reduced formula and the number of sites in the
primitive cell, and if their lattices can be mapped at all. Each of the three is a necessary
condition of a match, so nothing is lost by it. `matloop.structures.identity` finds, among many, the
crystals that are worth comparing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Element, Structure

from matloop.errors import MatloopError
from matloop.structures.fingerprint import fingerprint
from matloop.structures.geometry import objection, reduced_lattice
from matloop.structures.overlay import Laid, Tolerances, first_match
from matloop.structures.primitive import primitive_cell, structure_of

Bucket = tuple[str, int]

MAX_SITES = 200
"""Most sites of a crystal that is compared: the cost of one comparison grows with their square."""

MAX_VECTORS = 20_000
"""Most lattice vectors a mapping may have to choose from; a needle of 1 x 1 x 200 Å has more."""


class IncomparableError(MatloopError):
    """A crystal cannot be compared with others; the message says why."""


@dataclass(frozen=True, eq=False)
class Reduced:
    """A crystal prepared for comparison, once: a Niggli-reduced primitive cell.

    Attributes
    ----------
    lattice
        Lattice vectors as rows (Å), shape (3, 3).
    numbers
        Atomic numbers in rising order, shape (n,).
    coords
        Fractional coordinates, shape (n, 3).
    bucket
        Reduced formula and number of sites: different buckets never match.
    lengths
        Lattice lengths over the cube root of the volume, sorted.
    minima
        Successive minima of the lattice over the cube root of the volume: lengths of the shortest
        three vectors that span it.
    """

    lattice: NDArray[np.float64]
    numbers: NDArray[np.int64]
    coords: NDArray[np.float64]
    bucket: Bucket
    lengths: NDArray[np.float64]
    minima: NDArray[np.float64]

    @cached_property
    def structure(self) -> Structure:
        """The cell as a crystal of pymatgen, without oxidation states and site properties."""
        return structure_of(self.lattice, self.numbers, self.coords)

    @cached_property
    def fingerprint(self) -> NDArray[np.float64]:
        """What `matloop.structures.fingerprint.fingerprint` says of it, found when asked for."""
        return fingerprint(self.lattice, self.numbers, self.coords)

    @cached_property
    def laid(self) -> Laid:
        """The cell as it is laid over others."""
        return Laid(self.lattice, self.numbers, self.coords)


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
            lattice, numbers, coords = primitive_cell(
                structure.lattice.matrix, np.array(structure.atomic_numbers), structure.cart_coords
            )
            edge = abs(float(np.linalg.det(lattice))) ** (1 / 3)
            lengths = np.sort(np.linalg.norm(lattice, axis=1)) / edge
            minima = np.sort(np.linalg.norm(reduced_lattice(lattice), axis=1)) / edge
        except Exception as error:  # many kinds, from several libraries, on pathological cells
            raise IncomparableError(
                f"cannot be reduced to a primitive cell ({type(error).__name__}: {error})"
            ) from error
        bucket = (_formula(tuple(numbers.tolist())), len(numbers))
        return Reduced(lattice, numbers, coords, bucket, lengths, minima)

    def same(self, known: Reduced, other: Reduced) -> bool:
        """Whether two prepared crystals match; the second is laid over the first.

        Where the comparison itself breaks down, the crystals count as different.
        """
        return self.first([known], other) is not None

    def first(self, known: Sequence[Reduced], other: Reduced) -> int | None:
        """Return the place of the first of several crystals that matches; None if none does.

        Several at once take less time than one after the other.
        """
        longest = self.longest(other)
        places = [
            place
            for place, one in enumerate(known)
            if one.bucket == other.bucket and (one.minima <= longest).all()
        ]
        if not places:
            return None
        tolerances = Tolerances(self.ltol, self.stol, self.angle_tol)
        found = first_match([known[place].laid for place in places], other.laid, tolerances)
        return None if found is None else places[found]

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
        matrix = structure.lattice.matrix
        lengths = np.linalg.norm(reduced_lattice(matrix), axis=1)
        radius = lengths.max() * (1 + self.ltol)
        if 4 / 3 * math.pi * radius**3 / abs(float(np.linalg.det(matrix))) > MAX_VECTORS:
            return f"the cell is too elongated to be compared: {_edges(lengths)} Å"
        return None


@lru_cache(maxsize=4096)
def _formula(numbers: tuple[int, ...]) -> str:
    counts = {Element.from_Z(z).symbol: numbers.count(z) for z in set(numbers)}
    return str(Composition(counts).reduced_formula)


def _edges(lengths: NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.3g}" for length in sorted(lengths))
