"""Honest error bars: scale predicted uncertainties on residuals of unseen crystals, and measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

Array = NDArray[np.float64]

LEVELS: tuple[int, ...] = (50, 80, 90, 95)
"""Coverages measured, in percent."""

_ONE_SIGMA = 0.6827
_LEVEL = 0.9
_FEWEST_FOR_LEVEL = 20
_KERNEL = 0.25  # standard deviations of the predicted values
_BROAD_ROWS = 15.0  # rows that all together are worth anywhere
_FAR = 30.0  # kernel widths at which nothing is left
_CHUNK = 1000  # rows weighed at once
_MOST_BINS = 10
_FEWEST_PER_BIN = 10


@dataclass(frozen=True)
class Residuals:
    """Predictions made without knowing the result, and the results.

    Attributes
    ----------
    target, mean, spread
        Result, prediction and predicted standard deviation, each of shape (n,), in one unit.
    """

    target: Array
    mean: Array
    spread: Array

    @property
    def scores(self) -> Array:
        """Absolute error in units of the predicted standard deviation, shape (n,)."""
        return np.abs(self.target - self.mean) / np.maximum(self.spread, np.finfo(float).tiny)

    def scaled(self, factor: Array | float) -> Residuals:
        """Return the same predictions with standard deviations times a factor."""
        return Residuals(self.target, self.mean, self.spread * factor)


def scale_factor(residuals: Residuals) -> float:
    """Return the factor that makes the 90 % interval hold 90 % of the results.

    The interval is the central one of a normal distribution, 1.645 standard deviations to either
    side. The factor is the split-conformal quantile of the scores with its small-sample correction
    (Vovk et al., Algorithmic Learning in a Random World, 2005; Lei et al., J. Am. Stat. Assoc.
    113, 1094, 2018). It needs no Gaussian errors. Below 20 residuals, where the 90 % quantile hangs
    on one or two of them, one standard deviation is made to hold 68.27 % instead. Without data the
    factor is 1.
    """
    scores = np.sort(residuals.scores)
    n = len(scores)
    if not n:
        return 1.0
    level = _LEVEL if n >= _FEWEST_FOR_LEVEL else _ONE_SIGMA
    width = float(norm.ppf(0.5 + level / 2)) if n >= _FEWEST_FOR_LEVEL else 1.0
    place = min((n + 1) * level, n)
    return float(np.interp(place, np.arange(1, n + 1), scores)) / width


@dataclass(frozen=True)
class LocalScale:
    """Scale factors that follow where predictions lie: localised conformal intervals.

    What was bought is mostly what promised most, and errors there say little about the rest. The
    factor at a predicted value is the conformal quantile of the scores of unseen rows, those of
    similar predicted value counting most: a normal kernel a quarter of a standard deviation wide,
    and all rows together fifteen rows more. Where few are near, the new row's own weight pushes the
    quantile up (conformal prediction under covariate shift: Tibshirani et al., NeurIPS 2019;
    localised: Guan, Biometrika 110, 33, 2023). The places given by lot are what is known far off.

    Attributes
    ----------
    mean
        Predicted values of unseen rows, shape (n,).
    scores
        Absolute errors in units of the predicted standard deviation, shape (n,).
    """

    mean: Array
    scores: Array

    @classmethod
    def of(cls, residuals: Residuals) -> LocalScale:
        """Return the scale that unseen predictions teach."""
        order = np.argsort(residuals.scores, kind="stable")
        return cls(residuals.mean[order], residuals.scores[order])

    def factors(self, mean: Array) -> Array:
        """Return the factor for standard deviations of predictions of shape (m,)."""
        n = len(self.scores)
        if not n:
            return np.ones(len(mean))
        level = _LEVEL if n >= _FEWEST_FOR_LEVEL else _ONE_SIGMA
        width = float(norm.ppf(0.5 + level / 2)) if n >= _FEWEST_FOR_LEVEL else 1.0
        near = max(_KERNEL * float(np.std(self.mean)), np.finfo(float).tiny)
        places = [
            np.sum(sums < level * (sums[:, -1:] + 1.0), axis=1)
            for rows in np.array_split(mean, len(mean) // _CHUNK + 1)
            for sums in [np.cumsum(self._weights(rows, near), axis=1)]
        ]
        found = self.scores[np.minimum(np.concatenate(places), n - 1)]
        return np.asarray(found / width)

    def _weights(self, mean: Array, near: float) -> Array:
        apart = np.minimum(np.abs(mean[:, None] - self.mean) / near, _FAR)
        return np.exp(-0.5 * apart**2) + _BROAD_ROWS / len(self.mean)


def cross_scaled(residuals: Residuals, folds: NDArray[np.int64]) -> Residuals:
    """Return predictions calibrated without their own fold, to judge the calibration by.

    Parameters
    ----------
    residuals
        Out-of-fold predictions, not calibrated.
    folds
        Fold of each row, shape (n,).
    """
    factors = np.ones(len(folds))
    for fold in np.unique(folds):
        others = folds != fold
        rest = Residuals(residuals.target[others], residuals.mean[others], residuals.spread[others])
        factors[~others] = LocalScale.of(rest).factors(residuals.mean[~others])
    return residuals.scaled(factors)


def tempered(factor: float, earlier: Residuals, weight: float = 20.0) -> float:
    """Return a scale factor corrected by predictions that were made before the results were known.

    Folds of one table are more alike than this iteration and the next, so out-of-fold residuals
    flatter. The correction is the factor that earlier, already calibrated predictions would have
    needed, as a geometric mean with 1 that counts as `weight` observations.

    Parameters
    ----------
    factor
        Scale factor from out-of-fold residuals.
    earlier
        Calibrated predictions of earlier iterations, with their results.
    weight
        Observations after which both count the same.
    """
    n = len(earlier.target)
    if not n:
        return factor
    needed = float(np.clip(scale_factor(earlier), 0.2, 5.0))
    return factor * float(np.exp(np.log(needed) * n / (n + weight)))


def quality(residuals: Residuals) -> dict[str, float]:
    """Return how good predictions and their uncertainties are, with their number.

    Returns
    -------
    metrics
        ``n``; ``mae``, ``rmse``, ``r2``, ``bias`` (predicted minus computed) of the predictions;
        ``rank_correlation`` of predicted and computed values (Spearman); ``coverage_50`` to
        ``coverage_95``, the share of results inside the central Gaussian interval of that level;
        ``sharpness``, the root-mean-square standard deviation; ``uncertainty_correlation``,
        Spearman's between standard deviation and absolute error; ``ence`` with its ``ence_bins``,
        the expected normalised calibration error (Levi et al., Sensors 22, 5540, 2022). What
        cannot be computed, such as a correlation of constants, is left out.
    """
    n = len(residuals.target)
    metrics: dict[str, float] = {"n": float(n)}
    if not n:
        return metrics
    error = residuals.mean - residuals.target
    metrics["mae"] = float(np.mean(np.abs(error)))
    metrics["rmse"] = float(np.sqrt(np.mean(error**2)))
    metrics["bias"] = float(np.mean(error))
    variance = float(np.var(residuals.target))
    if variance > 0:
        metrics["r2"] = 1.0 - float(np.mean(error**2)) / variance
    for level in LEVELS:
        width = float(norm.ppf(0.5 + level / 200.0))
        metrics[f"coverage_{level}"] = float(np.mean(residuals.scores <= width))
    metrics["sharpness"] = float(np.sqrt(np.mean(residuals.spread**2)))
    for name, first, second in (
        ("rank_correlation", residuals.mean, residuals.target),
        ("uncertainty_correlation", residuals.spread, np.abs(error)),
    ):
        if n > 2 and np.ptp(first) > 0 and np.ptp(second) > 0:
            metrics[name] = spearman(first, second)
    bins = min(_MOST_BINS, n // _FEWEST_PER_BIN)
    if bins:
        metrics["ence"] = _calibration_error(error, residuals.spread, bins)
        metrics["ence_bins"] = float(bins)
    return metrics


def spearman(first: Array, second: Array) -> float:
    """Return the rank correlation of two arrays of shape (n,)."""
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _calibration_error(error: Array, spread: Array, bins: int) -> float:
    order = np.argsort(spread, kind="stable")
    relative = []
    for rows in np.array_split(order, bins):
        predicted = np.sqrt(np.mean(spread[rows] ** 2))
        observed = np.sqrt(np.mean(error[rows] ** 2))
        relative.append(abs(predicted - observed) / max(predicted, np.finfo(float).tiny))
    return float(np.mean(relative))
