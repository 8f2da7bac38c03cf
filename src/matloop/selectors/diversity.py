"""Choose a batch greedily: good ones first, but not one crystal, or one formula, many times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure
from scipy.spatial.distance import pdist

from matloop.surrogates.gaussian_process import Scaler
from matloop.surrogates.representations import Representation, represent

Array = NDArray[np.float64]
Repulsion = Literal["nearest", "determinantal"]

_TWIN = 1e-6  # variance left to a perfect twin of a chosen row


def batch_features(
    structures: Sequence[Structure],
    representation: Representation = "crystal",
    checkpoint: str = "",
) -> Array:
    """Return descriptors scaled within the batch, shape (n, k).

    A crystal without a descriptor gets infinities: it is like no other.
    """
    features, failures = represent(representation, structures, checkpoint)
    described = np.array([i for i in range(len(structures)) if i not in failures], dtype=int)
    if not len(described):
        return np.full((len(structures), 1), np.inf)
    scaler = Scaler.fit(features[described])
    scaled = np.full((len(structures), max(len(scaler.kept), 1)), np.inf)
    scaled[described] = scaler.transform(features[described]) if len(scaler.kept) else 0.0
    return scaled


def spread_out(
    scores: Array,
    features: Array,
    groups: Sequence[Sequence[str]],
    caps: Sequence[Mapping[str, int]],
    count: int,
    repulsion: float,
    taken: Sequence[int] = (),
    kind: Repulsion = "nearest",
    rescored: Callable[[int], Array] | None = None,
) -> list[int]:
    """Choose `count` rows greedily by score less what those already chosen take from it.

    The similarity of two crystals is ``exp(-d^2 / 2 h^2)`` of their distance `d` in `features`,
    with `h` a fifth of the batch's median distance: only near twins repel each other. Rows whose
    group is full wait until all others are chosen.

    By ``nearest``, the similarity to the nearest chosen row is taken off. By ``determinantal``,
    half the logarithm of the row's variance given the chosen ones is added, the greedy maximum of a
    determinantal point process (Chen, Zhang and Zhou, NeurIPS 2018): several chosen rows that are a
    little similar add up.

    Parameters
    ----------
    scores
        Larger is better, shape (n,); minus infinity is chosen last.
    features
        Scaled descriptors, shape (n, k).
    groups
        Labels of each row, one sequence of length n per kind of group (formula, generator).
    caps
        Most rows of each label, per kind of group.
    count
        How many to choose beyond `taken`.
    repulsion
        Score, in standard deviations of the batch, that a perfect twin of a chosen row loses.
    taken
        Rows chosen before.
    kind
        How rows repel each other.
    rescored
        Returns the scores of all rows once one more is chosen, where they depend on it.

    Returns
    -------
    chosen
        Row numbers, in the order of choice.
    """
    level = _standardised(scores)
    width = _median_distance(features) / 5.0
    loss = _Nearest(features, width) if kind == "nearest" else _Determinantal(features, width)
    counters = [Counter(labels[row] for row in taken) for labels in groups]
    free = np.ones(len(scores), dtype=bool)
    for row in taken:
        free[row] = False
        loss.choose(row)
        level = level if rescored is None else _standardised(rescored(row), scores)
    chosen: list[int] = []
    while len(chosen) < count and free.any():
        allowed = free.copy()
        for labels, counter, cap in zip(groups, counters, caps, strict=True):
            full = {label for label, number in counter.items() if number >= cap[label]}
            allowed &= np.array([label not in full for label in labels])
        pool = np.flatnonzero(allowed if allowed.any() else free)
        row = int(pool[np.argmax(level[pool] - repulsion * loss.of_rows[pool])])
        chosen.append(row)
        free[row] = False
        loss.choose(row)
        level = level if rescored is None else _standardised(rescored(row), scores)
        for labels, counter in zip(groups, counters, strict=True):
            counter[labels[row]] += 1
    return chosen


class _Nearest:
    """What rows lose by their likeness to the nearest chosen one, shape (n,)."""

    def __init__(self, features: Array, width: float) -> None:
        self._features, self._width = features, width
        self.of_rows: Array = np.zeros(len(features))

    def choose(self, row: int) -> None:
        likeness = _likeness(self._features, row, self._width)
        self.of_rows = np.maximum(self.of_rows, likeness)


class _Determinantal:
    """What rows lose by the variance that the chosen ones explain: a Cholesky factor that grows."""

    def __init__(self, features: Array, width: float) -> None:
        self._features, self._width = features, width
        self._left: Array = np.ones(len(features))
        self._factors: list[Array] = []
        self.of_rows: Array = np.zeros(len(features))

    def choose(self, row: int) -> None:
        likeness = _likeness(self._features, row, self._width)
        explained = sum((factor[row] * factor for factor in self._factors), np.zeros(len(likeness)))
        factor = (likeness - explained) / np.sqrt(self._left[row])
        self._factors.append(factor)
        self._left = np.maximum(self._left - factor**2, _TWIN)
        self.of_rows = -0.5 * np.log(self._left)


def _standardised(scores: Array, by: Array | None = None) -> Array:
    """Return scores in standard deviations of the batch; what is not finite comes last.

    The mean and the deviation are those of `by`, the scores themselves by default.
    """
    finite = np.isfinite(scores if by is None else by)
    if not finite.any():
        return np.zeros(len(scores))
    known = (scores if by is None else by)[finite]
    width = float(known.std()) or 1.0
    level = (scores - known.mean()) / width
    return np.asarray(np.where(finite, level, -1e6))


def _median_distance(features: Array) -> float:
    """Return the median distance over at most a few hundred evenly spaced rows."""
    rows = features[np.isfinite(features).all(axis=1)]
    rows = rows[:: max(len(rows) // 300, 1)]
    if len(rows) < 2:
        return 1.0
    return float(np.median(pdist(rows))) or 1.0


def _likeness(features: Array, row: int, width: float) -> Array:
    if not np.isfinite(features[row]).all():
        return np.zeros(len(features))
    squared = np.sum((features - features[row]) ** 2, axis=1)
    return np.asarray(np.exp(-squared / (2.0 * width**2)))
