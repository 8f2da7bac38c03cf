"""What a campaign may spend, has spent, and has set aside."""

from __future__ import annotations

from matloop.documents.base import Document


class Balance(Document):
    """One kind of hours on one account.

    Attributes
    ----------
    limit
        What may be spent (h); None for no limit.
    spent
        What has been spent (h).
    reserved
        Estimates of calculations that have been submitted and have no verdict yet (h).
    """

    limit: float | None = None
    spent: float = 0.0
    reserved: float = 0.0

    @property
    def left(self) -> float | None:
        """What may still be reserved (h), 0 at least; None without a limit."""
        if self.limit is None:
            return None
        return max(self.limit - self.spent - self.reserved, 0.0)


class Account(Document):
    """Hours of one stage, its reference phases included, or of the whole campaign.

    Attributes
    ----------
    stage
        The stage; empty for the campaign.
    core_hours, gpu_hours
        Hours of processor cores and of accelerators.
    calculations
        Calculations that have been paid for.
    running
        Calculations that have been submitted and have no verdict yet.
    """

    stage: str
    core_hours: Balance = Balance()
    gpu_hours: Balance = Balance()
    calculations: int = 0
    running: int = 0
