"""Greedy choice of a diverse batch."""

import numpy as np
from pymatgen.core import Lattice, Structure

from matloop.selectors.diversity import batch_features, spread_out

LINE = np.array([[0.0], [0.001], [1.0], [1.001], [2.0], [3.0]])


def test_without_repulsion_the_best_are_taken():
    """Zero repulsion is plain ranking."""
    scores = np.array([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert spread_out(scores, LINE, (), (), 3, 0.0) == [0, 1, 2]


def test_twins_repel():
    """With repulsion the twin of the best waits for the next basin."""
    scores = np.array([0.6, 0.59, 0.4, 0.39, 0.2, 0.1])
    assert spread_out(scores, LINE, (), (), 2, 3.0) == [0, 2]


def test_those_already_taken_repel_and_count():
    """Rows taken before are not chosen again, push their twins away and fill their group."""
    scores = np.array([0.6, 0.59, 0.4, 0.39, 0.2, 0.1])
    assert spread_out(scores, LINE, (), (), 1, 3.0, taken=[0]) == [2]
    labels = [["A", "A", "A", "B", "B", "B"]]
    assert spread_out(scores, LINE, labels, [{"A": 1, "B": 1}], 1, 0.0, taken=[0]) == [3]


def test_a_full_group_waits_until_nothing_else_is_left():
    """One formula gets its two places, then others, and the rest of them only at the end."""
    scores = np.array([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    labels = [["A", "A", "A", "A", "B", "B"]]
    assert spread_out(scores, LINE, labels, [{"A": 2, "B": 2}], 5, 0.0) == [0, 1, 4, 5, 2]


def test_never_more_than_there_are():
    """Asking for ten of six gives six, each once."""
    chosen = spread_out(np.zeros(6), LINE, (), (), 10, 1.0)
    assert sorted(chosen) == [0, 1, 2, 3, 4, 5]


def test_unpredicted_rows_come_last():
    """Minus infinity loses against any finite score, twin or not."""
    scores = np.array([-np.inf, 0.1, 0.1, -np.inf, 0.1, 0.1])
    assert set(spread_out(scores, LINE, (), (), 4, 5.0)) == {1, 2, 4, 5}


def test_crystals_without_a_descriptor_are_like_no_other():
    """A NaN coordinate gives an infinite row, which neither repels nor breaks the rest."""
    good = Structure(Lattice.cubic(3.0), ["Na"], [[0, 0, 0]])
    bad = Structure(Lattice.cubic(3.0), ["Na"], [[np.nan, 0, 0]])
    other = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    features = batch_features([good, bad, good, other])
    assert np.isinf(features[1]).all()
    assert np.isfinite(features[[0, 2, 3]]).all()
    assert spread_out(np.array([1.0, 0.9, 1.0, 0.8]), features, (), (), 3, 5.0) == [0, 1, 3]
    assert batch_features([bad]).shape == (1, 1)


def test_determinantal_repulsion_adds_up():
    """Between two chosen rows, a little like each, a row loses more than to the nearest alone."""
    line = np.array([[0.0], [0.6], [1.2], [5.0], [7.0]])
    scores = np.array([0.9, 0.55, 0.8, 0.5, 0.1])
    chosen = spread_out(scores, line, (), (), 3, 2.0, kind="determinantal")
    assert chosen == [0, 2, 3]
    assert spread_out(scores, line, (), (), 3, 0.0, kind="determinantal") == [0, 2, 1]


def test_determinantal_choice_is_the_greedy_maximum_of_the_determinant():
    """Each step maximises the batch's quality times the determinant of its similarities."""
    rng = np.random.default_rng(3)
    points, scores = rng.normal(size=(12, 2)), rng.normal(size=12)
    chosen = spread_out(scores, points, (), (), 4, 1.0, kind="determinantal")
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
    width = np.median(gaps[np.triu_indices(12, 1)]) / 5.0
    kernel = np.exp(-(gaps**2) / (2 * width**2))
    quality = (scores - scores.mean()) / scores.std()
    expected: list[int] = []
    for _ in range(4):
        rest = [row for row in range(12) if row not in expected]
        values = [
            sum(quality[[*expected, row]])
            + 0.5 * np.linalg.slogdet(kernel[np.ix_([*expected, row], [*expected, row])])[1]
            for row in rest
        ]
        expected.append(rest[int(np.argmax(values))])
    assert chosen == expected
