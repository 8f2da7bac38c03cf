"""Known crystals by bucket, to find the one that a new crystal repeats: in memory and in segments.

Where a bucket holds few crystals, all that may match are judged, and nothing is lost. In a crowded
bucket, relaxed crystals are judged against the relaxed ones nearest to them in fingerprint.
Crystals as a generator proposes them are always judged against all: within the tolerances of the
matcher, random crystals of one formula match others far away in fingerprint.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop.structures.geometry import objection
from matloop.structures.matching import Bucket, IncomparableError, Matcher, Reduced
from matloop.structures.neighbourhood import Neighbourhood
from matloop.structures.segments import Rows, Segment

__all__ = ["IncomparableError", "KnownIndex", "Matcher", "Reduced"]

CROWDED = 32
"""Crystals in a bucket from which relaxed ones are looked up by fingerprint."""

NEAREST = 8
"""Relaxed crystals that a relaxed one is judged against in a crowded bucket: the nearest ones.

Measured with `benchmarks.identity`, this finds at least 98 % of the duplicates that
`StructureMatcher.group_structures` finds."""

REACH = 0.25
"""Largest distance in fingerprint at which crystals are judged in a crowded bucket, at the default
tolerances. It grows with wider ones."""

TOGETHER = 32
"""Most crystals that one is judged against at once."""


class KnownIndex:
    """Known crystals by bucket, to find the one that a new crystal repeats.

    Crystals given at the start are prepared when one of their formula is first asked for, so a
    large archive costs little where few of its formulas occur. Those in segments are prepared
    already and stay on the disk.

    Parameters
    ----------
    matcher
        Judges.
    known
        Id and structure of each known crystal. One id may stand for several structures. A crystal
        that cannot be compared is left out: nothing can repeat it.
    relaxed
        Whether these crystals are relaxed.
    segments
        Files of further known crystals, earlier than all others.
    """

    def __init__(
        self,
        matcher: Matcher,
        known: Iterable[tuple[str, Structure]] = (),
        *,
        relaxed: bool = False,
        segments: Sequence[Segment] = (),
    ) -> None:
        self.matcher = matcher
        self._segments = tuple(segments)
        self._shelves: dict[tuple[int, Bucket], _Shelf] = {}
        self._buckets: dict[Bucket, _Shelf] = {}
        self._relaxed = relaxed
        self._waiting: dict[str, list[tuple[str, Structure]]] = {}
        for known_id, structure in known:
            if objection(structure) is not None:
                continue
            formula = structure.composition.element_composition.reduced_formula
            self._waiting.setdefault(formula, []).append((known_id, structure))

    def find(
        self, structure: Structure | Reduced, ignore: str | None = None, *, relaxed: bool = False
    ) -> str | None:
        """Return the id of a known crystal that matches; None if there is none.

        It is the first in the order they were added. In a bucket of `CROWDED` or more crystals, a
        relaxed crystal is judged against the `NEAREST` relaxed ones first, and the nearest that
        matches is returned; of the unrelaxed ones it is the first.

        Parameters
        ----------
        structure
            The new crystal, prepared by `Matcher.reduce` or not.
        ignore
            Id that does not count: the crystal's own.
        relaxed
            Whether the new crystal is relaxed.

        Raises
        ------
        IncomparableError
            If the new crystal cannot be compared.
        """
        new = self._prepared(structure)
        shelves = list(self._all(new.bucket))
        if relaxed and sum(map(len, shelves)) >= CROWDED:
            order = self._nearest(shelves, new, ignore)
        else:
            order = (
                (shelf, row)
                for shelf in shelves
                for row in np.flatnonzero(self._may_match(shelf.minima, new)).tolist()
            )
        places = ((shelf, row) for shelf, row in order if shelf.name(row) != ignore)
        for several in _batches(places):
            found = self.matcher.first([shelf.reduced(row) for shelf, row in several], new)
            if found is not None:
                shelf, row = several[found]
                return shelf.name(row)
        return None

    def add(self, known_id: str, structure: Structure | Reduced, *, relaxed: bool = False) -> None:
        """Add a known crystal.

        Raises
        ------
        IncomparableError
            If it cannot be compared.
        """
        new = self._prepared(structure)
        self._buckets.setdefault(new.bucket, _Shelf()).add(known_id, new, relaxed)

    def _prepared(self, structure: Structure | Reduced) -> Reduced:
        new = structure if isinstance(structure, Reduced) else self.matcher.reduce(structure)
        for known_id, known in self._waiting.pop(new.bucket[0], []):
            with suppress(IncomparableError):
                reduced = self.matcher.reduce(known)
                shelf = self._buckets.setdefault(reduced.bucket, _Shelf())
                shelf.add(known_id, reduced, self._relaxed)
        return new

    def _all(self, bucket: Bucket) -> Iterator[_Shelf]:
        for number, segment in enumerate(self._segments):
            shelf = self._shelves.get((number, bucket))
            if shelf is None:
                rows = segment.rows(bucket)
                if rows is None:
                    continue
                shelf = _Shelf(rows)
                if len(rows) >= CROWDED:  # the others are found again as fast
                    self._shelves[number, bucket] = shelf
            yield shelf
        if bucket in self._buckets:
            yield self._buckets[bucket]

    def _may_match(self, minima: NDArray[np.float64], new: Reduced) -> NDArray[np.bool_]:
        # As `Matcher.may_match`, for many known crystals of the bucket at once.
        return np.asarray((minima <= self.matcher.longest(new)).all(axis=1))

    def _nearest(
        self, shelves: Sequence[_Shelf], new: Reduced, ignore: str | None
    ) -> Iterator[tuple[_Shelf, int]]:
        tolerances = self.matcher
        reach = REACH * max(1.0, tolerances.ltol / 0.2, tolerances.stol / 0.3)
        found: list[tuple[float, int, int]] = []
        for number, shelf in enumerate(shelves):
            # More than are judged: the proven bound and `ignore` take some away.
            near = shelf.nearest(new, 4 * NEAREST, reach)
            possible = self._may_match(shelf.minima[[row for _, row in near]], new)
            found += [
                (round(distance, 4), number, row)
                for (distance, row), may in zip(near, possible.tolist(), strict=True)
                if may
            ]
        best = [(shelves[number], row) for _, number, row in sorted(found)]
        yield from [(s, row) for s, row in best if s.name(row) != ignore][:NEAREST]
        for shelf in shelves:
            unrelaxed = self._may_match(shelf.minima, new) & ~shelf.relaxed
            yield from ((shelf, row) for row in np.flatnonzero(unrelaxed).tolist())


def _batches(places: Iterator[tuple[_Shelf, int]]) -> Iterator[list[tuple[_Shelf, int]]]:
    # The first alone, as it often matches, then more and more at once.
    size = 1
    while several := list(itertools.islice(places, size)):
        yield several
        size = min(4 * size, TOGETHER)


class _Shelf:
    # The crystals of one bucket: those of a segment, or those added in memory.

    def __init__(self, rows: Rows | None = None) -> None:
        self._rows = rows
        self._added: list[tuple[str, Reduced]] = []
        self._minima = np.empty((16, 3))
        self._relaxed = np.empty(16, dtype=np.bool_)
        self._near: Neighbourhood | None = None
        self._places: list[int] = []  # of the relaxed ones, as the neighbourhood counts them
        self._seen = 0  # crystals added that the neighbourhood has been told of

    def __len__(self) -> int:
        return len(self._added) if self._rows is None else len(self._rows)

    @property
    def minima(self) -> NDArray[np.float64]:
        return self._minima[: len(self)] if self._rows is None else self._rows.minima

    @property
    def relaxed(self) -> NDArray[np.bool_]:
        return self._relaxed[: len(self)] if self._rows is None else self._rows.relaxed

    def name(self, row: int) -> str:
        return self._added[row][0] if self._rows is None else self._rows.name(row)

    def reduced(self, row: int) -> Reduced:
        return self._added[row][1] if self._rows is None else self._rows.reduced(row)

    def add(self, known_id: str, reduced: Reduced, relaxed: bool) -> None:
        row = len(self._added)
        if row == len(self._relaxed):
            self._minima = np.concatenate([self._minima, np.empty_like(self._minima)])
            self._relaxed = np.concatenate([self._relaxed, np.empty_like(self._relaxed)])
        self._added.append((known_id, reduced))
        self._minima[row], self._relaxed[row] = reduced.minima, relaxed

    def nearest(self, new: Reduced, count: int, reach: float) -> list[tuple[float, int]]:
        vector = _rounded(new)
        if self._near is None:
            self._near = Neighbourhood(np.empty((0, len(vector)), dtype=np.float16))
            if self._rows is not None:
                self._places = np.flatnonzero(self.relaxed).tolist()
                self._near = Neighbourhood(self._rows.fingerprints[self._places])
        for row in range(self._seen, len(self._added)):
            if self._relaxed[row]:
                self._near.append(_rounded(self._added[row][1]))
                self._places.append(row)
        self._seen = len(self._added)
        found = self._near.nearest(vector, count, reach)
        return [(distance, self._places[row]) for distance, row in found]


def _rounded(reduced: Reduced) -> NDArray[np.float16]:
    # As segments hold it, so that a crystal is found alike in memory and in a file.
    return reduced.fingerprint.astype(np.float16)
