"""The nearest of many fingerprints: a matrix product for a few thousand, a KD tree for more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Vectors = NDArray[np.floating]

_IN_A_TREE = 4096  # rows from which a tree answers faster than looking at all of them


class Neighbourhood:
    """Fingerprints of equal length, to which more can be added.

    Parameters
    ----------
    vectors
        Fingerprints, shape (rows, length).
    """

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors.astype(np.float32)
        self._count = len(vectors)
        self._tree: cKDTree | None = None

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def append(self, vector: Vectors) -> None:
        """Add one at the end."""
        if self._count == len(self._vectors):
            larger = np.empty((max(16, 2 * self._count), len(vector)), dtype=np.float32)
            larger[: self._count] = self._vectors[: self._count]
            self._vectors = larger
        self._vectors[self._count] = vector
        self._count += 1

    def nearest(self, vector: Vectors, count: int, reach: float) -> list[tuple[float, int]]:
        """Return distance and row of those nearest to a fingerprint, nearest first.

        Parameters
        ----------
        vector
            The fingerprint.
        count
            Most that are returned.
        reach
            Largest distance.
        """
        inside = self._in_tree()
        found = []
        if inside and self._tree is not None:
            distances, rows = self._tree.query(
                vector.astype(np.float64), k=count, distance_upper_bound=reach
            )
            pairs = zip(np.atleast_1d(distances), np.atleast_1d(rows), strict=True)
            found = [(float(d), int(row)) for d, row in pairs if row < inside]
        steps = self._vectors[inside : self._count] - vector.astype(np.float32)
        squares = np.einsum("ij,ij->i", steps, steps)
        close = np.flatnonzero(squares <= reach**2)
        if len(close) > count:
            close = close[np.argpartition(squares[close], count - 1)[:count]]
        found += [(float(np.sqrt(squares[row])), int(row) + inside) for row in close]
        return sorted(found)[:count]

    def _in_tree(self) -> int:
        # Rows the tree holds; it is made anew when as many have come since.
        held = 0 if self._tree is None else int(self._tree.n)
        if self._count - held >= max(_IN_A_TREE, held):
            held = self._count
            self._tree = cKDTree(self._vectors[:held].astype(np.float64))
        return held
