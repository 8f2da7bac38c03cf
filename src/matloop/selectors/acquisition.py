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
    "probability_of_feasibility",
    "expected_hull_drop",
    "expected_hypervolume_improvement",
    "thompson",
]

DIVISIBLE: frozenset[Acquisition] = frozenset(
    {
        "expected_improvement",
        "probability_of_discovery",
        "probability_of_stability",
        "probability_of_feasibility",
        "expected_hull_drop",
        "expected_hypervolume_improvement",
    }
)
"""Scores that are gains above zero, so that gain per cost means something."""

OF_DISTANCE: frozenset[Acquisition] = frozenset({"probability_of_stability", "expected_hull_drop"})
"""Scores made of the distance to the hull, whatever the objective is."""

OF_UTILITY: frozenset[Acquisition] = frozenset(
    {"expected_utility", "expected_improvement", "ucb", "thompson"}
)
"""Scores made of the utility, which an objective with several goals has not."""

VOLUME: Acquisition = "expected_hypervolume_improvement"
"""The score of several goals."""

DISTANCE = "e_above_hull"

SAMPLES = 128


@dataclass(frozen=True)
class Outcomes:
    """Samples of what candidates may turn out to be.

    Attributes
    ----------
    gains
        Every goal, larger is better, shape (n, 128, goals); NaN where nothing is predicted.
    feasible, discovery
        Whether all constraints of known or predicted quantities hold, and whether the crystal is a
        discovery, each of shape (n, 128).
    distances
        To the hull (eV/atom), shape (n, 128); infinite where unknown.
    """

    gains: Array
    feasible: NDArray[np.bool_]
    discovery: NDArray[np.bool_]
    distances: Array

    @classmethod
    def of(
        cls, able: Sequence[Judged], objective: Objective, normal: Mapping[str, Array]
    ) -> Outcomes:
        """Put samples through the objective.

        Parameters
        ----------
        able
            The candidates.
        objective
            What they are sampled for.
        normal
            Standard normal samples by quantity, of shape (128,) for all candidates alike, or
            (n, 128).
        """
        count = len(able)
        gains = np.full((count, SAMPLES, len(objective.goals)), np.nan)
        feasible = np.ones((count, SAMPLES), dtype=bool)
        discovery = np.zeros((count, SAMPLES), dtype=bool)
        distances = np.full((count, SAMPLES), np.inf)
        names = sorted(objective.names)
        expected = [expected_quantities(judged, objective) for judged in able]
        alike: dict[tuple[tuple[str, str], ...], list[int]] = {}
        for row, quantities in enumerate(expected):
            key = tuple((name, quantities[name].unit) for name in names if name in quantities)
            alike.setdefault(key, []).append(row)
        criterion = parse(objective.discovery)
        for key, rows in alike.items():
            values = {
                name: (_samples([expected[row][name] for row in rows], _of(normal[name], rows)), u)
                for name, u in key
            }
            if not objective.of_goals <= values.keys():
                continue
            with np.errstate(all="ignore"):
                gains[rows] = objective.gains(values)
                feasible[rows] = objective.feasibilities(values) > 0.5
                if DISTANCE in values:
                    distances[rows] = values[DISTANCE][0]
                if criterion.names <= values.keys():
                    discovery[rows] = criterion.evaluate(values) > 0.5
        return cls(gains, feasible, discovery, distances)


