"""The lower convex hull of one chemical system, as the planes of its facets.

The lower hull is convex, so its energy at a composition is the largest of all facet planes there:
one matrix product answers any number of questions. A plane counts only if no phase lies below it.
Qhull also reports slivers without volume, more of them the more elements there are; their planes
point anywhere and would lift the hull by tenths of an eV.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from matloop.structures.mixtures import NOTHING, Array, least_mixture, supporting_plane

MAX_FACET_ELEMENTS = 7
"""Chemical systems of more elements are solved by linear programming, query by query: the number of
facets grows exponentially with the number of elements."""

ON_HULL = 1e-8
"""Distance (eV/atom) up to which a phase counts as being on the hull: rounding."""

QHULL = ("Qt", "QJ")
"""Options tried in turn: triangulated facets and, where Qhull is at a loss, joggled points."""

_CACHED = 65_536  # numbers of one product, so that it stays in the cache of a core
_BELOW = 1e-9  # eV/atom by which a phase may lie below a plane that supports the hull
_VERTICAL = 1e-8  # energy component of a facet's unit normal below which it is a side wall


class LowerHull:
    """The lower hull over formation energies; the pure elements are its corners.

    Planes depend on the phases on the hull alone, to the last bit: phases above it may come and go.

    Parameters
    ----------
    fractions
        Atomic fractions of the phases, shape (phases, elements); the pure elements are among them.
    formation
        Formation energies (eV/atom), shape (phases,); those of the pure elements are zero.

    Attributes
    ----------
    stable
        Indices of the phases on the hull, in order; above `MAX_FACET_ELEMENTS` elements, of those
        that might be.
    planes
        Formation energies that each facet gives the pure elements, shape (facets, elements); None
        above `MAX_FACET_ELEMENTS` elements.
    """

    def __init__(self, fractions: Array, formation: Array) -> None:
        corner = (fractions > 1 - NOTHING).any(axis=1)
        # Phases above the plane of the elements are on no facet.
        useful = np.flatnonzero(corner | (formation < -NOTHING))
        planes = _planes(fractions[useful], formation[useful])
        if planes is not None:
            gap = formation[useful] - (fractions[useful] @ planes.T).max(axis=1)
            useful = useful[gap < ON_HULL]
            planes = _planes(fractions[useful], formation[useful])
        self.stable: NDArray[np.intp] = useful
        self.planes = planes
        self._fractions, self._formation = fractions[useful], formation[useful]

    def energies(self, fractions: Array) -> Array:
        """Return the formation energy of the hull at atomic fractions, shape (questions,)."""
        if self.planes is None:
            return np.array([self._solve(row)[0] for row in fractions])
        columns = np.ascontiguousarray(fractions.T)
        largest = np.empty(len(fractions))
        stride = max(64, _CACHED // len(self.planes))
        for start in range(0, len(fractions), stride):
            part = slice(start, start + stride)
            (self.planes @ columns[:, part]).max(axis=0, out=largest[part])
        return largest

    def mixture(self, fractions: Array) -> list[tuple[int, float]]:
        """Return the phases of the most stable mixture with their shares of the atoms."""
        _, shares = self._solve(fractions)
        return [(int(self.stable[i]), float(shares[i])) for i in np.flatnonzero(shares)]

    def _solve(self, fractions: Array) -> tuple[float, Array]:
        return least_mixture(self._fractions, self._formation, fractions)


def _planes(fractions: Array, formation: Array) -> Array | None:
    elements = fractions.shape[1]
    if len(fractions) == elements:
        return np.zeros((1, elements))
    if elements > MAX_FACET_ELEMENTS:
        return None
    points = np.column_stack([fractions[:, 1:], formation])
    for options in QHULL:
        try:
            hull = ConvexHull(points, qhull_options=options)
        except QhullError:
            continue
        lower = hull.simplices[hull.equations[:, -2] < -_VERTICAL]
        return _supporting(fractions, formation, lower)
    return None


def _supporting(fractions: Array, formation: Array, facets: NDArray[np.int32]) -> Array:
    # The planes of those facets that no phase lies below, and planes for the gaps the others leave.
    corners = fractions[facets]
    sound = np.linalg.det(corners) != 0.0
    planes = np.linalg.solve(corners[sound], formation[facets[sound]][..., None])[..., 0]
    with np.errstate(over="ignore", invalid="ignore"):
        supports = (planes @ fractions.T <= formation + _BELOW).all(axis=1)
    kept = planes[supports]
    lost = np.concatenate([facets[~sound], facets[sound][~supports]])
    for target in fractions[lost].mean(axis=1):
        energy, plane = supporting_plane(fractions, formation, target)
        if not len(kept) or energy > (kept @ target).max() + _BELOW:
            kept = np.vstack([kept, plane])
    _, first = np.unique(kept.round(10), axis=0, return_index=True)
    return np.asarray(kept[first])
