"""Refit the surrogate on everything the campaign has computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from monty.json import MSONable
from numpy.typing import NDArray

from matloop.documents.candidate import PREDICTED, Quantity, structure_digest
from matloop.documents.objective import Objective
from matloop.protocols import Lesson, Observation
from matloop.surrogates.calibration import (
    LocalScale,
    Residuals,
    cross_scaled,
    quality,
    scale_factor,
    tempered,
)
from matloop.surrogates.embedding import checkpoint_digest
from matloop.surrogates.ensemble import Settings, out_of_fold
from matloop.surrogates.fitted import MEDIA_TYPE, TrainingTable, filled, usual_values
from matloop.surrogates.representations import (
    Representation,
    carried,
    checked,
    reading,
    represent,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SurrogateRefit(MSONable):
    """Learn final quantities from crystals as proposed, with calibrated uncertainties.

    One ensemble is fitted per quantity that the objective names. A crystal teaches a quantity if

    - it carries a finite value of it, stable crystal or not;
    - the value is final: costly evaluations were spent on the crystal, and the value has a level of
      theory or the crystal was moved. One that was rejected, held or failed before or during its
      relaxation keeps values of the crystal as proposed (its density, say), which are not what
      the surrogate predicts. In a campaign where nothing is costly, every value is final;
    - it has a descriptor, which collapsed cells have not.

    A relaxation that ended without convergence teaches what later evaluators still reported of it.

    Results of cheap methods that a crystal carries before the costly stages enter as `inputs`.
    Those that estimate the very quantity are named in `estimates`: what is learned then is how far
    the quantity lies from their best combination, and how much of that holds on unseen crystals
    (metric ``trust``). A crystal without any estimate teaches nothing.

    Lesson metrics are, per quantity, those of `matloop.surrogates.calibration.quality`: as
    ``e_above_hull.mae`` on unseen folds, and as ``e_above_hull.ahead.mae`` for predictions that
    earlier iterations made with a surrogate before the result was known, where there are any.

    Attributes
    ----------
    min_observations
        Results of a quantity below which it is not learned.
    folds
        Folds of the cross-validation that calibrates the uncertainties.
    trees
        Trees of each ensemble.
    max_observations
        Results used at most, the newest.
    representation
        What a crystal is to the models: ``crystal`` (composition, geometry, symmetry),
        ``composition`` alone, ``chgnet`` (composition and the latent features of CHGNet), or
        ``mace`` (the same of a model file).
    checkpoint
        Model file of the representation ``mace``; absolute where a campaign runs on a cluster.
    inputs
        Quantities that crystals carry before the costly stages, used beside the descriptors.
    estimates
        Cheap estimates of a learned quantity, by its name, in its unit.
    """

    min_observations: int = 12
    folds: int = 5
    trees: int = 50
    max_observations: int = 4000
    representation: Representation = "crystal"
    checkpoint: str = ""
    inputs: tuple[str, ...] = ()
    estimates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    resource: ClassVar[str] = "surrogate"

    def __post_init__(self) -> None:
        # JSON has no tuples: a plugin that has travelled must equal the one that was sent.
        estimates = {name: tuple(of) for name, of in self.estimates.items()}
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "estimates", estimates)
        checked(self.representation, self.checkpoint)
        if self.min_observations < 4:
            raise ValueError(f"min_observations must be at least 4, got {self.min_observations}")
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}")
        if self.trees < 1 or self.max_observations < self.min_observations:
            raise ValueError("trees and max_observations are too small")

    def learn(
        self, history: Sequence[Observation], objective: Objective, seed: int
    ) -> Lesson | None:
        """Return the training table as the lesson; None while no quantity has enough results."""
        costly = [index for index, item in enumerate(history) if item.work > 0.0]
        newest = (costly or range(len(history)))[-self.max_observations :]
        finished = [history[index] for index in newest]  # the others are not held in memory
        moved = [not costly or _is_moved(item) for item in finished]
        known = {name: _results(finished, moved, name) for name in sorted(objective.names)}
        if not any(self._suffice(target) for target in known.values()):
            return None
        structures = [item.proposed.structure for item in finished]
        features, _ = represent(self.representation, structures, self.checkpoint)
        described = np.isfinite(features).all(axis=1)
        names = reading(self.inputs, self.estimates)
        inputs = carried([item.proposed.quantities for item in finished], names)
        rounded = np.hstack([features, inputs]).astype(np.float32)
        whole = rounded.astype(float)
        usual = usual_values(whole)
        settings = Settings(trees=self.trees)

        targets: dict[str, Array] = {}
        units: dict[str, str] = {}
        factors: dict[str, float] = {}
        scales: dict[str, LocalScale] = {}
        trusts: dict[str, float] = {}
        metrics: dict[str, float] = {
            "observations": float(len(finished)),
            "not_described": float(len(finished) - described.sum()),
        }
        for name, target in known.items():
            columns = [names.index(x) - len(names) for x in self.estimates.get(name, ())]
            rows = described & np.isfinite(target)
            if columns:
                rows &= np.isfinite(whole[:, columns]).any(axis=1)
            if not self._suffice(target[rows]):
                continue
            table = filled(whole[rows], usual, columns)
            unseen = out_of_fold(table, target[rows], settings, seed, self.folds, columns)
            earlier = _ahead(finished, name)
            targets[name] = np.where(rows, target, np.nan)[described]
            units[name] = _unit(finished, name)
            factors[name] = tempered(1.0, earlier)
            scales[name] = LocalScale.of(unseen.residuals)
            judged = {"": quality(cross_scaled(unseen.residuals, unseen.folds))}
            if len(earlier.target):
                judged["ahead."] = quality(earlier)
            metrics[f"{name}.factor"] = factors[name] * scale_factor(unseen.residuals)
            if columns:
                trusts[name] = metrics[f"{name}.trust"] = unseen.trust
            for prefix, values in judged.items():
                metrics |= {f"{name}.{prefix}{key}": value for key, value in values.items()}
        if not targets:
            return None
        content = TrainingTable(
            rounded[described],
            targets,
            units,
            factors,
            seed,
            settings,
            self.representation,
            names,
            {name: tuple(self.estimates.get(name, ())) for name in targets},
            scales,
            trusts,
            self.checkpoint,
            checkpoint_digest(self.checkpoint) if self.checkpoint else "",
        ).to_bytes()
        return Lesson(content, MEDIA_TYPE, metrics)

    def _suffice(self, target: Array) -> bool:
        return int(np.isfinite(target).sum()) >= self.min_observations


def _is_moved(item: Observation) -> bool:
    before, after = item.proposed.structure, item.final.structure
    return structure_digest(before) != structure_digest(after)


def _results(history: Sequence[Observation], moved: Sequence[bool], name: str) -> Array:
    """Return the final value of a quantity for every observation, NaN where there is none."""
    values = np.full(len(history), np.nan)
    for index, (item, is_moved) in enumerate(zip(history, moved, strict=True)):
        quantity = _lowest(item, name)
        if quantity is not None and (is_moved or quantity.theory is not None):
            values[index] = quantity.value
    values[~np.isfinite(values)] = np.nan
    return values


def _lowest(item: Observation, name: str) -> Quantity | None:
    """Return a quantity at the lowest level of theory, so that one ensemble sees only one."""
    quantity = item.final.quantities.get(name)
    lowest = next(iter(item.by_rung.values()), {}).get(name)
    differs = quantity is None or lowest is None or quantity.theory != lowest.theory
    return lowest if differs and lowest is not None else quantity


def _unit(history: Sequence[Observation], name: str) -> str:
    return next(
        item.final.quantities[name].unit for item in history if name in item.final.quantities
    )


def _ahead(history: Sequence[Observation], name: str) -> Residuals:
    """Return what was predicted before it was known, from the quantities the ladder left."""
    triples = []
    for item in history:
        predicted = item.final.quantities.get(f"{PREDICTED}{name}")
        found = _lowest(item, name)
        if "out_of_domain" not in item.final.quantities:  # foretold before the first lesson
            continue
        if predicted is not None and found is not None and predicted.uncertainty is not None:
            triples.append((found.value, predicted.value, predicted.uncertainty))
    table = np.array(triples, dtype=float).reshape(-1, 3)
    table = table[np.isfinite(table).all(axis=1)]
    return Residuals(table[:, 0], table[:, 1], table[:, 2])
