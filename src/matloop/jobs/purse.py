"""What is left of a stage's budgets while it works."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from matloop.documents.evaluation import EvaluationRecord


@dataclass
class Purse:
    """What is left to spend; infinite where there is no limit.

    Attributes
    ----------
    seconds
        Evaluation cost (s).
    core_hours, gpu_hours
        Hours of cores and of accelerators (h).
    since
        What was recorded before costs no hours; None charges everything.
    """

    seconds: float = math.inf
    core_hours: float = math.inf
    gpu_hours: float = math.inf
    since: datetime | None = None

    @classmethod
    def of(
        cls,
        seconds: float | None,
        core_hours: float | None,
        gpu_hours: float | None,
        since: datetime | None,
    ) -> Purse:
        """Return a purse with limits, None for none."""
        limits = (seconds, core_hours, gpu_hours)
        first, second, third = (math.inf if limit is None else limit for limit in limits)
        return cls(first, second, third, since)

    @property
    def bottomless(self) -> bool:
        """Whether nothing is limited."""
        return min(self.seconds, self.core_hours, self.gpu_hours) == math.inf

    @property
    def empty(self) -> bool:
        """Whether nothing more may be begun."""
        return min(self.seconds, self.core_hours, self.gpu_hours) <= 0

    def pay(self, records: Iterable[EvaluationRecord], *, in_advance: bool) -> None:
        """Take off what results cost.

        Parameters
        ----------
        records
            The results.
        in_advance
            Whether their hours have been set aside before, as those of calculations are.
        """
        for record in records:
            cost = record.evaluation.cost
            self.seconds -= cost.seconds
            if not in_advance and (self.since is None or record.recorded_at >= self.since):
                self.core_hours -= cost.core_hours
                self.gpu_hours -= cost.gpu_hours
