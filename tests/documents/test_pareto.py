"""Dominance and hypervolume, against counting."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from matloop.documents.pareto import (
    dominators,
    free_boxes,
    gained,
    hypervolume,
    is_on_front,
    reference_point,
)

SIDE = 8


def counted(points: np.ndarray, reference: float) -> int:
    """Return the number of unit cubes between the reference and the points."""
    goals = points.shape[1]
    cubes = np.array(list(product(range(int(reference), SIDE + 2), repeat=goals)))
    inside = np.zeros(len(cubes), dtype=bool)
    for point in points:
        inside |= (cubes + 1 <= point).all(axis=1)
    return int(inside.sum())


@pytest.mark.parametrize("goals", [2, 3])
def test_volumes_are_those_of_the_cubes_counted(goals: int) -> None:
    """Of 200 sets with repeats and points below the reference, whole and added volumes agree."""
    rng = np.random.default_rng(goals)
    reference = np.full(goals, 1.0)
    for _ in range(100):
        points = rng.integers(0, SIDE, size=(int(rng.integers(0, 12)), goals)).astype(float)
        volume = hypervolume(points, reference)
        assert volume == counted(points, 1.0)
        lower, upper = free_boxes(points, reference)
        assert len(lower) <= (goals - 1) * len(points) + 1
        others = rng.integers(0, SIDE + 2, size=(8, goals)).astype(float)
        for other, added in zip(others, gained(others, lower, upper), strict=True):
            assert volume + added == counted(np.vstack([points, other]), 1.0)


@pytest.mark.parametrize("goals", [2, 3])
def test_the_front_is_whom_nobody_dominates(goals: int) -> None:
    """Counts agree with the definition, equal points do not dominate each other."""
    points = np.random.default_rng(0).integers(0, 6, size=(80, goals)).astype(float)
    by_hand = [
        sum((other >= one).all() and (other > one).any() for other in points) for one in points
    ]
    assert dominators(points).tolist() == by_hand
    assert (is_on_front(points) == (dominators(points) == 0)).all()
    feasible = points[:, 0] < 3
    counts = dominators(points, feasible)
    assert counts[~feasible].min() >= feasible.sum() > counts[feasible].max()


def test_the_reference_point_lies_a_tenth_behind_the_front() -> None:
    """A front from (0, 10) to (5, 0) has it at (-0.5, -1); one point takes all points' range."""
    assert reference_point(np.array([[0.0, 10.0], [5.0, 0.0], [-9.0, -9.0]])).tolist() == [-0.5, -1]
    assert reference_point(np.array([[4.0, 4.0], [2.0, 0.0]])).tolist() == pytest.approx([3.8, 3.6])
    assert reference_point(np.array([[4.0, 0.0]])).tolist() == pytest.approx([3.6, -0.1])
