"""Points with several goals, larger is better: dominance, and the volume that a set dominates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_GOALS = 3
"""Goals for which volumes are exact and quick."""

_PIECE = 4_000_000


def dominators(points: Array, feasible: Mask | None = None) -> NDArray[np.int64]:
    """Return by how many points each one is dominated, shape (n,); 0 on the Pareto front.

    A point dominates another if it is nowhere worse and somewhere better (rank of Fonseca and
    Fleming, 1993). A feasible point dominates every infeasible one, and an infeasible one none that
    is feasible (Deb, 2000).

    Parameters
    ----------
    points
        Finite, shape (n, m).
    feasible
        Shape (n,); all of them by default.
    """
    if feasible is None or feasible.all():
        return _dominators(points)
    counts = np.empty(len(points), dtype=np.int64)
    counts[feasible] = _dominators(points[feasible])
    counts[~feasible] = _dominators(points[~feasible]) + feasible.sum()
    return counts


def is_on_front(points: Array) -> Mask:
    """Return which points no other dominates, shape (n,); equal points are all on the front."""
    on_front = np.ones(len(points), dtype=bool)
    for row in np.lexsort(points.T)[::-1]:
        if on_front[row]:
            worse = (points <= points[row]).all(axis=1) & (points < points[row]).any(axis=1)
            on_front &= ~worse
    return on_front


def reference_point(points: Array) -> Array:
    """Return the point from which volumes are measured where the user names none, shape (m,).

    It is the worst value of each goal on the Pareto front, less a tenth of the front's range
    (Ishibuchi et al., Evol. Comput. 26, 411, 2018). A goal that does not vary there takes the range
    of all points, and at last its own size.

    Parameters
    ----------
    points
        At least one, finite, shape (n, m).
    """
    front = points[is_on_front(points)]
    widths = np.ptp(front, axis=0)
    for other in (np.ptp(points, axis=0), np.abs(front).max(axis=0), np.ones(points.shape[1])):
        widths = np.where(widths > 0.0, widths, other)
    return np.asarray(front.min(axis=0) - 0.1 * widths)


def hypervolume(points: Array, reference: Array) -> float:
    """Return the volume between a reference point and the points that exceed it, exactly.

    Parameters
    ----------
    points
        Shape (n, m), for two or three goals.
    reference
        Shape (m,).
    """
    above = points[(points > reference).all(axis=1)]
    if not len(above):
        return 0.0
    if points.shape[1] == 2:
        return _area(above, reference)
    ordered = above[np.argsort(-above[:, 2], kind="stable")]
    floors = np.append(ordered[1:, 2], reference[2])
    volume = 0.0
    for last, (point, floor) in enumerate(zip(ordered, floors, strict=True), 1):
        if point[2] > floor:
            volume += (point[2] - floor) * _area(ordered[:last, :2], reference[:2])
    return float(volume)


def free_boxes(front: Array, reference: Array) -> tuple[Array, Array]:
    """Cut the space above a reference point that no point of a front dominates into boxes.

    Boxes do not overlap. They are open to infinity where nothing lies beyond; a front of n points
    has at most n + 1 of them for two goals, 2 n + 1 for three (the sweep of Yang et al., J. Glob.
    Optim. 75, 3, 2019).

    Returns
    -------
    lower, upper
        Corners, each of shape (k, m).
    """
    above = front[(front > reference).all(axis=1)]
    if front.shape[1] == 2:  # a third goal in which nothing differs
        lower, upper = free_boxes(
            np.column_stack([above, np.ones(len(above))]), np.append(reference, 0.0)
        )
        flat = lower[:, 2] == 0.0
        return lower[flat, :2], upper[flat, :2]
    boxes: list[tuple[float, ...]] = []
    # Strips of the first goal, in its order: from, to, dominated up to, open from (third goal).
    strips = [(float(reference[0]), np.inf, float(reference[1]), np.inf)]
    for x, y, z in above[np.lexsort(above.T)][::-1].tolist():
        kept: list[tuple[float, float, float, float]] = []
        start = None
        for left, right, floor, top in strips:
            if left >= x or floor >= y:
                if start is not None and left >= x:
                    kept.append((start, x, y, z))
                    start = None
                kept.append((left, right, floor, top))
                continue
            end = min(right, x)
            if top > z:
                boxes.append((left, floor, z, end, np.inf, top))
            start = left if start is None else start
            if right > x:
                kept += [(start, x, y, z), (x, right, floor, top)]
                start = None
        if start is not None:
            kept.append((start, x, y, z))
        strips = kept
    bottom = float(reference[2])
    boxes += [(left, floor, bottom, right, np.inf, top) for left, right, floor, top in strips]
    corners = np.array(boxes)
    return corners[:, :3], corners[:, 3:]


def gained(points: Array, lower: Array, upper: Array) -> Array:
    """Return the volume that each point would add, shape (n,).

    Parameters
    ----------
    points
        Shape (n, m).
    lower, upper
        Corners of the free boxes, as `free_boxes` returns them.
    """
    volumes = np.empty(len(points))
    step = max(_PIECE // max(lower.size, 1), 1)
    for start in range(0, len(points), step):
        own = points[start : start + step, None]
        sides = np.maximum(np.minimum(own, upper) - lower, 0.0)
        volumes[start : start + step] = sides.prod(axis=2).sum(axis=1)
    return volumes


def _dominators(points: Array) -> NDArray[np.int64]:
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    _, of, twins = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    counts = -twins[of.ravel()].astype(np.int64)
    step = max(_PIECE // len(points), 1)
    for start in range(0, len(points), step):
        piece = slice(start, start + step)
        reaches = np.ones((len(points[piece]), len(points)), dtype=bool)
        for goal in points.T:
            reaches &= goal >= goal[piece, None]
        counts[piece] += reaches.sum(axis=1)
    return counts


def _area(points: Array, reference: Array) -> float:
    area, height = 0.0, float(reference[1])
    for x, y in points[np.lexsort((points[:, 1], points[:, 0]))[::-1]]:
        if y > height:
            area += (x - float(reference[0])) * (y - height)
            height = y
    return float(area)
