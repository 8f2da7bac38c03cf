"""What every selector does first: candidates found wanting, or not judged, go no further."""

from __future__ import annotations

from matloop.documents.decision import Choice
from matloop.protocols import Judged, SelectionRequest


def refusal(judged: Judged, request: SelectionRequest) -> Choice | None:
    """Return the choice that ends a candidate's way at this stage; None if it may go on.

    The first evaluation that rejects or fails decides. After them, where no later stage moves the
    atoms, come the objective's constraints: a violated one rejects, one with unknown quantities
    does not.

    Parameters
    ----------
    judged
        The candidate with the stage's evaluations.
    request
        What the selector was asked.
    """
    candidate = judged.candidate
    for evaluation in judged.evaluations:
        if evaluation.verdict != "pass":
            return Choice(
                candidate_id=candidate.candidate_id,
                outcome="rejected" if evaluation.verdict == "reject" else "failed",
                reason=evaluation.reason,
            )
    violated = request.objective.violated(candidate.quantities) if request.final else None
    if violated is not None:
        return Choice(
            candidate_id=candidate.candidate_id,
            outcome="rejected",
            reason=f"violates {violated}",
        )
    return None
