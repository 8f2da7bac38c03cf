"""Choose what is worth a calculation, and check by lot that the rest is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from monty.json import MSONable
from numpy.typing import NDArray
from scipy.stats import norm

from matloop.documents.candidate import Quantity
from matloop.documents.decision import AUDIT, TURNED_DOWN, Choice
from matloop.documents.objective import Objective, parse
from matloop.protocols import Judged, SelectionRequest
from matloop.selectors.verdicts import refusal
from matloop.surrogates.fidelity import RESOURCE, Correction, load

Array = NDArray[np.float64]

_DISTANCE = "e_above_hull"
_GRID: Array = norm.ppf((np.arange(1000) + 0.5) / 1000)
"""Evenly spread points of the normal distribution: chances are told to a tenth of a percent."""


@dataclass(frozen=True)
class Promotion(MSONable):
    """Pass those whose discovery a calculation is most likely to confirm, per core-hour.

    The distance to the hull by the potential is corrected to that of the next level of theory,
    with an uncertainty, by the lesson of `fidelity_correction`; before the first lesson nothing is
    corrected and `prior_uncertainty` holds. The chance that the corrected distance meets the
    objective's discovery criterion and constraints, divided by the estimated core-hours of the
    calculation, ranks. Quantities that are not known yet do not count.

    The audit draws by lot among all others that have a distance: those an evaluator of this stage
    rejected, and those that ranked low. They pass as well, so that what would have been missed is
    measured. What failed, or has no distance, is never calculated.

    Where the budget of the calculations does not pay for all, the audit is paid first and then the
    ranked, in order, as far as they fit.

    Attributes
    ----------
    audit_share
        Share of the candidates that would not be calculated which go on all the same, drawn by
        lot; at most half the places where the stage keeps only some. 0 measures nothing.
    min_chance
        Chance of a discovery below which a calculation is not worth its cost.
    cost_exponent
        Power of the core-hours that the chance is divided by; 0 ignores the cost.
    hull_first
        Calculate candidates on or below the present hull before all others, whatever they cost:
        everything else is judged against them.
    prior_uncertainty
        Standard deviation between the levels of theory before the first lesson (eV/atom).
    """

    audit_share: float = 0.05
    min_chance: float = 0.01
    cost_exponent: float = 1.0
    hull_first: bool = True
    prior_uncertainty: float = 0.1

    def __post_init__(self) -> None:
        for name in ("audit_share", "min_chance"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if not self.prior_uncertainty > 0 or self.cost_exponent < 0:
            raise ValueError("prior_uncertainty must be positive, cost_exponent not negative")

    def select(self, batch: Sequence[Judged], request: SelectionRequest) -> list[Choice]:
        """Return one choice per candidate, in order."""
        refused = [refusal(judged, request) for judged in batch]
        prospects = self._prospects(batch, refused, request)
        worthy = [
            index
            for index in sorted(prospects, key=lambda i: (*self._order(prospects[i]), i))
            if refused[index] is None
        ]
        ranks = {index: rank for rank, index in enumerate(worthy, 1)}
        rng = np.random.default_rng(request.seed)
        audited, chosen, too_dear = self._choose(prospects, worthy, request, rng)
        choices = []
        for index, judged in enumerate(batch):
            turned_down = refused[index]
            prospect = prospects.get(index)
            if prospect is None:
                choices.append(turned_down or _unknown(judged))
                continue
            evidence = prospect.evidence()
            if index in ranks:
                evidence["rank"] = float(ranks[index])
            if index not in chosen:
                evidence |= {AUDIT: float(index in audited), TURNED_DOWN: float(bool(turned_down))}
            else:
                evidence[AUDIT] = 0.0
            rank = f"rank {ranks[index]} of {len(worthy)}" if index in ranks else ""
            words = f"{100 * prospect.chance:.1f} % for {prospect.hours:.3g} core-hours"
            outcome, reason = "held", f"{rank}: {words}; the places went to others"
            if index in chosen:
                outcome, reason = "passed", f"{rank} by the chance of a discovery: {words}"
            elif index in audited:
                why = turned_down.reason if turned_down else rank
                outcome, reason = "passed", f"audit, drawn by lot among the others: {why}"
            elif turned_down is not None:
                outcome, reason = turned_down.outcome, turned_down.reason
            elif index in too_dear:
                reason = f"{rank}: {prospect.hours:.3g} core-hours do not fit the budget left"
            elif prospect.chance < self.min_chance:
                reason = f"{words}, less than the {100 * self.min_chance:g} % worth a calculation"
            name = judged.candidate.candidate_id
            choices.append(
                Choice(candidate_id=name, outcome=outcome, reason=reason, evidence=evidence)
            )
        return choices

    def _prospects(
        self, batch: Sequence[Judged], refused: Sequence[Choice | None], request: SelectionRequest
    ) -> dict[int, _Prospect]:
        """Return what a calculation promises, for all whose distance is known."""
        distances: dict[int, float] = {}
        for index, judged in enumerate(batch):
            turned_down = refused[index]
            known = judged.candidate.quantities.get(_DISTANCE)
            failed = turned_down is not None and turned_down.outcome == "failed"
            if known is not None and np.isfinite(known.value) and not failed:
                distances[index] = known.value
        correction = self._correction(request)
        compositions = [batch[index].candidate.structure.composition for index in distances]
        corrected = correction.correct(compositions, np.array(list(distances.values())))
        found = {}
        for place, (index, distance) in enumerate(distances.items()):
            candidate = batch[index].candidate
            mean, spread = float(corrected.mean[place]), float(corrected.spread[place])
            chance = _chance(candidate.quantities, mean + spread * _GRID, request.objective)
            hours: float | None = 1.0
            if request.calculation is not None:
                hours = request.calculation.core_hours(candidate.structure)
            score = 0.0  # what cannot be estimated comes last
            if hours is not None:
                # Where the grid ends, the nearer still goes before the farther.
                fine = chance + 1e-4 * float(norm.cdf(-mean / spread))
                score = fine / max(hours, 1e-6) ** self.cost_exponent
            hours = hours or 0.0
            found[index] = _Prospect(distance, mean, spread, chance, hours, score)
        return found

    def _order(self, prospect: _Prospect) -> tuple[bool, float]:
        return not (self.hull_first and prospect.distance <= 0.0), -prospect.score

    def _correction(self, request: SelectionRequest) -> Correction:
        path = request.resources.paths.get(RESOURCE)
        if path is None:
            return Correction.prior(self.prior_uncertainty)
        return load(path, request.resources.digests.get(RESOURCE, ""))

    def _choose(
        self,
        prospects: dict[int, _Prospect],
        worthy: Sequence[int],
        request: SelectionRequest,
        rng: np.random.Generator,
    ) -> tuple[set[int], set[int], set[int]]:
        """Return who is audited, who is chosen, and who would be but costs too much."""
        able = [index for index in worthy if prospects[index].chance >= self.min_chance]
        places = len(able) if request.keep is None else request.keep
        others = len(prospects) - min(len(able), places)
        # Rounded by lot, so that small batches get their share over time.
        count = int(self.audit_share * others + rng.random())
        ranked = able
        if request.keep is not None:
            count = min(count, max(request.keep // 2, 1))
            ranked = able[: max(places - count, 0)]
        pool = [index for index in sorted(prospects) if index not in set(ranked)]
        drawn = [pool[i] for i in rng.permutation(len(pool))[:count]]
        left = request.calculation.left if request.calculation else None
        purse = _Purse(float("inf") if left is None else left)
        audited = {index for index in drawn if purse.pays(prospects[index].hours)}
        chosen = {index for index in ranked if purse.pays(prospects[index].hours)}
        return audited, chosen, set(ranked) - chosen


@dataclass(frozen=True)
class _Prospect:
    """What is known of a candidate before it is calculated."""

    distance: float
    mean: float
    spread: float
    chance: float
    hours: float
    score: float

    def evidence(self) -> dict[str, float]:
        return {
            _DISTANCE: self.distance,
            "corrected_e_above_hull": self.mean,
            "uncertainty": self.spread,
            "probability_of_discovery": self.chance,
            "core_hours": self.hours,
        }


@dataclass
class _Purse:
    left: float
    paid: list[float] = field(default_factory=list)

    def pays(self, hours: float) -> bool:
        if sum(self.paid) + hours > self.left:
            return False
        self.paid.append(hours)
        return True


def _unknown(judged: Judged) -> Choice:
    return Choice(
        candidate_id=judged.candidate.candidate_id,
        outcome="held",
        reason="its distance to the hull is not known: hull_distance must come before",
    )


def _chance(quantities: dict[str, Quantity], distances: Array, objective: Objective) -> float:
    """Return the share of sampled distances that make a discovery, by what is known."""
    values: dict[str, tuple[Array | float, str]] = {
        name: (quantity.value, quantity.unit) for name, quantity in quantities.items()
    }
    values[_DISTANCE] = (distances, "eV/atom")
    held = np.broadcast_to(objective.feasibilities(values), distances.shape)
    criterion = parse(objective.discovery)
    comparisons = [criterion, *map(parse, objective.constraints)]
    if criterion.names <= values.keys():
        held = held * np.asarray(criterion.evaluate(values), dtype=float)
    if not any(_DISTANCE in c.names and c.names <= values.keys() for c in comparisons):
        held = held * (distances <= 0.0)
    return float(np.mean(held))
