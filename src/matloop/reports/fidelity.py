"""The levels of theory of a campaign, compared: parity, flips, the audit, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from scipy.stats import norm

from matloop.documents.account import Account
from matloop.documents.decision import AUDIT, TURNED_DOWN, Decision
from matloop.documents.phase import PhaseSet
from matloop.jobs.reading import compared
from matloop.ledger.accounts import accounts, settled
from matloop.ledger.interface import Ledger
from matloop.reports.comparison import AuditRow, CostPair, Fidelity, LevelPair
from matloop.reports.history import Followed, History
from matloop.reports.stability import Energies
from matloop.reports.yields import wilson_interval
from matloop.structures.shared_hull import SharedHull, unknown_above
from matloop.surrogates.fidelity import LEVEL

_WIDTH = float(norm.ppf(0.5 + LEVEL / 2))
_DISTANCE = "e_above_hull"
_CORRECTED = "corrected_e_above_hull"
_LESSON = "fidelity_correction"


def fidelity(
    ledger: Ledger, history: History, hulls: Sequence[PhaseSet | None], energies: Energies
) -> Fidelity | None:
    """Return the comparison of the two lowest levels of theory; None where there is one.

    Parameters
    ----------
    ledger
        The database.
    history
        The campaign.
    hulls
        The phases of each level, lowest first.
    energies
        The final hull of the highest level.
    """
    known = [hull for hull in hulls if hull is not None]
    if len(known) < 2:
        return None
    lower, upper = known[:2]
    stage = history.levels[1].energy
    assert stage is not None
    before = history.levels[0].stages[-1]
    pairs = _pairs(history, SharedHull(lower, upper), before)
    stable = history.record.campaign.objective.stable
    sides = [(stable(pair.lower), stable(pair.upper)) for pair in pairs]
    told = [pair for pair in pairs if pair.corrected is not None]
    errors = [abs(pair.upper - (pair.corrected or 0.0)) for pair in told]
    inside = [e <= _WIDTH * (p.uncertainty or 0.0) for e, p in zip(errors, told, strict=True)]
    metrics = history.states[-1].metrics
    promotions = [item.decisions[before] for item in history.candidates if before in item.decisions]
    return Fidelity(
        lower=lower.theory,
        upper=upper.theory,
        stage=stage.name,
        pairs=pairs,
        mean_difference=_mean(pair.upper - pair.lower for pair in pairs),
        mae=_mean(abs(pair.upper - pair.lower) for pair in pairs),
        foretold=len(told),
        mae_foretold=_mean(errors),
        coverage=_mean(map(float, inside)),
        half_width=metrics.get(f"{_LESSON}.half_width_90"),
        stable_both=sides.count((True, True)),
        stable_lower_only=sides.count((True, False)),
        stable_upper_only=sides.count((False, True)),
        stable_neither=sides.count((False, False)),
        promoted=sum(d.outcome == "passed" and d.evidence.get(AUDIT) != 1.0 for d in promotions),
        audit=_audit(history, before, energies),
        uncalculated=tuple(
            dict.fromkeys(
                p.structure.composition.reduced_formula for p in unknown_above(*known[:2])
            )
        ),
        costs=_costs(ledger, history),
    )


def told_accounts(ledger: Ledger, history: History) -> tuple[Account, ...]:
    """Return the accounts worth telling: all, if anything is limited in hours or calculated."""
    known = accounts(ledger, history.record.campaign_id).values()
    if not any(_is_worth_telling(account) for account in known):
        return ()
    return tuple(known)


def _is_worth_telling(account: Account) -> bool:
    limits = (account.core_hours.limit, account.gpu_hours.limit)
    return bool(account.calculations or account.running) or limits != (None, None)


def _pairs(history: History, hull: SharedHull, before: str) -> tuple[LevelPair, ...]:
    both = {item.candidate_id: item for item in history.candidates if None not in item.levels[:2]}
    sides = [
        {name: level for name, item in both.items() if (level := item.levels[side]) is not None}
        for side in (0, 1)
    ]
    distances = compared(sides[0], sides[1], hull)
    return tuple(
        _pair(item, *distances[name], item.decisions.get(before))
        for name, item in both.items()
        if name in distances
    )


def _pair(item: Followed, lower: float, upper: float, promotion: Decision | None) -> LevelPair:
    known = promotion.evidence if promotion else {}
    corrected = None
    if _CORRECTED in known and _DISTANCE in known:  # what was expected of the difference
        corrected = lower + known[_CORRECTED] - known[_DISTANCE]
    return LevelPair(
        candidate_id=item.candidate_id,
        formula=item.final.structure.composition.reduced_formula,
        iteration=item.record.iteration,
        lower=lower,
        upper=upper,
        corrected=corrected,
        uncertainty=known.get("uncertainty"),
        audit=known.get(AUDIT) == 1.0,
    )


def _audit(history: History, before: str, energies: Energies) -> tuple[AuditRow, ...]:
    """Return what became of the audited, by why they were not promoted."""
    stable = history.record.campaign.objective.stable
    groups: dict[str, list[tuple[Decision, bool | None]]] = {}
    for item in history.candidates:
        decision = item.decisions.get(before)
        if decision is None or TURNED_DOWN not in decision.evidence:
            continue
        if decision.evidence[TURNED_DOWN] == 1.0:
            kind = "rejected"
        else:
            kind = "within" if stable(decision.evidence[_DISTANCE]) else "beyond"
        distance = energies.above_hull(item)
        groups.setdefault(kind, []).append(
            (decision, None if distance is None else stable(distance))
        )
    if not groups:
        return ()
    rows = [
        _audit_row("rejected", groups.get("rejected", [])),
        _audit_row("beyond", groups.get("beyond", [])),
        _audit_row("within", groups.get("within", [])),
    ]
    negative = groups.get("rejected", []) + groups.get("beyond", [])
    return (*rows, _audit_row("negative", negative))


def _audit_row(
    kind: Literal["rejected", "beyond", "within", "negative"],
    group: Sequence[tuple[Decision, bool | None]],
) -> AuditRow:
    audited = [known for decision, known in group if decision.evidence.get(AUDIT) == 1.0]
    judged = [known for known in audited if known is not None]
    confirmed = sum(judged)
    low, high = wilson_interval(confirmed, len(judged))
    return AuditRow(
        kind=kind,
        others=len(group),
        audited=len(audited),
        calculated=len(judged),
        confirmed=confirmed,
        rate=confirmed / len(judged) if judged else 0.0,
        low=low,
        high=high,
    )


def _costs(ledger: Ledger, history: History) -> tuple[CostPair, ...]:
    reservations = ledger.reservations(history.record.campaign_id)
    costs = ledger.costs(item.key for item in reservations)
    return tuple(
        CostPair(
            candidate_id=item.candidate_id,
            estimated=item.core_hours,
            actual=settled(item, *costs[item.key]),
        )
        for item in reservations
        if item.key in costs
    )


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return float(np.mean(listed)) if listed else None
