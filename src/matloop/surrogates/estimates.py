"""Cheap estimates of one quantity, combined into one that is as good as the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]

_OUTLIER = 5.0  # robust widths beyond which an error counts no more
_PRIOR_ROWS = 4.0  # rows that equal trust in all estimates is worth
_ALIKE = 0.5  # correlation of two estimates' errors assumed beforehand
_FLOOR = 1e-3  # share of the target's variance below which errors are not told apart
_STEPS = 20  # of reweighting; it has settled long before
_HOLD = 1e3  # weight of the condition that weights add up to one


@dataclass(frozen=True)
class Combination:
    """A weighted mean of estimates, each corrected by its median error.

    The weights are those of least expected squared error, given how large the errors of the
    estimates are and how they go together: of two that err alike the worse one adds nothing, and
    one that is much better than the others stands alone (generalised least squares: Aitken, Proc.
    R. Soc. Edinb. 55, 42, 1936). Positive weights that add up to one cannot extrapolate, which a
    linear regression on estimates as alike as these would do. Errors beyond five robust widths
    count as five. While rows are few, the errors are drawn towards equally large ones. Where
    estimates are missing, the weights are those of the others among themselves.

    Attributes
    ----------
    columns
        Where the estimates stand among the features.
    covariance
        Of the estimates' errors, in squared units of the target, shape (k, k).
    shifts
        What each estimate lacks, in the target's unit, shape (k,).
    """

    columns: tuple[int, ...]
    covariance: Array
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
        known = np.isfinite(errors)
        shifts = np.zeros(len(columns))
        left = np.zeros(errors.shape)
        for column, (values, has) in enumerate(zip(errors.T, known.T, strict=True)):
            if has.any():
                shifts[column] = np.median(values[has])
                centred = values[has] - shifts[column]
                limit = _OUTLIER * 1.4826 * float(np.median(np.abs(centred))) or np.inf
                left[has, column] = np.clip(centred, -limit, limit)
        counts = known.sum(axis=0).astype(float)
        both = known.T.astype(float) @ known
        products = left.T @ left
        typical = float(np.mean(np.diag(products)[counts > 0] / counts[counts > 0])) or 1.0
        k = len(columns)
        prior = typical * (_ALIKE + (1.0 - _ALIKE) * np.eye(k))
        covariance = (products + _PRIOR_ROWS * prior) / (both + _PRIOR_ROWS)
        floor = _FLOOR * float(np.var(target)) + np.finfo(float).tiny
        return cls(tuple(columns), covariance + floor * np.eye(k), shifts)

    @property
    def weights(self) -> Array:
        """Weight of each estimate where none is missing, shape (k,)."""
        return _best_weights(self.covariance)

    def mean(self, features: Array) -> Array:
        """Return the combined estimate, shape (m,); NaN where all are missing."""
        values = features[:, list(self.columns)] + self.shifts
        known = np.isfinite(values)
        result = np.full(len(values), np.nan)
        patterns, place = np.unique(known, axis=0, return_inverse=True)
        for number, has in enumerate(patterns):
            rows = place.ravel() == number
            if has.any():
                weights = _best_weights(self.covariance[np.ix_(has, has)])
                result[rows] = values[np.ix_(rows, has)] @ weights
        return result

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


def agreed(values: Array, tolerance: float) -> Array:
    """Return what estimates agree on while nothing is known of their errors.

    The most likely centre of errors with heavy tails: an estimate counts the less the farther it
    lies from the others (iteratively reweighted, with Cauchy's weights: Holland and Welsch,
    Commun. Stat. A 6, 813, 1977). It starts at the median.

    Parameters
    ----------
    values
        Shape (n, k); NaN where an estimate is missing.
    tolerance
        Deviation at which an estimate has half its weight, in the unit of the values.

    Returns
    -------
    centre
        Shape (n,); NaN where all are missing.
    """
    known = np.isfinite(values)
    some = known.any(axis=1)
    centre = np.full(len(values), np.nan)
    inside, values = known[some], np.where(known, values, 0.0)[some]
    start = np.nanmedian(np.where(inside, values, np.nan), axis=1)
    for _ in range(_STEPS):
        weights = inside / (1.0 + ((values - start[:, None]) / tolerance) ** 2)
        start = np.sum(weights * values, axis=1) / weights.sum(axis=1)
    centre[some] = start
    return centre


def _best_weights(covariance: Array) -> Array:
    """Return the weights, none negative and 1 in sum, of the smallest variance."""
    k = len(covariance)
    scaled = covariance / float(np.mean(np.diag(covariance)))
    # The variance is a sum of squares; a heavy last row holds the sum at 1.
    rows = np.vstack([np.linalg.cholesky(scaled).T, np.full((1, k), _HOLD)])
    weights, _ = nnls(rows, np.append(np.zeros(k), _HOLD))
    return np.asarray(weights / weights.sum())
