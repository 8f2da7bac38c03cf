"""Pass whatever no evaluator turned down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from monty.json import MSONable

from matloop.documents.candidate import Quantity
from matloop.documents.decision import Choice
from matloop.documents.objective import Objective, parse
from matloop.protocols import Judged, SelectionRequest
from matloop.selectors.verdicts import refusal


@dataclass(frozen=True)
class Gate(MSONable):
    """Pass every candidate that no evaluator turned down and that violates no constraint.

    Where the stage keeps only some, the first in order pass and the others are held.
    """

    def decides_apart(self, request: SelectionRequest) -> bool:
        """Whether each candidate is decided on its own: unless only some may pass."""
        return request.keep is None

    def select(self, batch: Sequence[Judged], request: SelectionRequest) -> list[Choice]:
        """Return one choice per candidate, in order."""
        choices: list[Choice] = []
        passed = 0
        for judged in batch:
            refused = refusal(judged, request)
            if refused is not None:
                evidence = _grounds(judged, request.objective)
                choices.append(refused.model_copy(update={"evidence": evidence}))
                continue
            full = request.keep is not None and passed >= request.keep
            passed += not full
            checks = len(judged.evaluations)
            choices.append(
                Choice(
                    candidate_id=judged.candidate.candidate_id,
                    outcome="held" if full else "passed",
                    reason=f"only the first {request.keep} go on"
                    if full
                    else f"nothing against it in {checks} check{'s' if checks != 1 else ''}",
                    evidence=_numbers(judged.candidate.quantities, request.objective.names),
                )
            )
        return choices


def _grounds(judged: Judged, objective: Objective) -> dict[str, float]:
    # The numbers behind a refusal: those of the evaluation, or of the violated constraint.
    for evaluation in judged.evaluations:
        if evaluation.verdict != "pass":
            return _numbers(evaluation.quantities, evaluation.quantities)
    violated = objective.violated(judged.candidate.quantities)
    return _numbers(judged.candidate.quantities, parse(violated).names) if violated else {}


def _numbers(quantities: Mapping[str, Quantity], names: Iterable[str]) -> dict[str, float]:
    return {
        name: quantities[name].value
        for name in sorted(names)
        if name in quantities and math.isfinite(quantities[name].value)
    }
