"""Two kinds of regressors in one ensemble, and the table that it is refitted from."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.ensemble import ExtraTreesRegressor
from threadpoolctl import threadpool_limits

from matloop.errors import MatloopError
from matloop.surrogates.calibration import Residuals
from matloop.surrogates.descriptors import FEATURES
from matloop.surrogates.gaussian_process import GaussianProcess, Scaler

Array = NDArray[np.float64]

MEDIA_TYPE = "application/x-npz"
_FORMAT = 1
_HERMITE = 7
_FARTHEST = 2.5  # compressed; six widths


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

    trees: int = 100
    max_features: float = 0.4
    process_rows: int = 2000


@dataclass(frozen=True)
class Prediction:
    """Predicted means and standard deviations, each of shape (n,), in the target's unit."""

    mean: Array
    spread: Array


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
    """

    _compression: Compression
    _trees: ExtraTreesRegressor
    _process: GaussianProcess
    _least: float

    @classmethod
    def fit(cls, features: Array, target: Array, settings: Settings, seed: int) -> Ensemble:
        """Fit to features of shape (n, d) and a target of shape (n,), both finite.

        One thread: sums in another order would give other bits, and the matrices are small.
        """
        with threadpool_limits(1):
            return cls._fit(features, target, settings, seed)

    @classmethod
    def _fit(cls, features: Array, target: Array, settings: Settings, seed: int) -> Ensemble:
        rng = np.random.default_rng(seed)
        compression = Compression.fit(target)
        compressed = compression.forward(target)
        trees = ExtraTreesRegressor(
            n_estimators=settings.trees,
            max_features=settings.max_features,
            random_state=int(rng.integers(2**31)),
            n_jobs=1,
        ).fit(features, compressed)
        rows = np.arange(len(target))
        if len(rows) > settings.process_rows:
            rows = np.sort(rng.choice(len(rows), settings.process_rows, replace=False))
        process = GaussianProcess.fit(features[rows], compressed[rows], rng)
        least = max(1e-3 * float(np.std(target)), 1e-9)
        return cls(compression, trees, process, least)

    def predict(self, features: Array) -> Prediction:
        """Predict for features of shape (m, d), on one thread."""
        with threadpool_limits(1):
            return self._predict(features)

    def _predict(self, features: Array) -> Prediction:
        single = features.astype(np.float32)
        votes = np.array([tree.predict(single) for tree in self._trees.estimators_])
        tree_mean, tree_spread = _moments(self._compression.back(votes))
        mean, spread = self._process.predict(features)
        nodes, weights = np.polynomial.hermite_e.hermegauss(_HERMITE)
        points = self._compression.back(mean + nodes[:, None] * spread)
        process_mean, process_spread = _moments(points, weights / weights.sum())
        variance = 0.5 * (tree_spread**2 + process_spread**2)
        variance += 0.25 * (tree_mean - process_mean) ** 2
        return Prediction(
            0.5 * (tree_mean + process_mean), np.maximum(np.sqrt(variance), self._least)
        )


@dataclass(frozen=True)
class TrainingTable:
    """Everything a surrogate is made of, as data: reading it executes no code.

    Attributes
    ----------
    features
        Descriptors, shape (n, d), rounded to 32 bits.
    targets
        Results by quantity, each of shape (n,); NaN where a crystal has none.
    units
        Unit of each quantity.
    factors
        Scale factor of each quantity's uncertainty.
    seed
        Seed of the fit.
    settings
        Hyperparameters.
    names
        Names of the features.
    """

    features: NDArray[np.float32]
    targets: Mapping[str, Array]
    units: Mapping[str, str]
    factors: Mapping[str, float]
    seed: int
    settings: Settings = field(default_factory=Settings)
    names: tuple[str, ...] = FEATURES

    def to_bytes(self) -> bytes:
        """Return the table as an npz archive; equal tables give equal bytes."""
        quantities = sorted(self.targets)
        header = {
            "format": _FORMAT,
            "quantities": quantities,
            "units": [self.units[name] for name in quantities],
            "factors": [self.factors[name] for name in quantities],
            "seed": self.seed,
            "settings": asdict(self.settings),
            "names": list(self.names),
        }
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            header=np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8),
            features=self.features,
            targets=np.array([self.targets[name] for name in quantities]),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> TrainingTable:
        """Return the table held by bytes.

        Raises
        ------
        MatloopError
            If the bytes are no table, or one whose descriptors this version does not compute.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                header = json.loads(archive["header"].tobytes())
                features, targets = archive["features"], archive["targets"]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise MatloopError(f"cannot read the surrogate: {error}") from error
        if header.get("format") != _FORMAT or tuple(header["names"]) != FEATURES:
            raise MatloopError(
                "the surrogate was trained on other descriptors than this version computes: "
                "let the campaign learn it again"
            )
        quantities = header["quantities"]
        return cls(
            features,
            dict(zip(quantities, targets, strict=True)),
            dict(zip(quantities, header["units"], strict=True)),
            dict(zip(quantities, header["factors"], strict=True)),
            header["seed"],
            Settings(**header["settings"]),
        )


