"""Choose the candidates that promise most, given how sure the surrogate is of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from monty.json import MSONable
from numpy.typing import NDArray

from matloop.documents.decision import RANDOM_ARM, Choice
from matloop.documents.objective import Objective
from matloop.errors import ConfigurationError
from matloop.protocols import Judged, SelectionRequest
from matloop.selectors.acquisition import (
    DISTANCE,
    DIVISIBLE,
    OF_DISTANCE,
    OF_UTILITY,
    VOLUME,
    Acquisition,
    Promise,
    learned_from,
)
from matloop.selectors.diversity import Repulsion, batch_features, spread_out
from matloop.selectors.verdicts import refusal
from matloop.selectors.volume import volume
from matloop.surrogates.representations import Representation, checked

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExpectedUtility(MSONable):
    """Pass the candidates of highest promise, diverse ones, and a few by lot.

    Quantities that a surrogate predicts are sampled from their normal distributions and put through
    the objective: utility, constraints and discovery criterion. A sample outside the feasible set
    counts as the worst utility of the batch, and gains nothing: every gain is multiplied by the
    probability of being feasible (Gardner et al., ICML 2014), exactly where the quantities of a
    constraint are known. While results are known and none is feasible, improvement is that
    probability itself (Gelbart et al., UAI 2014). Without predictions the choice is by lot, and
    diverse.

    Attributes
    ----------
    acquisition
        What ranks: ``expected_utility``; ``expected_improvement`` over the best result so far
        (Mockus, 1975); ``ucb``, which adds `beta` standard deviations of the utility;
        ``probability_of_discovery``; ``probability_of_stability``, of lying on or below the hull;
        ``probability_of_feasibility``, that all constraints hold;
        ``expected_hull_drop``, by how much a candidate is expected to lie below the present hull
        (eV/atom), none if it lies above; ``thompson``, one draw per candidate. With several goals
        ``expected_hypervolume_improvement``, the volume that a candidate is expected to add to the
        Pareto front of the results and of those already chosen; the scores of one utility are
        refused there.
    beta
        Standard deviations that ``ucb`` adds.
    cost_exponent
        Power of the cost that the score is divided by: core-hours where a later stage calculates,
        and otherwise the number of atoms, which relaxations cost in proportion to. 0 ignores the
        cost. Only for improvement, probabilities and hull drop.
    random_share
        Share of the places given by lot among all candidates, so that the gain over chance is
        measured while the campaign runs, and what the surrogate says of the unpromising is tested.
    random_decay
        How that share falls: with this power of the number of places, over the places and the
        results that the surrogate has learned from. 0 keeps it; 1 makes it a half after one more
        batch and a third after two, so that exploring never ends and costs ever less (Auer et al.,
        Mach. Learn. 47, 235, 2002).
    diversity
        What a twin of a chosen candidate loses, in standard deviations of the ranking's score.
    repulsion
        How chosen candidates repel others: ``nearest``, by the similarity to the nearest chosen
        one, or ``determinantal``, by the logarithm of the volume that the batch spans.
    representation
        What candidates are compared by: ``crystal``, ``composition``, ``chgnet`` or ``mace``.
    checkpoint
        Model file of the representation ``mace``.
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
    cost_exponent: float = 0.0
    random_share: float = 0.1
    random_decay: float = 1.0
    diversity: float = 1.0
    repulsion: Repulsion = "nearest"
    representation: Representation = "crystal"
    checkpoint: str = ""
    formula_share: float = 0.25
    stratified: bool = True

    def __post_init__(self) -> None:
        for name in ("random_share", "formula_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        checked(self.representation, self.checkpoint)
        if min(self.diversity, self.beta, self.cost_exponent, self.random_decay) < 0.0:
            raise ValueError("diversity, beta, cost_exponent and random_decay must not be negative")
        if self.cost_exponent and self.acquisition not in DIVISIBLE:
            raise ValueError(
                f"cost_exponent divides only {', '.join(sorted(DIVISIBLE))}, not {self.acquisition}"
            )

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
        if reason := self.objection(request.objective):
            raise ConfigurationError(reason)
        rng = np.random.default_rng(request.seed)
        if self.acquisition == VOLUME:
            promise, added = volume(able, request, rng)
        else:
            promise, added = Promise.of(able, request, rng), None
        scores = promise.scores(self.acquisition, self.beta)
        prices: Array | float = 1.0
        if self.cost_exponent:
            prices = _costs(able, request) ** self.cost_exponent
            scores = scores / prices

        def rescored(row: int) -> Array:
            assert added is not None
            left = replace(promise, improvement=added.pick(row))
            return left.scores(self.acquisition, self.beta) / prices

        ranks = np.empty(len(able), dtype=int)
        ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(able) + 1)
        places = len(able) if request.keep is None else min(request.keep, len(able))
        by_lot: set[int] = set()
        passed = set(range(len(able)))
        if places < len(able):
            informed = bool(np.isfinite(scores).any())
            if informed:  # rounded by lot, so that small batches get their share over time
                share = self.random_share
                share *= (places / (places + learned_from(request))) ** self.random_decay
                count = min(int(share * places + rng.random()), places)
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
                batch_features(structures, self.representation, self.checkpoint),
                groups,
                caps,
                places - len(by_lot),
                self.diversity,
                sorted(by_lot),
                self.repulsion,
                None if added is None else rescored,
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

    def objection(self, objective: Objective) -> str:
        """Return why it cannot rank by an objective; empty if it can."""
        if self.acquisition in OF_DISTANCE and DISTANCE not in objective.names:
            return f"acquisition {self.acquisition} needs an objective that names {DISTANCE}"
        if self.acquisition == "probability_of_feasibility" and not objective.constraints:
            return f"acquisition {self.acquisition} needs an objective with constraints"
        if self.acquisition == VOLUME and not objective.several:
            return f"acquisition {VOLUME} needs an objective with two or three goals"
        if self.acquisition in OF_UTILITY and objective.several:
            return (
                f"acquisition {self.acquisition} ranks by one utility, the objective has "
                f"{len(objective.goals)} goals; take {VOLUME}"
            )
        return ""

    def _formula_caps(self, formulas: Sequence[str], places: int) -> dict[str, int]:
        return dict.fromkeys(formulas, max(math.ceil(self.formula_share * places), 1))

    def _generator_caps(self, generators: Sequence[str], places: int) -> dict[str, int]:
        if not self.stratified:
            return dict.fromkeys(generators, places)
        part = places / len(generators)
        return {name: math.ceil(part * count) for name, count in Counter(generators).items()}


def _costs(able: Sequence[Judged], request: SelectionRequest) -> Array:
    """Return what each candidate costs, shape (n,); one without an estimate costs the most."""
    structures = [judged.candidate.structure for judged in able]
    if request.calculation is None:
        return np.array([float(len(structure)) for structure in structures])
    hours = [request.calculation.core_hours(structure) for structure in structures]
    known = [value for value in hours if value is not None]
    dearest = max(known, default=1.0)
    return np.array([max(dearest if value is None else value, 1e-6) for value in hours])


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
