"""The funnel: what became of every candidate, per iteration and stage, with reasons and cost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import reduce

from matloop.documents.decision import Outcome
from matloop.reports.contents import FunnelRow, ReasonCount, Spent
from matloop.reports.history import Followed, History

_NUMBER = re.compile(r"[-+]?(?<![\w.])\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w])")
_OUTCOMES: tuple[Outcome, ...] = ("passed", "rejected", "failed", "held")


def funnel_rows(history: History, costs: Sequence[dict[str, Spent]]) -> tuple[FunnelRow, ...]:
    """Return one row per iteration and stage, in order.

    Parameters
    ----------
    history
        The campaign.
    costs
        Cost of each candidate per stage, as `History.costs` returns it.
    """
    stages = [stage.name for stage in history.record.campaign.stages]
    iterations = sorted({item.record.iteration for item in history.candidates})
    rows = []
    for iteration in iterations:
        inside = [
            (item, cost)
            for item, cost in zip(history.candidates, costs, strict=True)
            if item.record.iteration == iteration
        ]
        for stage in stages:
            rows.append(_row(iteration, stage, inside))
            inside = [(item, cost) for item, cost in inside if item.passed(stage)]
    return tuple(rows)


def funnel_totals(history: History, costs: Sequence[dict[str, Spent]]) -> tuple[FunnelRow, ...]:
    """Return one row per stage over all iterations; its `iteration` is None."""
    inside = list(zip(history.candidates, costs, strict=True))
    rows = []
    for stage in history.record.campaign.stages:
        rows.append(_row(None, stage.name, inside))
        inside = [(item, cost) for item, cost in inside if item.passed(stage.name)]
    return tuple(rows)


def merge_reasons(reasons: Sequence[tuple[Outcome, str]]) -> tuple[ReasonCount, ...]:
    """Count reasons that differ in nothing but numbers and identifiers as one.

    A number that is the same in all of them stays; one that differs becomes a range.
    """
    groups: dict[tuple[Outcome, str], list[str]] = {}
    for outcome, reason in reasons:
        groups.setdefault((outcome, _shape(reason)), []).append(reason)
    counted = [
        ReasonCount(outcome=outcome, reason=_common(texts), count=len(texts))
        for (outcome, _), texts in groups.items()
    ]
    return tuple(sorted(counted, key=lambda item: (-item.count, item.outcome, item.reason)))


def _row(
    iteration: int | None, stage: str, entered: list[tuple[Followed, dict[str, Spent]]]
) -> FunnelRow:
    decisions = [item.decisions[stage] for item, _ in entered if stage in item.decisions]
    counts = Counter(decision.outcome for decision in decisions)
    return FunnelRow(
        iteration=iteration,
        stage=stage,
        entered=len(entered),
        pending=len(entered) - len(decisions),
        **{outcome: counts[outcome] for outcome in _OUTCOMES},
        reasons=merge_reasons([(decision.outcome, decision.reason) for decision in decisions]),
        spent=reduce(Spent.__add__, (cost.get(stage, Spent()) for _, cost in entered), Spent()),
    )


def _words(reason: str) -> list[str]:
    # Formulas and identifiers differ between candidates; they hold a digit inside a word.
    words = []
    for word in reason.split():
        bare = word.strip("().,:;'\"")
        mixed = any(c.isdigit() for c in bare) and any(c.isalpha() for c in bare)
        known = _NUMBER.fullmatch(bare) or "/" in bare or "^" in bare
        words.append(word.replace(bare, "…") if mixed and not known else word)
    return words


def _shape(reason: str) -> str:
    return _NUMBER.sub("#", " ".join(_words(reason)))


def _common(reasons: list[str]) -> str:
    if len(set(reasons)) == 1:
        return reasons[0]
    texts = [" ".join(_words(reason)) for reason in reasons]
    slots = list(zip(*(_NUMBER.findall(text) for text in texts), strict=True))
    shown = iter(_range(values) for values in slots)
    return _NUMBER.sub(lambda _: next(shown), texts[0])


def _range(values: Sequence[str]) -> str:
    low, high = min(values, key=float), max(values, key=float)
    return low if float(low) == float(high) else f"{low} to {high}"
