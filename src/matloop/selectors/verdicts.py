"""What every selector does first: candidates found wanting, or not judged, go no further."""

from __future__ import annotations

from matloop.documents.decision import Choice
from matloop.documents.objective import Objective
from matloop.protocols import Judged


def refusal(judged: Judged, objective: Objective) -> Choice | None:
    """Return the choice that ends a candidate's way at this stage; None if it may go on.

    The first evaluation that rejects or fails decides. After them come the objective's
    constraints: a violated one rejects, one with unknown quantities does not.

    Parameters
    ----------
    judged
        The candidate with the stage's evaluations.
    objective
        Its constraints are the feasible set.
    """
    candidate = judged.candidate
    for evaluation in judged.evaluations:
        if evaluation.verdict != "pass":
            return Choice(
                candidate_id=candidate.candidate_id,
                outcome="rejected" if evaluation.verdict == "reject" else "failed",
                reason=evaluation.reason,
            )
    violated = objective.violated(candidate.quantities)
    if violated is not None:
        return Choice(
            candidate_id=candidate.candidate_id,
            outcome="rejected",
            reason=f"violates {violated}",
        )
    return None
