"""The verdict of `StructureMatcher.fit` on prepared crystals, in arrays: many pairs at once.

`StructureMatcher` spends most of a comparison on building crystals anew. Here the steps of its
search are those of pymatgen (`_get_supercells`, `_cmp_fstruct`, `_cart_dists`), taken over all
mappings and all translations together. A match is any mapping and translation that passes, so the
order of the search does not matter. Tests hold the verdicts together on thousands of pairs.

Lattices are in units of the cube root of their volume, which scales both crystals to one volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import moyopy
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from matloop.structures.primitive import element_groups

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

_MARGIN = 1.25  # by which lattice vectors are listed beyond what a similar crystal asks for
_AT_FIRST = 4  # mappings that are looked at before all others
_SMALL = 30_000  # numbers in an array that is sooner looked at whole than piece by piece
_LARGEST = 2_000_000  # numbers in one array of differences
_FORBIDDEN = 1e6  # squared distance of sites of different elements
_IMAGES = np.array(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3)).T.reshape(-1, 3)


@dataclass(frozen=True)
class Tolerances:
    """Within which crystals match, as `StructureMatcher` has them.

    Attributes
    ----------
    ltol
        Relative tolerance of the lattice lengths.
    stol
        Tolerance of the site positions, over the cube root of the volume per atom.
    angle_tol
        Tolerance of the lattice angles (degrees).
    """

    ltol: float
    stol: float
    angle_tol: float


class Laid:
    """A crystal as it is laid over others of its bucket: unit volume, sites in groups.

    Parameters
    ----------
    lattice
        Vectors of a reduced primitive cell as rows, shape (3, 3).
    numbers
        Atomic numbers in rising order, shape (n,).
    coords
        Fractional coordinates, shape (n, 3).
    """

    def __init__(self, lattice: Array, numbers: NDArray[np.integer], coords: Array) -> None:
        self.lattice = lattice / abs(np.linalg.det(lattice)) ** (1 / 3)
        self.coords = coords
        self.lengths = np.sqrt((self.lattice**2).sum(axis=1))
        unit = self.lattice / self.lengths[:, None]
        cosines = np.array([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]])
        self.angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
        self._numbers = numbers
        self._vectors: tuple[float, NDArray[np.float64], Array, Array] | None = None

    @cached_property
    def groups(self) -> list[slice]:
        """Sites of each element, that with the fewest sites first."""
        return element_groups(self._numbers)

    @cached_property
    def alike(self) -> NDArray[np.bool_]:
        """Whether two sites hold one element, shape (n, n)."""
        return np.asarray(self._numbers[:, None] == self._numbers)

    def vectors(self, radius: float) -> tuple[Array, Array, Array]:
        """Return lattice vectors up to a length: integer coefficients, directions, lengths."""
        if self._vectors is None or self._vectors[0] < radius:
            reach = radius * _MARGIN
            heights = 1 / np.sqrt((np.linalg.inv(self.lattice) ** 2).sum(axis=0))
            spans = [np.arange(-most, most + 1.0) for most in np.floor(reach / heights)]
            whole = np.stack(np.meshgrid(*spans, indexing="ij"), axis=-1).reshape(-1, 3)
            cart = whole @ self.lattice
            lengths = np.sqrt((cart**2).sum(axis=1))
            near = (lengths <= reach) & (lengths > 0)
            whole, cart, lengths = whole[near], cart[near], lengths[near]
            self._vectors = (reach, whole, cart / lengths[:, None], lengths)
        return self._vectors[1:]


def first_match(known: Sequence[Laid], other: Laid, tolerances: Tolerances) -> int | None:
    """Return the place of the first crystal over which the other can be laid, or None.

    Parameters
    ----------
    known
        Crystals of the other's bucket.
    other
        The crystal that is laid over them.
    tolerances
        Within which they match.
    """
    own = _own_basis(known[0], other, tolerances)
    if own is not None and _first_fit(known, other, own, tolerances) is not None:
        return 0
    bases = _bases(known, other, tolerances)
    if bases is None:
        return None
    start, size = 0, _AT_FIRST
    while start < len(bases.owners):
        stop = min(start + size, len(bases.owners))
        found = _first_fit(known, other, bases.part(slice(start, stop)), tolerances)
        if found is not None:
            return found
        sites = len(other.coords) * (other.groups[0].stop - other.groups[0].start)
        start, size = stop, max(1, _LARGEST // (3 * sites))
    return None


def _first_fit(
    known: Sequence[Laid], other: Laid, bases: _Bases, tolerances: Tolerances
) -> int | None:
    # The first crystal over which the other can be laid by one of these bases.
    owners = bases.owners
    coords = np.array([known[n].coords for n in owners.tolist()]) @ _inverse(bases.scales)
    lengths = (bases.lengths + other.lengths) / 2
    cosines = np.cos(np.radians((bases.angles + other.angles) / 2))
    # A basis of unit vectors with these angles, and its volume.
    sines = np.sqrt(1 - cosines**2)
    y = (cosines[:, 0] - cosines[:, 1] * cosines[:, 2]) / sines[:, 2]
    z = np.sqrt(np.maximum(sines[:, 1] ** 2 - y**2, 1e-12))
    heights = lengths * (sines[:, 2] * z)[:, None] / sines
    unit = (lengths.prod(axis=1) * sines[:, 2] * z / len(other.coords)) ** (1 / 3)
    # Reciprocal lengths of pymatgen hold 2 pi, which its tolerance divides by pi.
    within = 2 * tolerances.stol * unit[:, None] / heights
    cells = np.zeros((len(owners), 3, 3))
    cells[:, 0, 0] = 1
    cells[:, 1, 0], cells[:, 1, 1] = cosines[:, 2], sines[:, 2]
    cells[:, 2, 0], cells[:, 2, 1], cells[:, 2, 2] = cosines[:, 1], y, z
    cells *= lengths[:, :, None]
    allowed = tolerances.stol * unit
    rows, shifts = _placements(coords, other, within)
    step = max(1, 4 * _SMALL // (3 * len(other.coords) ** 2))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        apart, near = _differences(coords[some], other, shifts[start : start + step], within[some])
        whole = np.all(np.any(near, axis=2), axis=1)
        if not whole.any():
            continue
        some = some[whole]
        fit = _fits(
            apart[whole], near[whole], cells[some], within[some], allowed[some], owners[some], other
        )
        if fit is not None:
            return fit
    return None


@dataclass(frozen=True)
class _Bases:
    # Bases of known lattices that resemble another cell, those of the first crystal first and of
    # them the most alike: the crystal, integer matrices of determinant 1 or -1, lengths and angles
    # (degrees).
    owners: Indices
    scales: Array
    lengths: Array
    angles: Array

    def part(self, rows: slice | Indices) -> _Bases:
        return _Bases(self.owners[rows], self.scales[rows], self.lengths[rows], self.angles[rows])


def _own_basis(known: Laid, other: Laid, tolerances: Tolerances) -> _Bases | None:
    # The cell of the known crystal as it is, and inverted, if it resembles the other: of nearly
    # equal crystals the reduced cells are nearly equal, and no other basis need be looked for.
    ratios = known.lengths / other.lengths
    if ratios.max() >= 1 + tolerances.ltol or ratios.min() <= 1 / (1 + tolerances.ltol):
        return None
    if np.abs(known.angles - other.angles).max() > tolerances.angle_tol:
        return None
    return _Bases(
        np.zeros(2, dtype=np.intp),
        np.array([np.eye(3), -np.eye(3)]),
        np.array([known.lengths] * 2),
        np.array([known.angles] * 2),
    )


def _bases(known: Sequence[Laid], other: Laid, tolerances: Tolerances) -> _Bases | None:
    # Lists of vectors are laid side by side, the short ones filled up with NaN, which is within
    # no limits.
    shortest = other.lengths / (1 + tolerances.ltol)
    longest = other.lengths * (1 + tolerances.ltol)
    lowest = np.cos(np.radians(np.minimum(other.angles + tolerances.angle_tol, 180.0)))
    highest = np.cos(np.radians(np.maximum(other.angles - tolerances.angle_tol, 0.0)))
    listed = [crystal.vectors(float(longest.max())) for crystal in known]
    whole, directions, lengths = (np.concatenate(part) for part in zip(*listed, strict=True))
    directions = np.concatenate([directions, np.full((1, 3), np.nan)])
    owners = np.repeat(np.arange(len(known)), [len(part[2]) for part in listed])
    a, b, c = (
        _table(np.flatnonzero((lengths > low) & (lengths < high)), owners, len(known), len(lengths))
        for low, high in zip(shortest, longest, strict=True)
    )
    gamma = directions[a] @ directions[b].transpose(0, 2, 1)
    n, i, j = np.nonzero((gamma >= lowest[2]) & (gamma <= highest[2]))
    if not len(n):
        return None
    alpha = directions[b] @ directions[c].transpose(0, 2, 1)
    beta = directions[a] @ directions[c].transpose(0, 2, 1)
    alpha_fits = (alpha >= lowest[0]) & (alpha <= highest[0])
    beta_fits = (beta >= lowest[1]) & (beta <= highest[1])
    step = max(1, _LARGEST // c.shape[1])
    found = [
        (pair + first, k)
        for first in range(0, len(n), step)
        for pair, k in [
            np.nonzero(
                alpha_fits[n[first : first + step], j[first : first + step]]
                & beta_fits[n[first : first + step], i[first : first + step]]
            )
        ]
    ]
    pair, k = (np.concatenate(part) for part in zip(*found, strict=True))
    n, i, j = n[pair], i[pair], j[pair]
    chosen = np.stack([a[n, i], b[n, j], c[n, k]], axis=1)
    scales = whole[chosen]
    proper = np.abs(np.abs(_determinants(scales)) - 1) < 0.5
    if not proper.any():
        return None
    n, i, j, k = n[proper], i[proper], j[proper], k[proper]
    cosines = np.stack([alpha[n, j, k], beta[n, i, k], gamma[n, i, j]], axis=1)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    found_lengths = lengths[chosen[proper]]
    unlike = np.abs(found_lengths / other.lengths - 1) + np.abs(angles - other.angles) / 25
    order = np.lexsort((unlike.sum(axis=1), n))
    return _Bases(n, scales[proper], found_lengths, angles).part(order)


def _table(chosen: Indices, owners: Indices, rows: int, filling: int) -> Indices:
    # Indices by owner, one row for each, filled up.
    counts = np.bincount(owners[chosen], minlength=rows)
    table = np.full((rows, max(1, int(counts.max()))), filling)
    table[np.arange(table.shape[1]) < counts[:, None]] = chosen
    return table


def _placements(coords: Array, other: Laid, within: Array) -> tuple[Indices, Array]:
    # Mappings and translations of the other crystal that may bring each of its sites near a site
    # of its element: rows of the mappings, shape (p,), and fractional translations, (p, 3). Sites
    # are looked at one by one until few are left.
    rarest = other.groups[0]
    anchor = other.coords[rarest.start]
    shifts = (coords[:, rarest] - anchor).reshape(-1, 3)
    rows = np.repeat(np.arange(len(coords)), rarest.stop - rarest.start)
    sites = [(site, group) for group in other.groups for site in range(group.start, group.stop)]
    for site, group in sites[1:]:
        if len(rows) * coords[0].size * len(sites) <= _SMALL:
            break
        moved = coords[rows, group] - (other.coords[site] + shifts)[:, None]
        moved -= np.round(moved)
        near = (np.abs(moved) <= within[rows, None]).all(axis=2).any(axis=1)
        rows, shifts = rows[near], shifts[near]
        if not len(rows):
            break
    return rows, shifts


def _differences(
    coords: Array, other: Laid, shifts: Array, within: Array
) -> tuple[Array, NDArray[np.bool_]]:
    # Of each site of the other to each site of its element, in fractions of the cell, shape
    # (placements, sites of the other, sites, 3), and whether they are small.
    apart = coords[:, None] - (other.coords + shifts[:, None])[:, :, None]
    apart -= np.round(apart)
    near = (np.abs(apart) <= within[:, None, None]).all(axis=3)
    return apart, near & other.alike


def _fits(
    apart: Array,
    near: NDArray[np.bool_],
    cells: Array,
    within: Array,
    allowed: Array,
    owners: Indices,
    other: Laid,
) -> int | None:
    # The first owner one of whose placements allows an assignment of sites that leaves none
    # further away than allowed, after the best shift.
    steps = apart @ cells[:, None]
    if within.max() >= 0.5:  # a box that holds several images of a site
        for place, cell in enumerate(cells):
            steps[place] = _shortest(apart[place], cell)
        near = np.broadcast_to(other.alike, near.shape)
    cost = np.where(near, (steps**2).sum(axis=3), _FORBIDDEN)
    # Where each site is nearest to a site of its own, no assignment is better.
    nearest = cost.argmin(axis=2)
    certain = (np.sort(nearest, axis=1) == np.arange(nearest.shape[1])).all(axis=1)
    close = _close(steps, near, nearest, allowed)
    fit = np.flatnonzero(certain & close)
    owner = int(owners[fit[0]]) if len(fit) else None
    possible = np.all(np.any(near, axis=1) & np.any(near, axis=2), axis=1)
    for place in np.flatnonzero(possible & ~certain).tolist():
        if owner is not None and owners[place] >= owner:
            break
        one = slice(place, place + 1)
        assigned = linear_sum_assignment(cost[place])[1][None]
        if _close(steps[one], near[one], assigned, allowed[one])[0]:
            return int(owners[place])
    return owner


def _close(
    steps: Array, near: NDArray[np.bool_], chosen: Indices, allowed: Array
) -> NDArray[np.bool_]:
    places, sites = np.arange(len(steps))[:, None], np.arange(steps.shape[1])
    taken = steps[places, sites, chosen]
    taken = taken - taken.mean(axis=1, keepdims=True)
    within = (taken**2).sum(axis=2).max(axis=1) < allowed**2
    return np.asarray(within & near[places, sites, chosen].all(axis=1))


def _shortest(apart: Array, cell: Array) -> Array:
    # The shortest of the images of each difference (fractional), Cartesian.
    reduced, change = moyopy.minkowski_reduce(cell.tolist())
    inside = apart @ np.linalg.inv(np.array(change).T)
    inside -= np.round(inside)
    images = (inside[:, :, None] + _IMAGES) @ np.array(reduced)
    nearest = (images**2).sum(axis=3).argmin(axis=2)
    return np.take_along_axis(images, nearest[..., None, None], axis=2)[:, :, 0]


def _inverse(scales: Array) -> Array:
    # Of integer matrices of determinant 1 or -1, exactly.
    a, b, c = scales[:, 0], scales[:, 1], scales[:, 2]
    columns = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=2)
    return columns * np.round(_determinants(scales))[:, None, None]


def _determinants(scales: Array) -> Array:
    return np.asarray((scales[:, 0] * _cross(scales[:, 1], scales[:, 2])).sum(axis=1))


def _cross(first: Array, second: Array) -> Array:
    return first[:, [1, 2, 0]] * second[:, [2, 0, 1]] - first[:, [2, 0, 1]] * second[:, [1, 2, 0]]
