"""Two kinds of regressors in one ensemble, on top of cheap estimates where there are some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.tree import ExtraTreeRegressor
from threadpoolctl import threadpool_limits

from matloop.surrogates.calibration import Residuals
from matloop.surrogates.estimates import Combination
from matloop.surrogates.gaussian_process import GaussianProcess

Array = NDArray[np.float64]

_HERMITE = 7
_FARTHEST = 2.5  # compressed; six widths
_OUTLIER = 5.0  # robust widths beyond which an error counts no more
_DOUBT_ROWS = 30.0  # rows that doubt in a learned correction is worth


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of an ensemble.

    Attributes
    ----------
    trees
        Extremely randomised trees.
    max_features
        Share of the features tried at each split.
    process_rows
        Rows the Gaussian process sees at most; a random choice of a larger table.
    """

    trees: int = 50
    max_features: float = 0.4
    process_rows: int = 2000


@dataclass(frozen=True)
class Prediction:
    """What is predicted, each array of shape (n,), in the target's unit.

    Attributes
    ----------
    mean, spread
        Mean and standard deviation.
    base
        What the combination of estimates says alone; the mean where there are no estimates.
    """

    mean: Array
    spread: Array
    base: Array

    def trusted(self, share: float) -> Array:
        """Return the mean with so much of what was learned on top of the estimates, (n,)."""
        return self.base + share * (self.mean - self.base)


@dataclass(frozen=True)
class Unseen:
    """Predictions for rows by ensembles that did not see them.

    Attributes
    ----------
    residuals
        Predictions, not calibrated, and results.
    folds
        Fold of each row, shape (n,).
    trust
        How much of what is learned on top of estimates counts, 0 to 1.
    """

    residuals: Residuals
    folds: NDArray[np.int64]
    trust: float


@dataclass(frozen=True)
class Compression:
    """Target scale on which a few absurd results weigh little: asinh around the median.

    It is linear within two robust standard deviations, logarithmic beyond, and ends at twelve:
    a relaxation that ran away says "bad", not how bad.

    Attributes
    ----------
    centre, width
        Median, and twice the scaled median absolute deviation.
    low, high
        What may be predicted, compressed: the range seen, and one width more on either side.
    """

    centre: float
    width: float
    low: float
    high: float

    @classmethod
    def fit(cls, target: Array) -> Compression:
        """Return the compression of a target of shape (n,)."""
        centre = float(np.median(target))
        width = 2.0 * 1.4826 * float(np.median(np.abs(target - centre)))
        width = width or float(np.std(target)) or 1.0
        seen = cls(centre, width, 0.0, 0.0).forward(target)
        return cls(centre, width, float(seen.min()) - 1.0, float(seen.max()) + 1.0)

    def forward(self, target: Array) -> Array:
        """Return compressed targets."""
        compressed = np.arcsinh((target - self.centre) / self.width)
        return np.asarray(np.clip(compressed, -_FARTHEST, _FARTHEST))

    def back(self, compressed: Array) -> Array:
        """Return targets."""
        inside = np.clip(compressed, self.low, self.high)
        return np.asarray(self.centre + self.width * np.sinh(inside))


