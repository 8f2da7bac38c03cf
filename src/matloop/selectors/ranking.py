"""Rank by what is known, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from monty.json import MSONable

from matloop.documents.decision import Choice
from matloop.protocols import Judged, SelectionRequest
from matloop.selectors.verdicts import refusal


@dataclass(frozen=True)
class Best(MSONable):
    """Pass the candidates of highest known utility, as many as the stage keeps.

    Candidates whose utility is unknown rank last, in the order they came.
    """

    def select(self, batch: Sequence[Judged], request: SelectionRequest) -> list[Choice]:
        """Return one choice per candidate, in order."""
        utilities: dict[int, float | None] = {}
        for index, judged in enumerate(batch):
            if refusal(judged, request) is None:
                utility = request.objective.utility(judged.candidate.quantities)
                utilities[index] = utility if utility is not None and np.isfinite(utility) else None
        order = sorted(utilities, key=lambda i: (utilities[i] is None, -(utilities[i] or 0.0), i))
        limit = len(order) if request.keep is None else request.keep
        places = {index: rank for rank, index in enumerate(order, 1)}
        choices = []
        for index, judged in enumerate(batch):
            refused = refusal(judged, request)
            if refused is not None:
                choices.append(refused)
                continue
            rank, utility = places[index], utilities[index]
            evidence = {"rank": float(rank)}
            if utility is not None:
                evidence["utility"] = utility
            known = "by utility" if utility is not None else "utility unknown"
            choices.append(
                Choice(
                    candidate_id=judged.candidate.candidate_id,
                    outcome="passed" if rank <= limit else "held",
                    reason=f"rank {rank} of {len(order)}, {known}",
                    evidence=evidence,
                )
            )
        return choices


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
