"""The lower convex hull of one chemical system, as the planes of its facets.

The lower hull is convex, so its energy at a composition is the largest of all facet planes there:
one matrix product answers any number of questions. A plane counts only if no phase lies below it.
Qhull also reports slivers without volume, more of them the more elements there are; their planes
point anywhere and would lift the hull by tenths of an eV.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

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
_REMEMBERED = 4096  # linear programmes that a hull remembers
_EQUAL = 1e-12  # eV/atom by which heights of planes differ that are equal but for rounding
_APART = 1e-6  # eV/atom by which all other phases must lie above the plane of a single mixture
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
        self._solved: dict[bytes, tuple[float, Array]] = {}

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

    def competitors(self, fractions: Array) -> tuple[Array, list[tuple[int, ...]]]:
        """Return the energies of the hull and the phases of the most stable mixtures.

        Numbers and phases of a question are the same to the last bit whatever is asked beside it,
        which a matrix product, as in `energies`, does not promise.

        Parameters
        ----------
        fractions
            Atomic fractions, shape (questions, elements).

        Returns
        -------
        tuple
            Formation energies (eV/atom), shape (questions,), and the phases that `mixture` names.
        """
        if self.planes is None:
            solved = [self._solve(row) for row in fractions]
            return np.array([energy for energy, _ in solved]), [self._named(s) for _, s in solved]
        carriers = self._carriers(fractions, self.planes)
        energies = (self.planes[carriers] * fractions).sum(axis=1)
        known = self._simplices
        which = known.of_plane[carriers]
        shares = np.einsum("qij,qj->qi", known.inverses[which], fractions)
        # Each pair of a simplex and the corners that take part is named once.
        taking_part = (shares > NOTHING) @ (1 << np.arange(fractions.shape[1]))
        settled = (which >= 0) & (shares > -NOTHING).all(axis=1)
        pairs = np.column_stack([which, taking_part])[settled]
        named: dict[tuple[int, int], tuple[int, ...]] = {}
        for simplex, parts in set(map(tuple, pairs.tolist())):
            corners = known.corners[simplex].tolist()
            named[simplex, parts] = tuple(
                int(self.stable[corner]) for i, corner in enumerate(corners) if parts >> i & 1
            )
        return energies, [
            named[simplex, parts] if easy else self._named(self._solve(row)[1])
            for simplex, parts, easy, row in zip(
                which.tolist(), taking_part.tolist(), settled.tolist(), fractions, strict=True
            )
        ]

    def _carriers(self, fractions: Array, planes: Array) -> NDArray[np.intp]:
        # The plane that carries the hull at each question; of equal ones the first.
        columns = np.ascontiguousarray(fractions.T)
        found = np.empty(len(fractions), dtype=np.intp)
        stride = max(64, _CACHED // len(planes))
        for start in range(0, len(fractions), stride):
            part = slice(start, start + stride)
            heights = planes @ columns[:, part]
            found[part] = (heights >= heights.max(axis=0) - _EQUAL).argmax(axis=0)
        return found

    @cached_property
    def _simplices(self) -> _Simplices:
        # A plane that touches as many phases as there are elements, all others being well above it,
        # leaves no choice: its phases are the only best mixture, as linear programming would find.
        planes, elements = np.asarray(self.planes), self._fractions.shape[1]
        touching = np.abs(self._formation - planes @ self._fractions.T) < _APART
        simple = np.flatnonzero(touching.sum(axis=1) == elements)
        corners = np.nonzero(touching[simple])[1].reshape(-1, elements)
        columns = self._fractions[corners].transpose(0, 2, 1)
        sound = np.abs(np.linalg.det(columns)) > NOTHING
        of_plane = np.full(len(planes), -1, dtype=np.intp)
        of_plane[simple[sound]] = np.arange(int(sound.sum()))
        inverses = np.linalg.inv(columns[sound])
        # The last one stands for planes without: it takes part in nothing.
        nothing = np.zeros((1, elements, elements))
        return _Simplices(of_plane, corners[sound], np.concatenate([inverses, nothing]))

    def _named(self, shares: Array) -> tuple[int, ...]:
        return tuple(int(self.stable[i]) for i in np.flatnonzero(shares))

    def _solve(self, fractions: Array) -> tuple[float, Array]:
        key = fractions.tobytes()
        if (known := self._solved.get(key)) is None:
            known = least_mixture(self._fractions, self._formation, fractions)
            if len(self._solved) < _REMEMBERED:
                self._solved[key] = known
        return known


class _Simplices(NamedTuple):
    # Facets whose phases are the only best mixture of what lies between them.

    of_plane: NDArray[np.intp]  # the simplex of each plane; -1 for planes that touch more phases
    corners: NDArray[np.intp]  # places among the stable phases, ascending
    inverses: Array  # from fractions to shares; one more, of zeros, at the end


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
