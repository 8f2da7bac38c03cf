"""Summarise a campaign: every number of its report, out of the ledger."""

from __future__ import annotations

from matloop.documents.theory import LevelOfTheory
from matloop.ledger.interface import Ledger
from matloop.reports.contents import CampaignSummary, Spent
from matloop.reports.discoveries import (
    Crystals,
    findings,
    judge,
    rediscoveries,
    reference_crystals,
)
from matloop.reports.fidelity import fidelity, told_accounts
from matloop.reports.funnel import funnel_rows, funnel_totals
from matloop.reports.history import History, read_archive, read_history, read_phases
from matloop.reports.pareto import pareto_front
from matloop.reports.parity import parities
from matloop.reports.stability import Energies, final_phases, hull_points
from matloop.reports.yields import (
    arms,
    baseline_arm,
    cumulative,
    generator_rows,
    progress_points,
    versus,
)

__all__ = ["CampaignSummary", "summarize"]


def summarize(
    ledger: Ledger, campaign_id: str, baseline: CampaignSummary | None = None
) -> CampaignSummary:
    """Return everything a report says of a campaign, whether it runs, has ended or found nothing.

    Parameters
    ----------
    ledger
        The database.
    campaign_id
        The campaign.
    baseline
        Summary of another campaign to compare with, such as one without feedback.

    Raises
    ------
    LedgerError
        If the ledger holds no such campaign, or it has not started.
    """
    history = read_history(ledger, campaign_id)
    state = history.states[-1]
    hulls = [read_phases(ledger, state.resources.get(level.resource)) for level in history.levels]
    phases = final_phases(history, hulls[-1])
    withheld = read_archive(ledger, state.resources.get("withheld"))
    energies = Energies(phases)
    references = reference_crystals(*hulls)
    hidden = Crystals((known.known_id, known.structure) for known in withheld.crystals)

    costs = history.costs()
    sums = cumulative(costs)
    spent = sums[-1] if sums else Spent()
    verdicts = judge(history, references, energies)
    found = verdicts.discoveries
    progress = progress_points(history, sums, found)
    rows = arms(history, costs, found, verdicts.duplicates)
    if baseline is not None and spent.relaxations:
        rows = (*rows, baseline_arm(baseline, spent.relaxations))
    return CampaignSummary(
        record=history.record,
        status=state.status,
        reason=state.reason,
        iterations=len(history.states) - (state.status == "finished"),
        updated_at=state.created_at,
        funnel=funnel_rows(history, costs),
        totals=funnel_totals(history, costs),
        spent=spent,
        findings=findings(history, verdicts, references, hidden, energies, sums),
        known_again=verdicts.known_again,
        duplicates=len(verdicts.duplicates),
        superseded=verdicts.superseded,
        known_crystals=len(references),
        rediscoveries=rediscoveries(history, withheld, verdicts, energies, sums),
        hull=hull_points(history, energies),
        progress=progress,
        generators=generator_rows(history, costs, found),
        parities=parities(history),
        arms=rows,
        versus=versus(progress, baseline) if baseline is not None else None,
        theories=_theories(history),
        metrics=tuple(item.metrics for item in history.states),
        diversity=tuple(row for item in history.states for row in item.diversity),
        alarms=tuple(alarm for item in history.states for alarm in item.alarms),
        fidelity=fidelity(ledger, history, hulls, energies),
        front=pareto_front(history, found, references, energies),
        accounts=told_accounts(ledger, history),
    )


def _theories(history: History) -> tuple[LevelOfTheory, ...]:
    theories = (
        record.evaluation.theory for item in history.candidates for record in item.evaluations
    )
    found = {theory.key: theory for theory in theories if theory is not None}
    return tuple(found[key] for key in sorted(found))
