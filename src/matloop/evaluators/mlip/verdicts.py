"""What evaluators that use a potential say of each crystal, and what each one cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from matloop.documents.candidate import Candidate
from matloop.documents.evaluation import Cost, Evaluation, Verdict
from matloop.evaluators.mlip.model import LoadedModel, Member


class Computation(Protocol):
    """Something computed with a potential: a minimisation, or a single point.

    Attributes
    ----------
    member
        The crystal.
    calls
        Force evaluations.
    """

    @property
    def member(self) -> Member: ...  # noqa: D102

    @property
    def calls(self) -> int: ...  # noqa: D102


def unfit(candidate: Candidate, verdict: Verdict, reason: str, model: LoadedModel) -> Evaluation:
    """Return an evaluation without numbers: why a candidate was given up."""
    return Evaluation(
        candidate_id=candidate.candidate_id, verdict=verdict, reason=reason, theory=model.theory
    )


def with_costs(
    evaluations: Sequence[Evaluation],
    computations: Sequence[Sequence[Computation]],
    seconds: float,
    model: LoadedModel,
) -> list[Evaluation]:
    """Return the evaluations of a batch with its time divided among them by work.

    Parameters
    ----------
    evaluations
        One per candidate.
    computations
        What was computed for each candidate; nothing where it was given up before.
    seconds
        Wall time of the whole batch (s).
    model
        The potential.
    """
    work = [
        float(sum(len(end.member.numbers) * end.calls for end in ends)) for ends in computations
    ]
    per_work = seconds / max(sum(work), 1.0)
    return [
        evaluation.model_copy(
            update={
                "cost": Cost(
                    seconds=per_work * own,
                    work=own,
                    calls=sum(end.calls for end in ends),
                    device=model.device,
                    threads=torch.get_num_threads(),
                )
            }
        )
        for evaluation, ends, own in zip(evaluations, computations, work, strict=True)
    ]
