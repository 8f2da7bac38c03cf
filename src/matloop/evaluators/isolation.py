"""Judge candidates one by one, so that a bad one harms nobody but itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.evaluation import Cost, Evaluation, Verdict
from matloop.documents.theory import LevelOfTheory


@dataclass(frozen=True)
class Finding:
    """What an evaluator finds about one candidate.

    Attributes
    ----------
    verdict
        ``pass``, ``reject`` or ``fail``.
    reason
        One clause in plain words.
    quantities
        Numbers found; those that are not finite are left out.
    theory
        Level of theory of the energies among them.
    """

    verdict: Verdict
    reason: str
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    theory: LevelOfTheory | None = None


def judge_each(
    candidates: Sequence[Candidate], judge: Callable[[Candidate], Finding]
) -> list[Evaluation]:
    """Return one evaluation per candidate, in order; what goes wrong with one fails that one."""
    return [_evaluation(candidate, judge) for candidate in candidates]


def _evaluation(candidate: Candidate, judge: Callable[[Candidate], Finding]) -> Evaluation:
    started = time.perf_counter()
    try:
        finding = judge(candidate)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic in a compiled library is no Exception
        finding = Finding("fail", f"could not be judged: {type(error).__name__}: {error}")
    return Evaluation(
        candidate_id=candidate.candidate_id,
        verdict=finding.verdict,
        reason=finding.reason,
        quantities={
            name: quantity
            for name, quantity in finding.quantities.items()
            if math.isfinite(quantity.value)
        },
        theory=finding.theory,
        cost=Cost(seconds=time.perf_counter() - started),
    )
