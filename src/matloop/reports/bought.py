"""What buying a candidate would have brought: its recorded cost, and the discovery it ends as."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.evaluation import Cost, Evaluation
from matloop.documents.pareto import hypervolume, reference_point
from matloop.jobs.calculate import Calculation
from matloop.jobs.evaluation import Effort, evaluate
from matloop.jobs.stage import stage_evaluators
from matloop.jobs.workers import never
from matloop.ledger.interface import Ledger
from matloop.protocols import Evaluator, Resources
from matloop.reports.discoveries import Crystals, judge, reference_crystals
from matloop.reports.history import MATCHER, Followed, History, read_phases
from matloop.reports.stability import DISTANCE, ENERGY, Energies, final_phases
from matloop.structures.identity import IncomparableError

Measure = Literal["work", "hours"]


@dataclass(frozen=True)
class Label:
    """What is on record of a candidate after a stage let it pass, or would have.

    Attributes
    ----------
    costs
        Cost of each evaluation, by key: what two candidates share is paid once.
    discovery
        Id of the distinct discovery it ends as; empty if it is none.
    elsewhere
        Whether the campaign did not buy it, and its result is there all the same: the same crystal
        was evaluated as another candidate, or by another campaign in the database.
    gains
        With several goals, what each reads on the final hull, larger is better; empty where one is
        unknown or a constraint violated.
    """

    costs: Mapping[str, float]
    discovery: str
    elsewhere: bool = False
    gains: tuple[float, ...] = ()


@dataclass(frozen=True)
class Labels:
    """The labels of a campaign after one stage.

    Attributes
    ----------
    known
        By candidate id.
    measure
        Unit of the costs: deterministic ``work`` (atoms times force evaluations), or ``hours`` of
        cores and accelerators where a later stage calculates with an engine.
    discoveries
        Distinct discoveries of the campaign, as its report counts them.
    reference
        With several goals, the point from which volumes are measured, as gains are; else None.
    """

    known: Mapping[str, Label]
    measure: Measure
    discoveries: int
    reference: tuple[float, ...] | None = None

    def volume(self, names: Collection[str]) -> float:
        """Return the share of the volume that all labelled crystals dominate; 0 with one goal.

        Parameters
        ----------
        names
            Candidate ids.
        """
        if self.reference is None:
            return 0.0
        worst = np.array(self.reference)
        every, own = (
            np.array([self.known[name].gains for name in some if self.known[name].gains])
            for some in (self.known, names)
        )
        whole = hypervolume(every, worst) if len(every) else 0.0
        return hypervolume(own, worst) / whole if whole and len(own) else 0.0


def read_labels(
    ledger: Ledger, history: History, stage: str, candidates: Sequence[Candidate]
) -> Labels:
    """Return what is known of candidates beyond a stage.

    Discoveries are those of the report: on the campaign's final hull, new and distinct. Whatever
    ends as the crystal of a discovery has found it, also where the campaign turned it down as a
    duplicate of the first. One that only another campaign evaluated is judged on the same hull.

    Parameters
    ----------
    ledger
        Where evaluations are looked up.
    history
        The campaign.
    stage
        Name of the stage.
    candidates
        As they left the stage's evaluators, of all iterations.
    """
    campaign = history.record.campaign
    names = [item.name for item in campaign.stages]
    later = campaign.stages[names.index(stage) + 1 :]
    measure: Measure = "hours" if any(item.calculate for item in later) else "work"
    state = history.states[-1]
    hulls = [read_phases(ledger, state.resources.get(level.resource)) for level in history.levels]
    energies = Energies(final_phases(history, hulls[-1]))
    references = reference_crystals(*hulls)
    verdicts = judge(history, references, energies)
    by_id = {item.candidate_id: item for item in history.candidates}
    found = Crystals((name, by_id[name].final.structure) for name in verdicts.discoveries)
    own = {item.name for item in later}
    known = {
        name: Label(
            {key: _price(cost, measure) for key, cost in _paid(item, own).items()},
            _ends_as(item, found, verdicts.discoveries),
            gains=_gains(energies.refreshed(item), history) if item.relaxed else (),
        )
        for name, item in by_id.items()
        if _is_labelled(item, own)
    }
    missing = [item for item in candidates if item.candidate_id not in known]
    evaluators = [
        evaluator
        for item in later
        for evaluator in stage_evaluators(campaign, item, elsewhere=True)
        if getattr(evaluator, "moves_atoms", False)
    ]
    for item, said in _found(ledger, missing, evaluators).items():
        final = _final(next(c for c in missing if c.candidate_id == item), said)
        soundly = all(evaluation.verdict == "pass" for _, evaluation in said)
        there = _seen(final, energies) if soundly else None
        name = _judged(final, there, history, references, found) if there else ""
        costs = {key: _price(evaluation.cost, measure) for key, evaluation in said}
        gains = _gains(there, history) if there else ()
        known[item] = Label(costs, name, elsewhere=True, gains=gains)
    reference = _reference(history, energies, known)
    return Labels(known, measure, len(verdicts.discoveries), reference)


def _is_labelled(item: Followed, later: Collection[str]) -> bool:
    """Whether it was bought, and did not stop on its way for want of time or money."""
    decisions = [d for name, d in item.decisions.items() if name in later]
    if not decisions or not decisions[0].evaluations:
        return False
    return not (decisions[-1].outcome == "held" and decisions[-1].late)


def _paid(item: Followed, later: Collection[str]) -> dict[str, Cost]:
    costs = {record.key: record.evaluation.cost for record in item.evaluations}
    keys = [key for name, d in item.decisions.items() if name in later for key in d.evaluations]
    return {key: costs[key] for key in keys}


def _price(cost: Cost, measure: Measure) -> float:
    return cost.work if measure == "work" else cost.core_hours + cost.gpu_hours


def _ends_as(item: Followed, found: Crystals, discoveries: Collection[str]) -> str:
    if item.candidate_id in discoveries:
        return item.candidate_id
    failed = any(decision.outcome == "failed" for decision in item.decisions.values())
    if not item.relaxed or failed:
        return ""
    return found.match(item.reduced) or ""


def _found(
    ledger: Ledger, candidates: Sequence[Candidate], evaluators: Sequence[Evaluator]
) -> dict[str, list[tuple[str, Evaluation]]]:
    """Return what the ledger holds of candidates that the campaign did not buy, by id."""
    if not candidates or not evaluators:
        return {}
    finding = [
        replace(one, found_only=True) if isinstance(one, Calculation) else one for one in evaluators
    ]
    effort = Effort(go_on=never)
    standings = evaluate(finding, candidates, Resources(), ledger, effort)
    return {
        item.candidate.candidate_id: list(zip(item.keys, item.evaluations, strict=True))
        for item in standings
        if item.complete and item.evaluations
    }


def _final(candidate: Candidate, said: Sequence[tuple[str, Evaluation]]) -> Candidate:
    for _, evaluation in said:
        candidate = candidate.updated(evaluation.structure, evaluation.quantities)
    return candidate


def _gains(quantities: Mapping[str, Quantity], history: History) -> tuple[float, ...]:
    objective = history.record.campaign.objective
    if not objective.several or objective.violated(quantities) is not None:
        return ()
    gains = objective.gains_of([quantities])[0]
    return tuple(gains.tolist()) if np.isfinite(gains).all() else ()


def _reference(
    history: History, energies: Energies, known: Mapping[str, Label]
) -> tuple[float, ...] | None:
    """Return the user's point, or the one of all labels; None with one goal or without a label."""
    objective = history.record.campaign.objective
    gains = [label.gains for label in known.values() if label.gains]
    if not gains:
        return None
    for item in history.candidates:
        quantities = energies.refreshed(item)
        if objective.reference and objective.of_goals <= quantities.keys():
            worst = objective.worst({name: one.unit for name, one in quantities.items()})
            return None if worst is None else tuple(worst.tolist())
    return tuple(reference_point(np.array(gains)).tolist())


def _seen(candidate: Candidate, energies: Energies) -> dict[str, Quantity] | None:
    """Return a crystal's quantities with its distance to the final hull; None without one."""
    energy = candidate.quantities.get(ENERGY)
    if energies.phases is None or energy is None or energy.theory != energies.phases.theory.key:
        return None
    distance = energies.distance(candidate.structure.composition, energy.value)
    if distance is None:
        return None
    quantity = Quantity(value=distance, unit="eV/atom", theory=energy.theory)
    return {**candidate.quantities, DISTANCE: quantity}


def _judged(
    candidate: Candidate,
    quantities: Mapping[str, Quantity],
    history: History,
    references: Crystals,
    found: Crystals,
) -> str:
    """Return the discovery that a crystal ends as, adding it where it is a new one."""
    if not history.record.campaign.objective.is_discovery(quantities):
        return ""
    try:
        crystal = MATCHER.reduce(candidate.structure)
    except IncomparableError:
        return ""
    if references.match(crystal) is not None:
        return ""
    known = found.match(crystal)
    if known is None:
        found.add(candidate.candidate_id, crystal)
    return known or candidate.candidate_id