@dataclass(frozen=True)
class Ensemble:
    """Extremely randomised trees and a Gaussian process, equally weighted.

    Trees find thresholds and categories (Geurts et al., Mach. Learn. 63, 3, 2006); the process
    interpolates smoothly and knows distance. The spread is that of the mixture: what each kind says
    of its own uncertainty, and how far the two disagree. It is not calibrated.

    Where some features are cheap estimates of the target, both learn what their best combination
    lacks (delta learning: Ramakrishnan et al., J. Chem. Theory Comput. 11, 2087, 2015), from all
    features and from how far the estimates disagree. How much of that counts is found out on unseen
    rows, by `out_of_fold`.
    """

    _compression: Compression
    _trees: tuple[ExtraTreeRegressor, ...]
    _process: GaussianProcess
    _least: float
    _combination: Combination | None

    @classmethod
    def fit(
        cls,
        features: Array,
        target: Array,
        settings: Settings,
        seed: int,
        estimates: Sequence[int] = (),
    ) -> Ensemble:
        """Fit to features of shape (n, d) and a target of shape (n,).

        One thread: sums in another order would give other bits, and the matrices are small.

        Parameters
        ----------
        features
            Finite, but for estimates: one that is missing is NaN, and each row has at least one.
        target
            Finite.
        settings
            Hyperparameters.
        seed
            Seed of the fit.
        estimates
            Columns of `features` that are estimates of the target, in its unit.
        """
        with threadpool_limits(1):
            return cls._fit(features, target, settings, seed, estimates)

    @classmethod
    def _fit(
        cls,
        features: Array,
        target: Array,
        settings: Settings,
        seed: int,
        estimates: Sequence[int],
    ) -> Ensemble:
        rng = np.random.default_rng(seed)
        combination = None
        if estimates:
            combination = Combination.fit(features, target, estimates)
            target = target - combination.mean(features)
            features = combination.spread_out(features)
        compression = Compression.fit(target)
        compressed = compression.forward(target)
        single = np.ascontiguousarray(features, dtype=np.float32)
        with config_context(skip_parameter_validation=True):  # it costs as much as a small tree
            trees = tuple(
                ExtraTreeRegressor(max_features=settings.max_features, random_state=int(state)).fit(
                    single, compressed, check_input=False
                )
                for state in rng.integers(2**31, size=settings.trees)
            )
        rows = np.arange(len(target))
        if len(rows) > settings.process_rows:
            rows = np.sort(rng.choice(len(rows), settings.process_rows, replace=False))
        process = GaussianProcess.fit(features[rows], compressed[rows], rng)
        least = max(1e-3 * float(np.std(target)), 1e-9)
        return cls(compression, trees, process, least, combination)

    def predict(self, features: Array) -> Prediction:
        """Predict for features of shape (m, d), on one thread."""
        with threadpool_limits(1):
            return self._predict(features)

    def correlation(self, features: Array) -> Array:
        """Return the correlation of results at features of shape (m, d), shape (m, m).

        It is the Gaussian process's: trees have no say in how two crystals hang together.
        """
        with threadpool_limits(1):
            if self._combination is not None:
                features = self._combination.spread_out(features)
            return self._process.correlation(features)

    def _predict(self, features: Array) -> Prediction:
        base: Array | None = None
        if self._combination is not None:
            base = self._combination.mean(features)
            features = self._combination.spread_out(features)
        single = np.ascontiguousarray(features, dtype=np.float32)
        votes = np.array([tree.tree_.predict(single)[:, 0] for tree in self._trees])
        tree_mean, tree_spread = _moments(self._compression.back(votes))
        mean, spread = self._process.predict(features)
        nodes, weights = np.polynomial.hermite_e.hermegauss(_HERMITE)
        points = self._compression.back(mean + nodes[:, None] * spread)
        process_mean, process_spread = _moments(points, weights / weights.sum())
        variance = 0.5 * (tree_spread**2 + process_spread**2)
        variance += 0.25 * (tree_mean - process_mean) ** 2
        mean = 0.5 * (tree_mean + process_mean)
        spread = np.maximum(np.sqrt(variance), self._least)
        if base is None:
            return Prediction(mean, spread, mean)
        return Prediction(base + mean, spread, base)


def out_of_fold(
    features: Array,
    target: Array,
    settings: Settings,
    seed: int,
    n_folds: int,
    estimates: Sequence[int] = (),
) -> Unseen:
    """Return predictions for every row by ensembles that did not see it.

    These have half the trees: the spread of trees does not hang on their number.

    Parameters
    ----------
    features
        Shape (n, d).
    target
        Shape (n,).
    settings
        Hyperparameters.
    seed
        Seed of folds and fits.
    n_folds
        Number of folds; at most one per row.
    estimates
        Columns of `features` that are estimates of the target.
    """
    n = len(target)
    folds = np.random.default_rng(seed).permutation(n) % min(n_folds, n)
    fewer = replace(settings, trees=(settings.trees + 1) // 2)
    mean, spread, base = np.empty(n), np.empty(n), np.empty(n)
    for fold in range(min(n_folds, n)):
        inside = folds == fold
        ensemble = Ensemble.fit(features[~inside], target[~inside], fewer, seed, estimates)
        prediction = ensemble.predict(features[inside])
        mean[inside], spread[inside] = prediction.mean, prediction.spread
        base[inside] = prediction.base
    trust = trust_in(mean - base, target - base) if estimates else 1.0
    final = Prediction(mean, spread, base).trusted(trust)
    return Unseen(Residuals(target, final, spread), folds, trust)


def trust_in(learned: Array, lacking: Array) -> float:
    """Return the share of a learned correction that foretells best what estimates lack.

    The slope of a least-squares line through zero, between 0 and 1, drawn towards 0: corrections
    learned from few rows add more noise than they take away (stacking: Wolpert, Neural Networks 5,
    241, 1992). What is lacking beyond five robust widths counts as five.

    Parameters
    ----------
    learned
        Correction by ensembles that did not see the row, shape (n,).
    lacking
        What the combined estimates turned out to lack, shape (n,).
    """
    limit = _OUTLIER * 1.4826 * float(np.median(np.abs(lacking))) or np.inf
    held = np.clip(lacking, -limit, limit)
    squares = float(np.sum(learned**2)) * (1.0 + _DOUBT_ROWS / len(learned))
    return float(np.clip(np.sum(learned * held) / squares, 0.0, 1.0)) if squares > 0 else 0.0


def _moments(values: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Return weighted mean and standard deviation over the first axis."""
    mean = np.average(values, axis=0, weights=weights)
    variance = np.average((values - mean) ** 2, axis=0, weights=weights)
    return mean, np.sqrt(variance)
