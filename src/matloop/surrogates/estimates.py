"""Cheap estimates of one quantity, combined into one that is as good as the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_OUTLIER = 5.0  # robust widths beyond which an error counts no more
_PRIOR_ROWS = 4.0  # rows that equal trust in all estimates is worth
_FLOOR = 1e-3  # share of the target's variance below which errors are not told apart


@dataclass(frozen=True)
class Combination:
    """A weighted mean of estimates, each corrected by its median error.

    The weight of an estimate is the inverse of its mean squared error, as for independent errors;
    errors beyond five robust widths count as five. While rows are few, the weights are drawn
    towards equal ones. Positive weights that add up to one cannot extrapolate, which a linear
    regression on estimates as alike as these would do.

    Attributes
    ----------
    columns
        Where the estimates stand among the features.
    weights
        Of each estimate, shape (k,).
    shifts
        What each estimate lacks, in the target's unit, shape (k,).
    """

    columns: tuple[int, ...]
    weights: Array
    shifts: Array

    @classmethod
    def fit(cls, features: Array, target: Array, columns: Sequence[int]) -> Combination:
        """Weigh estimates by their errors.

        Parameters
        ----------
        features
            Shape (n, d); a missing estimate is NaN.
        target
            Shape (n,).
        columns
            Which of the features are estimates of the target.
        """
        errors = target[:, None] - features[:, list(columns)]
        shifts, squares, counts = np.zeros(len(columns)), np.ones(len(columns)), []
        for column, values in enumerate(errors.T):
            known = values[np.isfinite(values)]
            counts.append(len(known))
            if len(known):
                shifts[column] = np.median(known)
                left = np.abs(known - shifts[column])
                limit = _OUTLIER * 1.4826 * float(np.median(left))
                squares[column] = np.mean(np.minimum(left, limit or np.inf) ** 2)
        number = np.array(counts, dtype=float)
        floor = _FLOOR * float(np.var(target)) + np.finfo(float).tiny
        typical = float(np.mean(squares[number > 0])) if (number > 0).any() else 1.0
        squares = (number * squares + _PRIOR_ROWS * typical) / (number + _PRIOR_ROWS) + floor
        weights = 1.0 / squares
        return cls(tuple(columns), weights / weights.sum(), shifts)

    def mean(self, features: Array) -> Array:
        """Return the combined estimate, shape (m,); NaN where all are missing."""
        values = features[:, list(self.columns)] + self.shifts
        weights = np.where(np.isfinite(values), self.weights, 0.0)
        total = weights.sum(axis=1)
        summed = np.sum(weights * np.where(np.isfinite(values), values, 0.0), axis=1)
        return np.where(total > 0, summed / np.where(total > 0, total, 1.0), np.nan)

    def spread_out(self, features: Array) -> Array:
        """Return features without gaps, and how each estimate deviates from the combined one.

        A missing estimate agrees with the combined one.

        Returns
        -------
        wider
            Shape (m, d + k).
        """
        columns = list(self.columns)
        mean = self.mean(features)
        mean = np.where(np.isfinite(mean), mean, 0.0)[:, None]
        shifted = features[:, columns] + self.shifts
        deviation = np.where(np.isfinite(shifted), shifted - mean, 0.0)
        whole = features.copy()
        whole[:, columns] = mean + deviation
        return np.hstack([whole, deviation])
