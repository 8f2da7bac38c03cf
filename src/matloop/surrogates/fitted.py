"""The surrogate: a table of results as an artifact, and what is fitted to it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from matloop.errors import MatloopError
from matloop.surrogates.calibration import LocalScale
from matloop.surrogates.ensemble import Ensemble, Prediction, Settings
from matloop.surrogates.gaussian_process import Scaler
from matloop.surrogates.representations import Representation, feature_names

Array = NDArray[np.float64]

MEDIA_TYPE = "application/x-npz"
_FORMAT = 3


@dataclass(frozen=True)
class TrainingTable:
    """Everything a surrogate is made of, as data: reading it executes no code.

    Attributes
    ----------
    features
        Descriptors, then `inputs`, shape (n, d), rounded to 32 bits. A missing input is NaN.
    targets
        Results by quantity, each of shape (n,); NaN where a crystal has none.
    units
        Unit of each quantity.
    factors
        Scale factor of each quantity's uncertainty, beside that of `scales`.
    seed
        Seed of the fit.
    settings
        Hyperparameters.
    representation
        Kind of the descriptors.
    inputs
        Names of quantities that crystals carry before the costly stages.
    estimates
        By quantity, which of the inputs are cheap estimates of it.
    scales
        By quantity, the scale of its uncertainty by predicted value; 1 where there is none.
    trusts
        By quantity, how much counts of what is learned on top of estimates; 1 where nothing is
        said.
    checkpoint, checkpoint_sha256
        Model file whose features describe the crystals, and its hash; empty where none is needed.
    """

    features: NDArray[np.float32]
    targets: Mapping[str, Array]
    units: Mapping[str, str]
    factors: Mapping[str, float]
    seed: int
    settings: Settings = field(default_factory=Settings)
    representation: Representation = "crystal"
    inputs: tuple[str, ...] = ()
    estimates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scales: Mapping[str, LocalScale] = field(default_factory=dict)
    trusts: Mapping[str, float] = field(default_factory=dict)
    checkpoint: str = ""
    checkpoint_sha256: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        latent = self.features.shape[1] - len(feature_names("mace")) - len(self.inputs)
        return (*feature_names(self.representation, latent), *self.inputs)

    def estimate_columns(self, quantity: str) -> list[int]:
        """Return the columns of `features` that estimate a quantity."""
        return [self.names.index(name) for name in self.estimates.get(quantity, ())]

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
            "representation": self.representation,
            "inputs": list(self.inputs),
            "estimates": {name: list(of) for name, of in sorted(self.estimates.items())},
            "scaled": sorted(self.scales),
            "trusts": dict(sorted(self.trusts.items())),
        }
        if self.checkpoint:
            header |= {
                "checkpoint": self.checkpoint,
                "checkpoint_sha256": self.checkpoint_sha256,
            }
        scales = [self.scales[name] for name in sorted(self.scales)]
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            header=np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8),
            features=self.features,
            targets=np.array([self.targets[name] for name in quantities]),
            scale_sizes=np.array([len(scale.mean) for scale in scales], dtype=np.int64),
            scale_means=np.concatenate([np.empty(0), *(scale.mean for scale in scales)]),
            scale_scores=np.concatenate([np.empty(0), *(scale.scores for scale in scales)]),
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
                if header.get("format") == _FORMAT:
                    ends = np.cumsum(archive["scale_sizes"])[:-1]
                    means = np.split(archive["scale_means"], ends)
                    scores = np.split(archive["scale_scores"], ends)
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise MatloopError(f"cannot read the surrogate: {error}") from error
        outdated = MatloopError(
            "the surrogate was trained on other descriptors than this version computes: "
            "let the campaign learn it again"
        )
        if header.get("format") != _FORMAT:
            raise outdated
        quantities = header["quantities"]
        table = cls(
            features,
            dict(zip(quantities, targets, strict=True)),
            dict(zip(quantities, header["units"], strict=True)),
            dict(zip(quantities, header["factors"], strict=True)),
            header["seed"],
            Settings(**header["settings"]),
            header["representation"],
            tuple(header["inputs"]),
            {name: tuple(of) for name, of in header["estimates"].items()},
            {
                name: LocalScale(mean, score)
                for name, mean, score in zip(header["scaled"], means, scores, strict=False)
            },
            header["trusts"],
            header.get("checkpoint", ""),
            header.get("checkpoint_sha256", ""),
        )
        if table.names != tuple(header["names"]) or features.shape[1] != len(table.names):
            raise outdated
        return table


class FittedSurrogate:
    """A surrogate ready to predict.

    Parameters
    ----------
    table
        What it is fitted to.

    Attributes
    ----------
    table
        The same.
    """

    def __init__(self, table: TrainingTable) -> None:
        self.table = table
        self.units = dict(table.units)
        self._factors = table.factors
        features = np.asarray(table.features, dtype=float)
        usual = usual_values(features)
        self._usual = usual
        self._ensembles = {}
        for name in sorted(table.targets):
            known = np.isfinite(table.targets[name])
            columns = table.estimate_columns(name)
            self._ensembles[name] = Ensemble.fit(
                filled(features, usual, columns)[known],
                table.targets[name][known],
                table.settings,
                table.seed,
                columns,
            )
        whole = filled(features, usual)
        self._scaler = Scaler.fit(whole)
        self._rows = self._scaler.transform(whole)
        apart = cdist(self._rows, self._rows)
        np.fill_diagonal(apart, np.inf)
        self._nearest = np.sort(apart.min(axis=1))

    def predict(self, features: Array) -> dict[str, Prediction]:
        """Return calibrated predictions by quantity for features of shape (m, d).

        Rows in which every estimate of a quantity is missing are NaN.
        """
        rounded = features.astype(np.float32).astype(float)
        predictions = {}
        for name, ensemble in self._ensembles.items():
            columns = self.table.estimate_columns(name)
            raw = ensemble.predict(filled(rounded, self._usual, columns))
            mean = raw.trusted(self.table.trusts.get(name, 1.0))
            factors: Array | float = self._factors[name]
            if name in self.table.scales:
                factors = factors * self.table.scales[name].factors(mean)
            predictions[name] = Prediction(mean, raw.spread * factors, raw.base)
        return predictions

    def correlation(self, quantity: str, features: Array) -> Array:
        """Return how results of a quantity hang together, for features of shape (m, d).

        Returns
        -------
        correlation
            Shape (m, m).
        """
        rounded = features.astype(np.float32).astype(float)
        columns = self.table.estimate_columns(quantity)
        return self._ensembles[quantity].correlation(filled(rounded, self._usual, columns))

    def out_of_domain(self, features: Array) -> Array:
        """Return how far crystals lie from the training data, 0 to 1, shape (m,).

        It is the share of training crystals that lie closer to their own nearest neighbour than the
        crystal lies to its nearest training crystal: 0.5 is typical, 1 is farther out than all.
        """
        rounded = filled(features.astype(np.float32).astype(float), self._usual)
        distance = cdist(self._scaler.transform(rounded), self._rows).min(axis=1)
        return np.asarray(np.searchsorted(self._nearest, distance) / len(self._nearest))


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


def usual_values(features: Array) -> Array:
    """Return the median of each column, shape (d,); 0 where a column has no number at all."""
    known = np.isfinite(features)
    columns = zip(features.T, known.T, strict=True)
    return np.array([np.median(values[has]) if has.any() else 0.0 for values, has in columns])


def filled(features: Array, usual: Array, estimates: Sequence[int] = ()) -> Array:
    """Return features with usual values in the place of missing ones.

    Parameters
    ----------
    features
        Shape (n, d).
    usual
        What stands for a missing value of each column, shape (d,).
    estimates
        Columns that stay as they are: a combination of estimates does without the missing ones.
    """
    known = np.isfinite(features)
    if known.all():
        return features
    known[:, list(estimates)] = True
    return np.where(known, features, usual)