class FittedSurrogate:
    """A surrogate ready to predict.

    Parameters
    ----------
    table
        What it is fitted to.
    """

    def __init__(self, table: TrainingTable) -> None:
        self.units = dict(table.units)
        self._factors = table.factors
        features = np.asarray(table.features, dtype=float)
        self._ensembles = {}
        for name in sorted(table.targets):
            known = np.isfinite(table.targets[name])
            self._ensembles[name] = Ensemble.fit(
                features[known], table.targets[name][known], table.settings, table.seed
            )
        self._scaler = Scaler.fit(features)
        self._rows = self._scaler.transform(features)
        apart = cdist(self._rows, self._rows)
        np.fill_diagonal(apart, np.inf)
        self._nearest = np.sort(apart.min(axis=1))

    def predict(self, features: Array) -> dict[str, Prediction]:
        """Return calibrated predictions by quantity for features of shape (m, d)."""
        rounded = features.astype(np.float32).astype(float)
        predictions = {}
        for name, ensemble in self._ensembles.items():
            raw = ensemble.predict(rounded)
            predictions[name] = Prediction(raw.mean, raw.spread * self._factors[name])
        return predictions

    def out_of_domain(self, features: Array) -> Array:
        """Return how far crystals lie from the training data, 0 to 1, shape (m,).

        It is the share of training crystals that lie closer to their own nearest neighbour than the
        crystal lies to its nearest training crystal: 0.5 is typical, 1 is farther out than all.
        """
        rounded = self._scaler.transform(features.astype(np.float32).astype(float))
        distance = cdist(rounded, self._rows).min(axis=1)
        return np.asarray(np.searchsorted(self._nearest, distance) / len(self._nearest))


def out_of_fold(
    features: Array, target: Array, settings: Settings, seed: int, n_folds: int
) -> tuple[Residuals, NDArray[np.int64]]:
    """Return predictions for every row by ensembles that did not see it, and the folds.

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
    """
    n = len(target)
    folds = np.random.default_rng(seed).permutation(n) % min(n_folds, n)
    mean, spread = np.empty(n), np.empty(n)
    for fold in range(min(n_folds, n)):
        inside = folds == fold
        ensemble = Ensemble.fit(features[~inside], target[~inside], settings, seed)
        prediction = ensemble.predict(features[inside])
        mean[inside], spread[inside] = prediction.mean, prediction.spread
    return Residuals(target, mean, spread), folds


def load(path: Path, digest: str) -> FittedSurrogate:
    """Return the surrogate fitted to the table in a file, once per process and content.

    Parameters
    ----------
    path
        Where the table lies.
    digest
        Sha256 of the file, the name under which the fit is remembered.
    """
    return _fitted(digest, path)


@lru_cache(maxsize=4)
def _fitted(digest: str, path: Path) -> FittedSurrogate:
    del digest
    return FittedSurrogate(TrainingTable.from_bytes(path.read_bytes()))


def _moments(values: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Return weighted mean and standard deviation over the first axis."""
    mean = np.average(values, axis=0, weights=weights)
    variance = np.average((values - mean) ** 2, axis=0, weights=weights)
    return mean, np.sqrt(variance)
