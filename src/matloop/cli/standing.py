"""How a campaign stands beyond its results: orders in force, and who is at work on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matloop.cli.places import Where

if TYPE_CHECKING:
    from matloop.documents.campaign import CampaignRecord
    from matloop.documents.operation import Control
    from matloop.launch.activity import Activity
    from matloop.ledger.interface import Ledger

_IN_WORDS = {"pause": "paused", "stop": "told to stop"}


@dataclass(frozen=True)
class Standing:
    """How a campaign stands.

    Attributes
    ----------
    status
        ``preparing``, ``running``, ``paused``, ``stopping`` or ``finished``.
    order
        The order in force; None if there is none, or the last was to go on.
    activity
        What its jobs are doing; None for a run in a folder, and where nobody asked.
    """

    status: str
    order: Control | None = None
    activity: Activity | None = None

    def lines(self) -> list[str]:
        """Return what people should know of it, one line each."""
        said = []
        if self.order is not None:
            by = f" by {self.order.given_by}" if self.order.given_by else ""
            when = f"{self.order.given_at:%Y-%m-%d %H:%M} UTC"
            said.append(f"{_IN_WORDS[self.order.order]}{by}, {when}")
        return said + (self.activity.lines() if self.activity is not None else [])

    def data(self) -> dict[str, Any]:
        """Return it as `matloop status --json` writes it."""
        order = self.order and self.order.model_dump(
            mode="json", include={"order", "given_by", "given_at"}
        )
        jobs = {} if self.activity is None else {"activity": self.activity.data()}
        return {"status": self.status, "order": order, **jobs}


def standing(ledger: Ledger, record: CampaignRecord, where: Where, jobs: bool = False) -> Standing:
    """Return how a campaign stands.

    Parameters
    ----------
    ledger
        The ledger, opened.
    record
        The campaign.
    where
        Where its jobs are: at a site, or in a process of their own.
    jobs
        Look at the jobs of the site as well; that asks FireWorks and SLURM.
    """
    states = ledger.states(record.campaign_id)
    if states and states[-1].status == "finished":
        return Standing("finished")
    activity = None
    if jobs and where.site is not None:
        from matloop.launch.activity import activity as at_work

        activity = at_work(where.site, where.site.launchpad(), ledger, record.campaign_id)
    orders = ledger.controls(record.campaign_id)
    if orders and orders[-1].order != "resume":
        status = "paused" if orders[-1].order == "pause" else "stopping"
        return Standing(status, orders[-1], activity)
    return Standing("running" if states else "preparing", activity=activity)
