"""Rank by what is known, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from monty.json import MSONable
from numpy.typing import NDArray

from matloop.documents.candidate import Quantity
from matloop.documents.decision import Choice
from matloop.protocols import Judged, SelectionRequest
from matloop.selectors.verdicts import refusal


@dataclass(frozen=True)
class Best(MSONable):
    """Pass the best candidates by what is known of them, as many as the stage keeps.

    Candidates of which it is unknown rank last, in the order they came.

    Attributes
    ----------
    quantity
        Quantity that ranks, such as ``predicted_e_above_hull``; empty for the objective's utility.
    largest
        Whether large values of `quantity` are good; small ones by default.
    """

    quantity: str = ""
    largest: bool = False

    def select(self, batch: Sequence[Judged], request: SelectionRequest) -> list[Choice]:
        """Return one choice per candidate, in order."""
        able = [index for index, judged in enumerate(batch) if refusal(judged, request) is None]
        found = self._values([batch[index].candidate.quantities for index in able], request)
        utilities = {
            index: float(utility) if np.isfinite(utility) else None
            for index, utility in zip(able, found, strict=True)
        }
        order = sorted(utilities, key=lambda i: (utilities[i] is None, -(utilities[i] or 0.0), i))
        limit = len(order) if request.keep is None else request.keep
        places = {index: rank for rank, index in enumerate(order, 1)}
        choices = []
        what = self.quantity or "utility"
        for index, judged in enumerate(batch):
            refused = refusal(judged, request)
            if refused is not None:
                choices.append(refused)
                continue
            rank, utility = places[index], utilities[index]
            evidence = {"rank": float(rank)}
            if utility is not None:
                evidence[what] = utility if self.largest or not self.quantity else -utility
            known = f"by {what}" if utility is not None else f"{what} unknown"
            choices.append(
                Choice(
                    candidate_id=judged.candidate.candidate_id,
                    outcome="passed" if rank <= limit else "held",
                    reason=f"rank {rank} of {len(order)}, {known}",
                    evidence=evidence,
                )
            )
        return choices

    def _values(
        self, batch: Sequence[Mapping[str, Quantity]], request: SelectionRequest
    ) -> NDArray[np.float64]:
        """Return what ranks each candidate, larger is better; NaN if it is unknown."""
        if not self.quantity:
            return request.objective.utilities_of(batch)
        sign = 1.0 if self.largest else -1.0
        return np.array(
            [
                sign * known[self.quantity].value if self.quantity in known else np.nan
                for known in batch
            ]
        )


@dataclass(frozen=True)
class Random(MSONable):
    """Pass candidates drawn by lot, as many as the stage keeps: the baseline."""

    def select(self, batch: Sequence[Judged], request: SelectionRequest) -> list[Choice]:
        """Return one choice per candidate, in order."""
        refused = [refusal(judged, request) for judged in batch]
        able = [index for index, choice in enumerate(refused) if choice is None]
        limit = len(able) if request.keep is None else request.keep
        drawn = set(np.random.default_rng(request.seed).permutation(able)[:limit].tolist())
        return [
            choice
            if choice is not None
            else Choice(
                candidate_id=judged.candidate.candidate_id,
                outcome="passed" if index in drawn else "held",
                reason=f"{'drawn' if index in drawn else 'not drawn'} by lot among {len(able)}",
            )
            for index, (judged, choice) in enumerate(zip(batch, refused, strict=True))
        ]
