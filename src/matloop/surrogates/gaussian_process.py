"""Gaussian process on standardised descriptors: exact, small, and the same on every run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]

_LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # in units of the root of the number of features
_NOISES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # variance of the noise relative to the signal
_TUNING_ROWS = 400
_CLIP = 4.0


@dataclass(frozen=True)
class Scaler:
    """Standardise features, drop those that never change, and clip what lies far outside.

    Attributes
    ----------
    mean, width
        Of each kept feature, shape (k,).
    kept
        Indices of the features that vary, shape (k,).
    """

    mean: Array
    width: Array
    kept: NDArray[np.int64]

    @classmethod
    def fit(cls, features: Array) -> Scaler:
        """Return the scaler of a table of shape (n, d)."""
        width = features.std(axis=0)
        kept = np.flatnonzero(width > 1e-6 * (1.0 + np.abs(features).max(axis=0)))
        return cls(features.mean(axis=0)[kept], width[kept], kept)

    def transform(self, features: Array) -> Array:
        """Return scaled features, shape (n, k); distances in it are per root of k."""
        scaled = (features[:, self.kept] - self.mean) / self.width
        return np.asarray(np.clip(scaled, -_CLIP, _CLIP) / np.sqrt(max(len(self.kept), 1)))


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted Gaussian process with a Matérn 3/2 kernel of one length.

    Length and noise maximise the marginal likelihood on a grid, the signal variance follows in
    closed form (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter 5).

    Attributes
    ----------
    length
        Length of the kernel, in units of the scaled distance.
    noise
        Noise variance relative to the signal variance.
    variance
        Signal variance, in squared units of the target.
    """

    length: float
    noise: float
    variance: float
    _scaler: Scaler
    _rows: Array
    _factor: Array
    _weights: Array
    _mean: float

    @classmethod
    def fit(cls, features: Array, target: Array, rng: np.random.Generator) -> GaussianProcess:
        """Fit to features of shape (n, d) and a target of shape (n,)."""
        scaler = Scaler.fit(features)
        rows = scaler.transform(features)
        subset = np.arange(len(rows))
        if len(rows) > _TUNING_ROWS:
            subset = np.sort(rng.choice(len(rows), _TUNING_ROWS, replace=False))
        length, noise = _most_likely(rows[subset], target[subset])
        mean = float(target.mean())
        matrix = _matern(rows, rows, length)
        matrix[np.diag_indices_from(matrix)] += noise
        factor = cholesky(matrix, lower=True)
        weights = cho_solve((factor, True), target - mean)
        variance = max(float((target - mean) @ weights) / len(target), 1e-12)
        return cls(length, noise, variance, scaler, rows, factor, weights, mean)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of new results, noise included, each (m,)."""
        cross = _matern(self._scaler.transform(features), self._rows, self.length)
        mean = self._mean + cross @ self._weights
        explained = solve_triangular(self._factor, cross.T, lower=True)
        left = np.maximum(1.0 - np.sum(explained**2, axis=0), 0.0)
        return mean, np.sqrt(self.variance * (left + self.noise))

    def correlation(self, features: Array) -> Array:
        """Return how new results hang together given those known, shape (m, m); 1 with itself.

        Noise belongs to each result alone.
        """
        rows = self._scaler.transform(features)
        explained = solve_triangular(
            self._factor, _matern(rows, self._rows, self.length).T, lower=True
        )
        covariance = _matern(rows, rows, self.length) - explained.T @ explained
        covariance[np.diag_indices_from(covariance)] += self.noise
        width = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
        found = np.clip(covariance / np.outer(width, width), -1.0, 1.0)
        np.fill_diagonal(found, 1.0)
        return np.asarray(found)


def _matern(first: Array, second: Array, length: float) -> Array:
    scaled = cdist(first, second) * (np.sqrt(3.0) / length)
    return np.asarray((1.0 + scaled) * np.exp(-scaled))


def _most_likely(rows: Array, target: Array) -> tuple[float, float]:
    """Return length and noise of highest marginal likelihood; one eigenbasis serves all noises."""
    centred = target - target.mean()
    best = (-np.inf, _LENGTHS[-1], _NOISES[-1])
    spectra = {}
    for length in _LENGTHS:
        values, vectors = np.linalg.eigh(_matern(rows, rows, length))
        spectra[length] = np.maximum(values, 0.0), (vectors.T @ centred) ** 2
    for length, noise in product(_LENGTHS, _NOISES):
        values, power = spectra[length]
        variance = max(float(np.mean(power / (values + noise))), 1e-12)
        likelihood = -0.5 * float(len(rows) * np.log(variance) + np.sum(np.log(values + noise)))
        if likelihood > best[0]:
            best = (likelihood, length, noise)
    return best[1], best[2]
