"""The campaign's past as its jobs need it: who enters a stage, and what learners are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matloop.documents.campaign import Campaign
from matloop.documents.candidate import Candidate
from matloop.ledger.interface import Ledger
from matloop.ledger.past import Past, read_past
from matloop.protocols import Evaluator, Observation, Resources


def entering(
    ledger: Ledger, campaign_id: str, campaign: Campaign, iteration: int, stage: str
) -> list[Candidate]:
    """Return the candidates that passed every stage before one, as they stand on entering it."""
    names = [item.name for item in campaign.stages]
    before = names[: names.index(stage)]
    return [
        item.after(before)
        for item in read_past(ledger, campaign_id, campaign, iteration)
        if all(item.passed(name) for name in before)
    ]


def observations(past: Sequence[Past], campaign: Campaign) -> list[Observation]:
    """Return the history as learners see it."""
    seen = []
    last = campaign.stages[-1].name
    for item in past:
        quantities = item.candidate.quantities
        seen.append(
            Observation(
                proposed=item.record.candidate,
                final=item.candidate,
                iteration=item.record.iteration,
                generator=item.candidate.origin.generator,
                utility=campaign.objective.utility(quantities),
                discovery=item.passed(last) and campaign.objective.is_discovery(quantities),
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
