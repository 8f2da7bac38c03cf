"""Correct distances to the hull of a cheap method to those of a dear one, with an uncertainty."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Element
from scipy.stats import norm, t

from matloop.errors import MatloopError

Array = NDArray[np.float64]

RESOURCE = "fidelity_correction"
"""Name of the artifact that holds a correction."""

MEDIA_TYPE = "application/json"

LEVEL = 0.9
"""Probability of the calibrated interval."""

FEATURES: tuple[str, ...] = (
    "e_above_hull",
    "electronegativity_mean",
    "electronegativity_spread",
    "period_mean",
    "largest_fraction",
    "elements",
)
"""What the difference may depend on: the cheap distance (eV/atom) and the composition."""

_FORMAT = 1
_Z90 = float(norm.ppf(0.5 + LEVEL / 2))
_FEWEST_FOR_SLOPES = 3 * len(FEATURES)
_SLOPES = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # variance of a slope relative to the noise
_PRIOR_WEIGHT = 3.0  # pairs that the prior uncertainty is worth
_CLIP = 3.0  # widths beyond which a feature says no more
_OUTLIER = 5.0  # robust widths beyond which a difference pulls no harder


@dataclass(frozen=True)
class Corrected:
    """Expected distances on the dear method's hull, and one standard deviation each, shape (n,)."""

    mean: Array
    spread: Array


