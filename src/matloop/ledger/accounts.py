"""A campaign's accounts: what each stage and the whole have spent, reserved and left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from matloop.documents.account import Account, Balance
from matloop.documents.campaign import Budget, Stage
from matloop.documents.evaluation import Cost
from matloop.documents.operation import Reservation
from matloop.errors import LedgerError
from matloop.ledger.interface import Ledger

WHOLE = ""
"""Name of the account of the whole campaign."""


@dataclass
class _Sums:
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    reserved: float = 0.0
    calculations: int = 0
    running: int = 0


def accounts(
    ledger: Ledger, campaign_id: str, *, without: tuple[int, str] | None = None
) -> dict[str, Account]:
    """Return the accounts of a campaign: one per stage, in order, and `WHOLE`.

    A result counts once, on the stage that first rested on it, and only if this campaign paid for
    it: what was in the ledger before the campaign began is free. A calculation counts from its
    reservation on, at first with its estimate and then, once it has a verdict, with its cost.

    Parameters
    ----------
    ledger
        The database.
    campaign_id
        The campaign.
    without
        Iteration and stage whose results are left out, because the caller counts them; its
        calculations are not.

    Raises
    ------
    LedgerError
        If the ledger holds no such campaign.
    """
    record = ledger.campaign(campaign_id)
    if record is None:
        raise LedgerError(f"the ledger holds no campaign {campaign_id!r}")
    stages = {stage.name: stage for stage in record.campaign.stages}
    sums = {name: _Sums() for name in stages}
    reservations = ledger.reservations(campaign_id)
    reserved = {item.key for item in reservations}
    first: dict[str, str] = {}  # key of a result, stage that pays
    for decision in ledger.decisions(campaign_id):
        if (decision.iteration, decision.stage) != without:
            for key in decision.evaluations:
                first.setdefault(key, decision.stage)
    costs = ledger.costs(dict.fromkeys([*first, *(item.key for item in reservations)]))
    for key, stage in first.items():
        if key in reserved or key not in costs:
            continue
        cost, when = costs[key]
        if when >= record.created_at:
            sums[stage].core_hours += cost.core_hours
            sums[stage].gpu_hours += cost.gpu_hours
    for item in reservations:
        own = sums[item.stage]
        if item.key not in costs:
            own.reserved += item.core_hours
            own.running += 1
            continue
        cost, when = costs[item.key]
        own.core_hours += settled(item, cost, when)
        own.gpu_hours += cost.gpu_hours
        own.calculations += 1
    found = {name: _account(name, stages[name], [sums[name]]) for name in stages}
    found[WHOLE] = _account(WHOLE, record.campaign.budget, sums.values())
    return found


def settled(reservation: Reservation, cost: Cost, when: datetime) -> float:
    """Return the core-hours of a calculation that has a verdict.

    One that died before it could say what it cost is charged with the time until its verdict, at
    most with what was reserved.

    Parameters
    ----------
    reservation
        What was set aside for it.
    cost
        What its evaluation says.
    when
        When that was recorded.
    """
    if cost.seconds > 0:
        return cost.core_hours
    passed = (when - reservation.reserved_at).total_seconds() * cost.threads / 3600
    return min(reservation.core_hours, max(passed, 0.0))


def _account(name: str, limits: Stage | Budget, sums: Iterable[_Sums]) -> Account:
    listed = list(sums)
    return Account(
        stage=name,
        core_hours=Balance(
            limit=limits.core_hours,
            spent=sum(item.core_hours for item in listed),
            reserved=sum(item.reserved for item in listed),
        ),
        gpu_hours=Balance(limit=limits.gpu_hours, spent=sum(item.gpu_hours for item in listed)),
        calculations=sum(item.calculations for item in listed),
        running=sum(item.running for item in listed),
    )
