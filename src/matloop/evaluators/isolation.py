"""Judge candidates so that a bad one harms nobody but itself."""

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
    found = []
    for candidate in candidates:
        found += judge_together([candidate], lambda one: [judge(one[0])])
    return found


def judge_together(
    candidates: Sequence[Candidate], judge: Callable[[Sequence[Candidate]], Sequence[Finding]]
) -> list[Evaluation]:
    """Return one evaluation per candidate, in order, judged as many at a time as can be.

    Where judging several raises, each half of them is judged without the other, down to the
    candidate that it is the fault of. What one says must not depend on who is judged beside it.

    Parameters
    ----------
    candidates
        What to judge.
    judge
        Returns one finding per candidate, in order.
    """
    if not candidates:
        return []
    started = time.perf_counter()
    try:
        findings = judge(candidates)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic in a compiled library is no Exception
        if len(candidates) > 1:
            middle = len(candidates) // 2
            return [
                *judge_together(candidates[:middle], judge),
                *judge_together(candidates[middle:], judge),
            ]
        findings = [Finding("fail", f"could not be judged: {type(error).__name__}: {error}")]
    cost = Cost(seconds=(time.perf_counter() - started) / len(candidates))
    return [
        _evaluation(candidate, finding, cost)
        for candidate, finding in zip(candidates, findings, strict=True)
    ]


def _evaluation(candidate: Candidate, finding: Finding, cost: Cost) -> Evaluation:
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
        cost=cost,
    )
