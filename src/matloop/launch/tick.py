"""One step of every campaign: count, mend, go on, share; for cron, scrontab and systemd timers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from matloop.documents.campaign import CampaignRecord
from matloop.errors import ConfigurationError, LedgerLockedError, SchedulerError
from matloop.jobs.placement import TAG
from matloop.launch import recovery, workers
from matloop.launch.receipts import settle, shares
from matloop.launch.site import Site
from matloop.launch.submission import Outcome, ensure
from matloop.launch.transitions import TO_DO
from matloop.ledger.interface import Ledger

if TYPE_CHECKING:
    from fireworks import LaunchPad

LEASE = "*tick*"
"""Name of the lock under which one tick works at a time; no campaign can be called so."""


@dataclass(frozen=True)
class Tick:
    """What a tick did.

    Attributes
    ----------
    lines
        One line per campaign, in the order of their names.
    busy
        Whether another tick was at it, so that this one did nothing.
    settled
        Receipts written or found to be there.
    healed
        What was found broken.
    workers
        Ids of the jobs submitted by kind.
    notes
        What else people should know.
    """

    lines: tuple[str, ...] = ()
    busy: bool = False
    settled: int = 0
    healed: recovery.Healed = field(default_factory=recovery.Healed)
    workers: Mapping[str, Sequence[str]] | None = None
    notes: tuple[str, ...] = ()


def tick(
    site: Site,
    launchpad: LaunchPad,
    ledger: Ledger,
    names: Sequence[str] | None = None,
    *,
    top_up: bool = False,
) -> Tick:
    """Take one step of campaigns; whoever calls it and however often, it is taken once.

    Parameters
    ----------
    site
        The site.
    launchpad, ledger
        The site's.
    names
        Campaigns to go on with; None for all. What is broken is mended in all of them.
    top_up
        Submit workers for the work there is.

    Raises
    ------
    ConfigurationError
        If there is no campaign of a name.
    """
    records = ledger.campaigns()
    known = {record.campaign_id: record for record in records}
    for name in names or ():
        if name not in known:
            there = ", ".join(known) or "none"
            raise ConfigurationError(f"site {site.name} has no campaign {name!r}; it has {there}")
    try:
        with ledger.lock(LEASE):
            return _step(site, launchpad, ledger, [known[n] for n in names or known], top_up)
    except LedgerLockedError:
        return Tick(busy=True)


def _step(
    site: Site,
    launchpad: LaunchPad,
    ledger: Ledger,
    records: Sequence[CampaignRecord],
    top_up: bool,
) -> Tick:
    healed = recovery.heal(site, launchpad, ledger)
    settled = settle(site, launchpad, ledger)
    notes = [f"{healed.blind}: jobs that died with it are found later"] if healed.blind else []
    lines = []
    for record in sorted(records, key=lambda item: item.campaign_id):
        name = record.campaign_id
        outcome = ensure(site, name, ledger, launchpad)
        mended = healed.of(name).summary()
        why = ""
        if not outcome.submitted and outcome.reason == "running":
            why = recovery.stalled(site, launchpad, name)
        lines.append(f"{name}: {_in_words(outcome, why)}" + (f"; {mended}" if mended else ""))
    prioritise(site, launchpad, ledger, ledger.campaigns())
    submitted = None
    if top_up:
        try:
            submitted = workers.up(site, launchpad=launchpad)
        except SchedulerError as error:
            notes.append(f"no workers were submitted: {error}")
    return Tick(tuple(lines), False, settled, healed, submitted, tuple(notes))


def prioritise(
    site: Site, launchpad: LaunchPad, ledger: Ledger, records: Sequence[CampaignRecord]
) -> dict[str, int]:
    """Let the campaign come first that has had least of the site for its weight.

    Parameters
    ----------
    site
        The site.
    launchpad, ledger
        The site's.
    records
        The campaigns that share it.

    Returns
    -------
    dict[str, int]
        FireWorks' priority of each campaign that is in progress, higher for what comes first.
    """
    running = [
        record
        for record in records
        if (states := ledger.states(record.campaign_id)) == [] or states[-1].status == "running"
    ]
    taken = shares(site, launchpad, ledger, [record.campaign_id for record in running])
    ranked = sorted(
        running,
        key=lambda r: (-taken[r.campaign_id] / r.campaign.budget.weight, r.campaign_id),
    )
    priorities = {record.campaign_id: rank for rank, record in enumerate(ranked)}
    for name, priority in priorities.items():
        if len(priorities) > 1:
            query = {
                f"spec.{TAG}.campaign": name,
                "state": {"$in": [*TO_DO]},
                "spec._priority": {"$ne": priority},
            }
            launchpad.fireworks.update_many(query, {"$set": {"spec._priority": priority}})
    return priorities


def _in_words(outcome: Outcome, stalled: str) -> str:
    turn = "the preparation" if outcome.iteration < 0 else f"iteration {outcome.iteration}"
    if outcome.submitted:
        return f"submitted {turn} ({len(outcome.fw_ids)} jobs)"
    if stalled:
        return f"stalled in {turn}: {stalled}"
    if outcome.reason == "running":
        return f"{turn} is under way"
    return outcome.reason
