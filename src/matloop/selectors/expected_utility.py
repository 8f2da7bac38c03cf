"""Choose the candidates that promise most, given how sure the surrogate is of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from monty.json import MSONable
from numpy.typing import NDArray
from scipy.stats import norm

from matloop.documents.candidate import PREDICTED, Quantity
from matloop.documents.decision import RANDOM_ARM, Choice
from matloop.documents.objective import Objective, parse
from matloop.protocols import Judged, SelectionRequest
from matloop.selectors.diversity import batch_features, spread_out
from matloop.selectors.verdicts import refusal

Array = NDArray[np.float64]
Acquisition = Literal["expected_utility", "ucb", "probability_of_discovery", "thompson"]

_SAMPLES = 128


@dataclass(frozen=True)
class ExpectedUtility(MSONable):
    """Pass the candidates of highest promise, diverse ones, and a few by lot.

    Quantities that a surrogate predicts are sampled from their normal distributions and put through
    the objective: utility, constraints and discovery criterion. A sample outside the feasible set
    counts as the worst utility of the batch. Without predictions the choice is by lot, and diverse.

    Attributes
    ----------
    acquisition
        What ranks: ``expected_utility``; ``ucb``, which adds `beta` standard deviations of the
        utility; ``probability_of_discovery``; ``thompson``, one draw per candidate.
    beta
        Standard deviations that ``ucb`` adds.
    random_share
        Share of the places given by lot among all candidates, so that the gain over chance is
        measured while the campaign runs.
    diversity
        What a twin of a chosen candidate loses, in standard deviations of the ranking's score.
    formula_share
        Largest share of the places for one reduced formula, while there are others.
    stratified
        Give each generator its part of the places in proportion to its candidates in the batch, so
        that the allocator decides between generators and the surrogate within each. Otherwise the
        surrogate decides alone, and soon excludes the generator whose candidates need most
        relaxing.
    """

    acquisition: Acquisition = "probability_of_discovery"
    beta: float = 1.0
    random_share: float = 0.1
    diversity: float = 1.0
    formula_share: float = 0.25
    stratified: bool = True

    def __post_init__(self) -> None:
        for name in ("random_share", "formula_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.diversity < 0.0 or self.beta < 0.0:
            raise ValueError("diversity and beta must not be negative")

    def select(self, batch: Sequence[Judged], request: SelectionRequest) -> list[Choice]:
        """Return one choice per candidate, in order."""
        refused = [refusal(judged, request) for judged in batch]
        able = [index for index, choice in enumerate(refused) if choice is None]
        chosen = self._choose([batch[index] for index in able], request)
        by_index = dict(zip(able, chosen, strict=True))
        return [by_index[i] if choice is None else choice for i, choice in enumerate(refused)]

    def _choose(self, able: Sequence[Judged], request: SelectionRequest) -> list[Choice]:
        if not able:
            return []
        rng = np.random.default_rng(request.seed)
        promise = _Promise.of(able, request, rng)
        scores = promise.scores(self.acquisition, self.beta)
        ranks = np.empty(len(able), dtype=int)
        ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(able) + 1)
        places = len(able) if request.keep is None else min(request.keep, len(able))
        by_lot: set[int] = set()
        passed = set(range(len(able)))
        if places < len(able):
            informed = bool(np.isfinite(scores).any())
            if informed:  # rounded by lot, so that small batches get their share over time
                count = min(int(self.random_share * places + rng.random()), places)
                by_lot = set(rng.permutation(len(able))[:count].tolist())
            else:
                scores = rng.permutation(len(able)).astype(float)
            structures = [judged.candidate.structure for judged in able]
            groups = [
                [structure.composition.reduced_formula for structure in structures],
                [judged.candidate.origin.generator for judged in able],
            ]
            caps = [self._formula_caps(groups[0], places), self._generator_caps(groups[1], places)]
            picked = spread_out(
                scores,
                batch_features(structures),
                groups,
                caps,
                places - len(by_lot),
                self.diversity,
                sorted(by_lot),
            )
            passed = by_lot | set(picked)
            if not informed:
                by_lot = passed
        choices = []
        for row, judged in enumerate(able):
            evidence = promise.evidence(row)
            if np.isfinite(promise.mean[row]):
                evidence |= {"acquisition": float(scores[row]), "rank": float(ranks[row])}
            if row in passed:
                evidence[RANDOM_ARM] = float(row in by_lot)
            choices.append(
                Choice(
                    candidate_id=judged.candidate.candidate_id,
                    outcome="passed" if row in passed else "held",
                    reason=_reason(row, passed, by_lot, places, len(able), ranks, evidence),
                    evidence=evidence,
                )
            )
        return choices

    def _formula_caps(self, formulas: Sequence[str], places: int) -> dict[str, int]:
        return dict.fromkeys(formulas, max(math.ceil(self.formula_share * places), 1))

    def _generator_caps(self, generators: Sequence[str], places: int) -> dict[str, int]:
        if not self.stratified:
            return dict.fromkeys(generators, places)
        part = places / len(generators)
        return {name: math.ceil(part * count) for name, count in Counter(generators).items()}


@dataclass(frozen=True)
class _Promise:
    """Distribution of what candidates may turn out to be, each array of shape (n,)."""

    mean: Array
    spread: Array
    probability: Array
    draw: Array

    @classmethod
    def of(
        cls, able: Sequence[Judged], request: SelectionRequest, rng: np.random.Generator
    ) -> _Promise:
        objective = request.objective
        names = sorted(objective.names)
        normal = _quasi_normal(len(names), rng)
        drawn = rng.integers(_SAMPLES, size=len(able))
        count = len(able)
        utilities = np.full((count, _SAMPLES), np.nan)
        feasible = np.ones((count, _SAMPLES), dtype=bool)
        discovery = np.zeros((count, _SAMPLES), dtype=bool)
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
                if criterion.names <= values.keys():
                    discovery[rows] = criterion.evaluate(values) > 0.5
        known = np.isfinite(utilities)
        worst = float(utilities[known].min()) if known.any() else 0.0
        realised = np.where(known & feasible, utilities, worst)
        missing = ~known.any(axis=1)
        columns = (
            realised.mean(axis=1),
            realised.std(axis=1),
            (discovery & feasible).mean(axis=1),
            realised[np.arange(count), drawn],
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
                # Where nobody is likely to be a discovery, utility decides between them.
                width = float(np.nanstd(self.mean)) if np.isfinite(self.mean).any() else 1.0
                centre = float(np.nanmean(self.mean)) if np.isfinite(self.mean).any() else 0.0
                score = self.probability + 0.5 / _SAMPLES * np.tanh(
                    (self.mean - centre) / (3.0 * width or 1.0)
                )
        return np.where(np.isfinite(score), score, -np.inf)

    def evidence(self, row: int) -> dict[str, float]:
        """Return the numbers of one candidate; none where nothing is predicted."""
        if not np.isfinite(self.mean[row]):
            return {}
        return {
            "expected_utility": float(self.mean[row]),
            "utility_spread": float(self.spread[row]),
            "probability_of_discovery": float(self.probability[row]),
        }


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


def _reason(
    row: int,
    passed: set[int],
    by_lot: set[int],
    places: int,
    count: int,
    ranks: NDArray[np.int64],
    evidence: Mapping[str, float],
) -> str:
    where = f"rank {ranks[row]} of {count}" if "rank" in evidence else "without a prediction"
    if row in passed:
        if places == count:
            return "there is a place for all"
        return f"drawn by lot, {where}" if row in by_lot else f"{where}, chosen"
    return f"{where}, the {places} places went to others"