@dataclass(frozen=True)
class Correction:
    """Difference of two methods: a mean, and slopes as far as the data support them.

    Bayesian linear regression with a flat prior on the mean and a common normal prior on the
    slopes of standardised features. Its width maximises the marginal likelihood; zero, the mean
    alone, is among the choices and the only one below 18 pairs (MacKay, Neural Comput. 4, 415,
    1992). Intervals are conformal, from leave-one-out residuals that are divided by the
    regression's own relative uncertainty (the jackknife: Barber et al., Ann. Stat. 49, 486, 2021).
    With fewer than 9 pairs a 90 % quantile does not exist: a t interval takes its place, whose
    variance starts at a prior worth 3 pairs.

    Attributes
    ----------
    count
        Pairs it was learned from.
    centre, width
        Of each feature, shape (k,).
    weights
        Mean and slopes (eV/atom per width), shape (k + 1,).
    inverse
        Inverse of the normal matrix, shape (k + 1, k + 1): where predictions are vague.
    factor
        Half width of the 90 % interval (eV/atom) where nothing is vague.
    """

    count: int
    centre: list[float]
    width: list[float]
    weights: list[float]
    inverse: list[list[float]]
    factor: float

    @classmethod
    def prior(cls, uncertainty: float) -> Correction:
        """Return the correction before anything is known: none, with an assumed uncertainty.

        Parameters
        ----------
        uncertainty
            Standard deviation of the difference (eV/atom).
        """
        size = len(FEATURES)
        nothing = np.zeros((size + 1, size + 1)).tolist()
        return cls(0, [0.0] * size, [1.0] * size, [0.0] * (size + 1), nothing, uncertainty * _Z90)

    @classmethod
    def fit(cls, features: Array, difference: Array, prior: float = 0.1) -> Correction:
        """Learn from pairs.

        Parameters
        ----------
        features
            As `features_of` returns them, shape (n, k), n at least 2.
        difference
            Dear minus cheap distance (eV/atom), shape (n,).
        prior
            Standard deviation of the difference assumed beforehand (eV/atom).
        """
        return _Regression.of(features, difference).correction(prior)

    def shift(self, features: Array) -> Corrected:
        """Return the expected difference (eV/atom) and its standard deviation, each (n,)."""
        design = _design(features, np.array(self.centre), np.array(self.width))
        vague = np.einsum("ij,jk,ik->i", design, np.array(self.inverse), design)
        half = self.factor * np.sqrt(1.0 + np.maximum(vague, 0.0))
        return Corrected(design @ np.array(self.weights), half / _Z90)

    def correct(self, compositions: Sequence[Composition], distances: Array) -> Corrected:
        """Return what the dear method is expected to find.

        Parameters
        ----------
        compositions
            Of each crystal.
        distances
            Distances of the cheap method (eV/atom), shape (n,).
        """
        shift = self.shift(features_of(compositions, distances))
        return Corrected(distances + shift.mean, shift.spread)

    def to_bytes(self) -> bytes:
        """Return the correction as JSON."""
        content = {"format": _FORMAT, "features": FEATURES, **asdict(self)}
        return json.dumps(content, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Correction:
        """Return a stored correction; nothing in it is executed.

        Raises
        ------
        MatloopError
            If it is none, or one of another version.
        """
        try:
            stored = json.loads(content)
            if stored.pop("format") != _FORMAT or tuple(stored.pop("features")) != FEATURES:
                raise MatloopError("the fidelity correction was written by another version")
            return cls(**stored)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MatloopError(f"this is no fidelity correction: {error}") from error


@dataclass(frozen=True)
class Unseen:
    """How the correction does on pairs it was not shown, each array of shape (n,).

    Attributes
    ----------
    error
        Expected minus found distance (eV/atom) with that pair left out.
    inside
        Whether the 90 % interval made of all other pairs holds it.
    """

    error: Array
    inside: NDArray[np.bool_]


def leave_one_out(features: Array, difference: Array, prior: float = 0.1) -> Unseen:
    """Return how well each pair is foretold by the others."""
    fit = _Regression.of(features, difference)
    inside = [
        fit.scores[row] <= _half_width(np.delete(fit.scores, row), prior)
        for row in range(len(difference))
    ]
    return Unseen(fit.unseen - difference, np.array(inside, dtype=bool))


def features_of(compositions: Sequence[Composition], distances: Array) -> Array:
    """Return the features of crystals, shape (n, k).

    Parameters
    ----------
    compositions
        Of each crystal.
    distances
        Distances of the cheap method (eV/atom), shape (n,).
    """
    rows = []
    for composition, distance in zip(compositions, distances, strict=True):
        fractions = composition.fractional_composition
        elements = [Element(str(element)) for element in fractions.elements]
        x = np.array([fractions[element] for element in elements])
        scale = [element.data.get("X") for element in elements]
        chi = np.array([float(value) if value is not None else 2.0 for value in scale])
        mean = float(x @ chi)
        spread = float(np.sqrt(x @ (chi - mean) ** 2))
        period = float(x @ np.array([float(element.row) for element in elements]))
        rows.append([float(distance), mean, spread, period, float(x.max()), float(len(x))])
    return np.array(rows, dtype=float).reshape(-1, len(FEATURES))


@lru_cache(maxsize=4)
def load(path: Path, sha256: str) -> Correction:
    """Return the correction in a file, read once per content."""
    del sha256
    return Correction.from_bytes(path.read_bytes())


@dataclass(frozen=True)
class _Regression:
    """A fitted line, with what each pair would have been foretold without itself."""

    centre: Array
    width: Array
    weights: Array
    inverse: Array
    unseen: Array
    scores: Array

    @classmethod
    def of(cls, features: Array, difference: Array) -> _Regression:
        centre = features.mean(axis=0)
        width: Array = features.std(axis=0)
        width = np.where(width > 1e-9 * (1.0 + np.abs(centre)), width, np.inf)
        design = _design(features, centre, width)
        target = _without_outliers(difference)
        choices = _SLOPES if len(target) >= _FEWEST_FOR_SLOPES else _SLOPES[:1]
        slope = max(choices, key=lambda choice: _likelihood(design, target, choice))
        penalty = np.full(design.shape[1], 1.0 / slope if slope else 1e12)
        penalty[0] = 0.0
        inverse: Array = np.linalg.inv(design.T @ design + np.diag(penalty)).astype(float)
        leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
        weights = inverse @ design.T @ target
        free = np.maximum(1.0 - leverage, 1e-6)
        unseen = (design @ weights - leverage * target) / free
        scores: Array = np.abs(difference - unseen) * np.sqrt(free)
        return cls(centre, width, weights, inverse, unseen, scores)

    def correction(self, prior: float) -> Correction:
        return Correction(
            count=len(self.scores),
            centre=self.centre.tolist(),
            width=np.where(np.isfinite(self.width), self.width, 1e12).tolist(),
            weights=self.weights.tolist(),
            inverse=self.inverse.tolist(),
            factor=_half_width(self.scores, prior),
        )


def _design(features: Array, centre: Array, width: Array) -> Array:
    scaled = np.clip((features - centre) / width, -_CLIP, _CLIP)
    return np.hstack([np.ones((len(features), 1)), scaled])


def _without_outliers(difference: Array) -> Array:
    """Return differences drawn in to within five robust widths of their median."""
    centre = float(np.median(difference))
    width = 1.4826 * float(np.median(np.abs(difference - centre))) or float(np.std(difference))
    return np.clip(difference, centre - _OUTLIER * width, centre + _OUTLIER * width)


def _likelihood(design: Array, target: Array, slope: float) -> float:
    """Return the log marginal likelihood of slopes of a width, the mean and noise integrated."""
    n = len(target)
    centred = target - target.mean()
    features = design[:, 1:] - design[:, 1:].mean(axis=0)
    covariance = np.eye(n) + slope * features @ features.T
    _, determinant = np.linalg.slogdet(covariance)
    squares = float(centred @ np.linalg.solve(covariance, centred))
    return float(-0.5 * determinant - 0.5 * (n - 1) * np.log(max(squares, 1e-18)))


def _half_width(scores: Array, prior: float) -> float:
    """Return the half width of the 90 % interval from scores of unseen pairs (eV/atom)."""
    n = len(scores)
    place = (n + 1) * LEVEL
    if place <= n:
        return float(np.interp(place, np.arange(1, n + 1), np.sort(scores)))
    weight = _PRIOR_WEIGHT + n - 1.0
    variance = (_PRIOR_WEIGHT * prior**2 + float(np.sum(scores**2))) / (weight + 1.0)
    return float(t.ppf(0.5 + LEVEL / 2, weight) * np.sqrt(variance))