@dataclass(frozen=True)
class Promise:
    """Distribution of what candidates may turn out to be, each array of shape (n,).

    Means and draws are of the utility; with several goals, of how far a candidate reaches beyond
    the front.
    """

    mean: Array
    spread: Array
    probability: Array
    draw: Array
    improvement: Array
    stability: Array
    hull_drop: Array
    feasibility: Array
    constrained: bool = False
    several: bool = False

    @classmethod
    def of(
        cls, able: Sequence[Judged], request: SelectionRequest, rng: np.random.Generator
    ) -> Promise:
        """Sample what candidates may turn out to be, and put it through the objective."""
        names = sorted(request.objective.names)
        normal = dict(zip(names, quasi_normal(len(names), rng), strict=True))
        drawn = rng.integers(SAMPLES, size=len(able))
        found = Outcomes.of(able, request.objective, normal)
        seen = None if request.objective.several else utilities_seen(request)
        return cls.from_outcomes(found, found.gains[..., 0], seen, drawn, request.objective)

    @classmethod
    def from_outcomes(
        cls,
        found: Outcomes,
        utilities: Array,
        seen: tuple[Array, NDArray[np.bool_]] | None,
        drawn: NDArray[np.int64],
        objective: Objective,
    ) -> Promise:
        """Return the moments of samples.

        Parameters
        ----------
        found
            The samples.
        utilities
            One number for each, larger is better, shape (n, 128).
        seen
            Such numbers of the results so far, and which of them are feasible; None before the
            first lesson.
        drawn
            Which sample stands for each candidate where one is drawn, shape (n,).
        objective
            What was asked.
        """
        feasible = found.feasible
        known = np.isfinite(utilities)
        worst = float(utilities[known].min()) if known.any() else 0.0
        realised = np.where(known & feasible, utilities, worst)
        missing = ~known.any(axis=1)
        best = float(seen[0][seen[1]].max()) if seen is not None and seen[1].any() else None
        gain = realised if best is None else np.maximum(np.where(feasible, realised, best), best)
        improvement = gain.mean(axis=1) - (best or 0.0)
        if best is None and seen is not None and len(seen[0]) and objective.constraints:
            improvement = feasible.mean(axis=1)  # first of all, one that is feasible
        below = np.where(feasible, np.maximum(-found.distances, 0.0), 0.0)

        def told(column: Array) -> Array:
            return np.where(missing, np.nan, column)

        return cls(
            mean=told(realised.mean(axis=1)),
            spread=told(realised.std(axis=1)),
            probability=told((found.discovery & feasible).mean(axis=1)),
            draw=told(realised[np.arange(len(drawn)), drawn]),
            improvement=told(improvement),
            stability=told((feasible & (found.distances <= 0.0)).mean(axis=1)),
            hull_drop=told(below.mean(axis=1)),
            feasibility=told(feasible.mean(axis=1)),
            constrained=bool(objective.constraints),
            several=objective.several,
        )

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
            case "probability_of_feasibility":
                score = self._decided(self.feasibility, 1.0)
            case "expected_improvement" | "expected_hypervolume_improvement":
                score = self._decided(self.improvement, self._scale())
            case "expected_hull_drop":
                score = self._decided(self.hull_drop, self._scale())
        return np.where(np.isfinite(score), score, -np.inf)

    def _scale(self) -> float:
        known = np.isfinite(self.spread)
        return float(np.nanmean(self.spread)) if known.any() else 1.0

    def _decided(self, score: Array, scale: float) -> Array:
        # Where no sample is a success, utility decides between candidates.
        known = np.isfinite(self.mean)
        width = float(np.std(self.mean[known])) if known.any() else 1.0
        centre = float(np.mean(self.mean[known])) if known.any() else 0.0
        finest = 0.5 * scale / SAMPLES
        return score + finest * np.tanh((self.mean - centre) / (3.0 * width or 1.0))

    def evidence(self, row: int) -> dict[str, float]:
        """Return the numbers of one candidate; none where nothing is predicted."""
        if not np.isfinite(self.mean[row]):
            return {}
        evidence = {"probability_of_discovery": float(self.probability[row])}
        if not self.several:
            evidence = {
                "expected_utility": float(self.mean[row]),
                "utility_spread": float(self.spread[row]),
                **evidence,
            }
        if self.constrained:
            evidence["probability_of_feasibility"] = float(self.feasibility[row])
        return evidence


def gains_seen(request: SelectionRequest) -> tuple[Array, NDArray[np.bool_]] | None:
    """Return the goals of the results that the surrogate was fitted to, and which are feasible.

    They are judged against the present hull. None before the first lesson.

    Returns
    -------
    gains
        Finite, shape (k, goals).
    feasible
        Shape (k,).
    """
    path = request.resources.paths.get("surrogate")
    if path is None:
        return None
    objective = request.objective
    table = load(path, request.resources.digests.get("surrogate", "")).table
    values = {name: (found, table.units[name]) for name, found in table.targets.items()}
    if not objective.of_goals <= values.keys():
        return np.empty((0, len(objective.goals))), np.empty(0, dtype=bool)
    with np.errstate(all="ignore"):
        gains = objective.gains(values)
        feasible = np.broadcast_to(objective.feasibilities(values) > 0.5, gains.shape[:1])
    fine = np.isfinite(gains).all(axis=1)
    return gains[fine], feasible[fine]


def utilities_seen(request: SelectionRequest) -> tuple[Array, NDArray[np.bool_]] | None:
    """Return the utilities of those results, each array of shape (k,); None before the first."""
    seen = gains_seen(request)
    return None if seen is None else (seen[0][:, 0], seen[1])


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


def quasi_normal(dimensions: int, rng: np.random.Generator) -> Array:
    """Return evenly spread normal samples, shape (dimensions, 128), shifted by chance.

    Additive recurrence with the generalised golden ratio (M. Roberts, 2018): the same points for
    all candidates, so that they are compared on equal terms.
    """
    ratio = 2.0
    for _ in range(40):
        ratio = (1.0 + ratio) ** (1.0 / (dimensions + 1.0))
    steps = ratio ** -np.arange(1.0, dimensions + 1.0)
    points = np.mod(rng.random((dimensions, 1)) + steps[:, None] * np.arange(SAMPLES), 1.0)
    return np.asarray(norm.ppf(np.clip(points, 1e-6, 1.0 - 1e-6)))


def _of(normal: Array, rows: Sequence[int]) -> Array:
    return normal if normal.ndim == 1 else normal[list(rows)]


def _samples(quantities: Sequence[Quantity], normal: Array) -> Array:
    """Return samples of quantities, shape (len(quantities), 128); known ones do not vary."""
    values = np.array([quantity.value for quantity in quantities])
    spreads = np.array([quantity.uncertainty or 0.0 for quantity in quantities])
    return np.asarray(values[:, None] + spreads[:, None] * np.atleast_2d(normal))
