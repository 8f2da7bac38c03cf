"""What candidates promise, by what is predicted of them, and the scores that rank promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from matloop.documents.candidate import PREDICTED, Quantity
from matloop.documents.objective import Objective, parse
from matloop.protocols import Judged, SelectionRequest
from matloop.surrogates.fitted import load

Array = NDArray[np.float64]
Acquisition = Literal[
    "expected_utility",
    "expected_improvement",
    "ucb",
    "probability_of_discovery",
    "probability_of_stability",
    "expected_hull_drop",
    "thompson",
]

DIVISIBLE: frozenset[Acquisition] = frozenset(
    {
        "expected_improvement",
        "probability_of_discovery",
        "probability_of_stability",
        "expected_hull_drop",
    }
)
"""Scores that are gains above zero, so that gain per cost means something."""

OF_DISTANCE: frozenset[Acquisition] = frozenset({"probability_of_stability", "expected_hull_drop"})
"""Scores made of the distance to the hull, whatever the objective is."""

DISTANCE = "e_above_hull"

_SAMPLES = 128


@dataclass(frozen=True)
class Promise:
    """Distribution of what candidates may turn out to be, each array of shape (n,)."""

    mean: Array
    spread: Array
    probability: Array
    draw: Array
    improvement: Array
    stability: Array
    hull_drop: Array

    @classmethod
    def of(
        cls, able: Sequence[Judged], request: SelectionRequest, rng: np.random.Generator
    ) -> Promise:
        """Sample what candidates may turn out to be, and put it through the objective."""
        objective = request.objective
        names = sorted(objective.names)
        normal = _quasi_normal(len(names), rng)
        drawn = rng.integers(_SAMPLES, size=len(able))
        count = len(able)
        utilities = np.full((count, _SAMPLES), np.nan)
        feasible = np.ones((count, _SAMPLES), dtype=bool)
        discovery = np.zeros((count, _SAMPLES), dtype=bool)
        distances = np.full((count, _SAMPLES), np.inf)
        expected = [expected_quantities(judged, objective) for judged in able]
        alike: dict[tuple[tuple[str, str], ...], list[int]] = {}
        for row, quantities in enumerate(expected):
            key = tuple((name, quantities[name].unit) for name in names if name in quantities)
            alike.setdefault(key, []).append(row)
        for key, rows in alike.items():
            values = {
                name: (_samples([expected[row][name] for row in rows], normal[i]), unit)
                for i, name in enumerate(names)
                if (unit := dict(key).get(name)) is not None
            }
            if not objective.expression.names <= values.keys():
                continue
            with np.errstate(all="ignore"):
                utilities[rows] = objective.utilities(values)
                feasible[rows] = objective.feasibilities(values) > 0.5
                criterion = parse(objective.discovery)
                if DISTANCE in values:
                    distances[rows] = values[DISTANCE][0]
                if criterion.names <= values.keys():
                    discovery[rows] = criterion.evaluate(values) > 0.5
        known = np.isfinite(utilities)
        worst = float(utilities[known].min()) if known.any() else 0.0
        realised = np.where(known & feasible, utilities, worst)
        missing = ~known.any(axis=1)
        best = best_seen(request)
        gain = realised if best is None else np.maximum(np.where(feasible, realised, best), best)
        below = np.where(feasible, np.maximum(-distances, 0.0), 0.0)
        columns = (
            realised.mean(axis=1),
            realised.std(axis=1),
            (discovery & feasible).mean(axis=1),
            realised[np.arange(count), drawn],
            gain.mean(axis=1) - (best or 0.0),
            (feasible & (distances <= 0.0)).mean(axis=1),
            below.mean(axis=1),
        )
        return cls(*(np.where(missing, np.nan, column) for column in columns))

    def scores(self, acquisition: Acquisition, beta: float) -> Array:
        """Return the score that ranks; minus infinity where nothing is predicted."""
        match acquisition:
            case "expected_utility":
                score = self.mean
            case "ucb":
                score = self.mean + beta * self.spread
            case "thompson":
                score = self.draw
            case "probability_of_discovery":
                score = self._decided(self.probability, 1.0)
            case "probability_of_stability":
                score = self._decided(self.stability, 1.0)
            case "expected_improvement":
                score = self._decided(self.improvement, float(np.nanmean(self.spread)))
            case "expected_hull_drop":
                score = self._decided(self.hull_drop, float(np.nanmean(self.spread)))
        return np.where(np.isfinite(score), score, -np.inf)

    def _decided(self, score: Array, scale: float) -> Array:
        # Where no sample is a success, utility decides between candidates.
        known = np.isfinite(self.mean)
        width = float(np.std(self.mean[known])) if known.any() else 1.0
        centre = float(np.mean(self.mean[known])) if known.any() else 0.0
        finest = 0.5 * scale / _SAMPLES
        return score + finest * np.tanh((self.mean - centre) / (3.0 * width or 1.0))

    def evidence(self, row: int) -> dict[str, float]:
        """Return the numbers of one candidate; none where nothing is predicted."""
        if not np.isfinite(self.mean[row]):
            return {}
        return {
            "expected_utility": float(self.mean[row]),
            "utility_spread": float(self.spread[row]),
            "probability_of_discovery": float(self.probability[row]),
        }


def best_seen(request: SelectionRequest) -> float | None:
    """Return the best utility among the results that the surrogate was fitted to.

    They are judged against the present hull. None before the first lesson.
    """
    path = request.resources.paths.get("surrogate")
    if path is None:
        return None
    table = load(path, request.resources.digests.get("surrogate", "")).table
    values = {name: (found, table.units[name]) for name, found in table.targets.items()}
    if not request.objective.expression.names <= values.keys():
        return None
    with np.errstate(all="ignore"):
        utilities = request.objective.utilities(values)
        fine = np.isfinite(utilities) & (request.objective.feasibilities(values) > 0.5)
    return float(utilities[fine].max()) if fine.any() else None


def learned_from(request: SelectionRequest) -> int:
    """Return how many crystals the surrogate has learned from; 0 before the first lesson."""
    path = request.resources.paths.get("surrogate")
    if path is None:
        return 0
    return len(load(path, request.resources.digests.get("surrogate", "")).table.features)


def expected_quantities(judged: Judged, objective: Objective) -> dict[str, Quantity]:
    """Return the best knowledge of every quantity the objective names.

    A computed value goes before a prediction, with one exception: where the prediction was made in
    this stage and no atom was moved since, a value without a level of theory, such as the density,
    is that of the crystal as proposed, and the prediction is of the relaxed one.
    """
    quantities: Mapping[str, Quantity] = judged.candidate.quantities
    fresh: set[str] = set()
    for evaluation in judged.evaluations:
        if evaluation.structure is not None:
            fresh.clear()
        fresh |= evaluation.quantities.keys()
    expected = {}
    for name in objective.names:
        known, predicted = quantities.get(name), quantities.get(f"{PREDICTED}{name}")
        early = known is not None and known.theory is None and f"{PREDICTED}{name}" in fresh
        best = predicted if predicted is not None and (known is None or early) else known
        if best is not None:
            expected[name] = best
    return expected


def _quasi_normal(dimensions: int, rng: np.random.Generator) -> Array:
    """Return evenly spread normal samples, shape (dimensions, 128), shifted by chance.

    Additive recurrence with the generalised golden ratio (M. Roberts, 2018): the same points for
    all candidates, so that they are compared on equal terms.
    """
    ratio = 2.0
    for _ in range(40):
        ratio = (1.0 + ratio) ** (1.0 / (dimensions + 1.0))
    steps = ratio ** -np.arange(1.0, dimensions + 1.0)
    points = np.mod(rng.random((dimensions, 1)) + steps[:, None] * np.arange(_SAMPLES), 1.0)
    return np.asarray(norm.ppf(np.clip(points, 1e-6, 1.0 - 1e-6)))


def _samples(quantities: Sequence[Quantity], normal: Array) -> Array:
    """Return samples of quantities, shape (len(quantities), 128); known ones do not vary."""
    values = np.array([quantity.value for quantity in quantities])
    spreads = np.array([quantity.uncertainty or 0.0 for quantity in quantities])
    return np.asarray(values[:, None] + spreads[:, None] * normal)
