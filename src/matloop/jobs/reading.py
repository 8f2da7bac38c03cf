"""Read a campaign back from its ledger: candidates as they stand, and the whole history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matloop.documents.campaign import Campaign, CandidateRecord
from matloop.documents.candidate import Candidate
from matloop.documents.decision import Decision
from matloop.documents.evaluation import Evaluation
from matloop.ledger.interface import Ledger
from matloop.protocols import Evaluator, Observation, Resources


@dataclass(frozen=True)
class Past:
    """One candidate with everything the ledger knows of it.

    Attributes
    ----------
    record
        The candidate as proposed.
    candidate
        The candidate as it stands after all stages it went through.
    decisions
        Its decisions, in the order of the stages.
    evaluations
        Its evaluations, in the order they were made.
    """

    record: CandidateRecord
    candidate: Candidate
    decisions: tuple[Decision, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def passed_all(self) -> bool:
        """Whether the last decision let it pass; meaningful once all stages have decided."""
        return bool(self.decisions) and self.decisions[-1].outcome == "passed"

    @property
    def relaxed(self) -> bool:
        """Whether some evaluation moved its atoms."""
        return any(evaluation.structure is not None for evaluation in self.evaluations)


def read_past(
    ledger: Ledger, campaign_id: str, campaign: Campaign, iteration: int | None = None
) -> list[Past]:
    """Return all candidates of a campaign, or of one iteration, in the order proposed."""
    records = ledger.candidates(campaign_id, iteration)
    order = {stage.name: position for position, stage in enumerate(campaign.stages)}
    decided: dict[str, list[Decision]] = {}
    for decision in ledger.decisions(campaign_id, iteration):
        decided.setdefault(decision.candidate_id, []).append(decision)
    results = ledger.evaluations(
        {key for decisions in decided.values() for item in decisions for key in item.evaluations}
    )
    past = []
    for record in records:
        decisions = decided.get(record.candidate.candidate_id, [])
        decisions.sort(key=lambda decision: order[decision.stage])
        candidate, evaluations = record.candidate, []
        for key in (key for decision in decisions for key in decision.evaluations):
            evaluation = results[key].evaluation.model_copy(
                update={"candidate_id": candidate.candidate_id}
            )
            evaluations.append(evaluation)
            candidate = candidate.updated(evaluation.structure, evaluation.quantities)
        past.append(Past(record, candidate, tuple(decisions), tuple(evaluations)))
    return past


def entering(past: Sequence[Past], campaign: Campaign, stage: str) -> list[Past]:
    """Return those that passed every stage before one, as they stood when they entered it."""
    before = [item.name for item in campaign.stages]
    before = before[: before.index(stage)]
    entered = []
    for item in past:
        passed = [d for d in item.decisions if d.stage in before and d.outcome == "passed"]
        if len(passed) == len(before):
            entered.append(item)
    return entered


def observations(past: Sequence[Past], campaign: Campaign) -> list[Observation]:
    """Return the history as learners see it."""
    seen = []
    for item in past:
        quantities = item.candidate.quantities
        seen.append(
            Observation(
                proposed=item.record.candidate,
                final=item.candidate,
                iteration=item.record.iteration,
                generator=item.candidate.origin.generator,
                utility=campaign.objective.utility(quantities),
                discovery=item.passed_all and campaign.objective.is_discovery(quantities),
                work=sum(evaluation.cost.work for evaluation in item.evaluations),
            )
        )
    return seen


def refreshed(
    seen: Sequence[Observation],
    campaign: Campaign,
    evaluators: Sequence[Evaluator],
    resources: Resources,
) -> list[Observation]:
    """Return the history with quantities that depend on the known phases computed anew.

    A distance to the hull judged before a phase was found is out of date once it is. Learners,
    parents and allocation must all see the same hull.
    """
    current = [
        e for e in evaluators if "phases" in e.resources and e.requires and e.scope == "candidate"
    ]
    result = list(seen)
    for evaluator in current:
        known = [
            index
            for index, observation in enumerate(result)
            if set(evaluator.produces) & observation.final.quantities.keys()
        ]
        judged = evaluator.evaluate([result[index].final for index in known], resources)
        for index, evaluation in zip(known, judged, strict=True):
            final = result[index].final.updated(None, evaluation.quantities)
            objective = campaign.objective
            result[index] = replace(
                result[index],
                final=final,
                utility=objective.utility(final.quantities),
                discovery=result[index].discovery and objective.is_discovery(final.quantities),
            )
    return result
