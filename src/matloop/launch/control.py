"""Orders to a campaign: pause, resume, stop; written to the ledger, then carried out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from matloop.documents.operation import Control, Order
from matloop.errors import ConfigurationError
from matloop.jobs.advance import stopped
from matloop.jobs.placement import TAG
from matloop.ledger.interface import Ledger

if TYPE_CHECKING:
    from fireworks import LaunchPad

_AFFECTED: dict[Order, list[str]] = {
    "pause": ["READY", "WAITING"],
    "stop": ["READY", "WAITING", "PAUSED", "FIZZLED"],
}
_IN_WORDS = {"pause": "paused", "resume": "resumed", "stop": "stopped"}


def give(ledger: Ledger, campaign_id: str, order: Order, given_by: str, place: str) -> Control:
    """Record an order to a campaign; `enforce` carries it out.

    Parameters
    ----------
    ledger
        Where the campaign is recorded.
    campaign_id
        The campaign.
    order
        What it is to do.
    given_by
        Who says so.
    place
        Name of the ledger, for messages.

    Raises
    ------
    ConfigurationError
        If there is no such campaign, it has ended, or it stands like that already.
    """
    if ledger.campaign(campaign_id) is None:
        known = ", ".join(record.campaign_id for record in ledger.campaigns()) or "none"
        raise ConfigurationError(f"{place} has no campaign {campaign_id!r}; it has {known}")
    while True:
        orders = ledger.controls(campaign_id)
        _refuse(ledger, campaign_id, order, orders)
        control = Control(
            campaign_id=campaign_id,
            number=len(orders),
            order=order,
            given_by=given_by,
            given_at=datetime.now(UTC),
        )
        if ledger.add_control(control):
            break  # otherwise another order came first, and is looked at
    if order == "stop":
        stopped(ledger, campaign_id, f"stopped by {given_by}")
    return control


def in_force(ledger: Ledger, campaign_id: str) -> Order:
    """Return the order in force; a campaign that was told nothing goes on."""
    orders = ledger.controls(campaign_id)
    return orders[-1].order if orders else "resume"


def enforce(launchpad: LaunchPad, ledger: Ledger, campaign_id: str) -> int:
    """Carry out the order in force on a campaign's workflows; repeating it does no harm.

    Paused, what is not begun is out of the workers' reach until the campaign resumes; stopped, for
    good. What runs goes on to its end, and what it adds to the workflow meanwhile is found by the
    next call.

    Returns
    -------
    int
        How many fireworks changed.
    """
    from matloop.launch import transitions  # FireWorks is no part of every installation
    from matloop.launch.patience import HELD

    orders = ledger.controls(campaign_id)
    if not orders:
        return 0
    order = orders[-1].order
    if order == "stop":
        stopped(ledger, campaign_id, f"stopped by {orders[-1].given_by}")
    held = launchpad.db[HELD]
    if order == "resume":
        held.delete_one({"_id": campaign_id})
        query = {f"metadata.{TAG}.campaign": campaign_id, f"metadata.{TAG}.held": True}
        paused = [item["nodes"][0] for item in launchpad.workflows.find(query, {"nodes": 1})]
        return sum(transitions.let_go(launchpad, fw_id) for fw_id in paused)
    held.update_one({"_id": campaign_id}, {"$set": {"order": order}}, upsert=True)
    query = {f"spec.{TAG}.campaign": campaign_id, "state": {"$in": _AFFECTED[order]}}
    left = {item["fw_id"] for item in launchpad.fireworks.find(query, {"fw_id": 1})}
    changed = 0
    while left:
        fw_id = min(left)
        workflow = launchpad.workflows.find_one({"nodes": fw_id}, {"nodes": 1})
        if workflow is not None:
            changed += transitions.hold(
                launchpad, fw_id, "PAUSED" if order == "pause" else "DEFUSED"
            )
        left -= {fw_id, *(workflow or {}).get("nodes", [])}
    return changed


def _refuse(ledger: Ledger, campaign_id: str, order: Order, orders: list[Control]) -> None:
    states = ledger.states(campaign_id)
    if states and states[-1].status == "finished":
        raise ConfigurationError(
            f"campaign {campaign_id!r} has ended ({states[-1].reason}); there is nothing to {order}"
        )
    now = orders[-1].order if orders else "resume"
    if now == "stop":
        raise ConfigurationError(
            f"campaign {campaign_id!r} was stopped; submit it under a new name"
        )
    if now == order:
        state = "not paused" if order == "resume" else f"{_IN_WORDS[order]} already"
        raise ConfigurationError(f"campaign {campaign_id!r} is {state}")
