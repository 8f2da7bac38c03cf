"""Discoveries per cost: progress, generators, and what other arms would have found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from math import sqrt
from typing import Literal

from matloop.documents.decision import RANDOM_ARM
from matloop.reports.arms import Arm, Versus
from matloop.reports.contents import CampaignSummary, GeneratorRow, ProgressPoint, Spent
from matloop.reports.history import Followed, History


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a binomial rate; (0, 1) without trials.

    Parameters
    ----------
    z
        Standard normal quantile; the default gives 95 %.

    References
    ----------
    E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927).
    """
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    scale = 1 + z**2 / trials
    centre = (rate + z**2 / (2 * trials)) / scale
    half = z / scale * sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    low = max(0.0, centre - half) if successes else 0.0
    high = min(1.0, centre + half) if successes < trials else 1.0
    return low, high


def cumulative(costs: Sequence[Mapping[str, Spent]]) -> list[Spent]:
    """Return the cost of the campaign up to and including each candidate."""
    total, sums = Spent(), []
    for cost in costs:
        total = reduce(Spent.__add__, cost.values(), total)
        sums.append(total)
    return sums


def progress_points(
    history: History, sums: Sequence[Spent], discoveries: Sequence[str]
) -> tuple[ProgressPoint, ...]:
    """Return the start, each discovery, and the end of each iteration."""
    points = [ProgressPoint(iteration=0, spent=Spent(), discoveries=0)]
    found = set(discoveries)
    count = 0
    items = history.candidates
    for number, (item, spent) in enumerate(zip(items, sums, strict=True)):
        iteration = item.record.iteration
        discovered = item.candidate_id in found
        last = number + 1 == len(items) or items[number + 1].record.iteration != iteration
        count += discovered
        if discovered or last:
            points.append(
                ProgressPoint(
                    iteration=iteration,
                    spent=spent,
                    discoveries=count,
                    candidate_id=item.candidate_id if discovered else "",
                )
            )
    return tuple(points)


def generator_rows(
    history: History, costs: Sequence[Mapping[str, Spent]], discoveries: Sequence[str]
) -> tuple[GeneratorRow, ...]:
    """Return one row per iteration and portfolio member."""
    found = set(discoveries)
    first_stage = history.record.campaign.stages[0].name
    labels = [entry.label for entry in history.record.campaign.generators]
    shares = {state.iteration: state.shares for state in history.states}
    rows = []
    for iteration in sorted({item.record.iteration for item in history.candidates}):
        for label in labels:
            own = [
                (item, reduce(Spent.__add__, cost.values(), Spent()))
                for item, cost in zip(history.candidates, costs, strict=True)
                if item.record.iteration == iteration
                and item.record.candidate.origin.generator == label
            ]
            rows.append(
                GeneratorRow(
                    iteration=iteration,
                    generator=label,
                    share=shares.get(iteration, {}).get(label),
                    proposed=len(own),
                    valid=sum(item.passed(first_stage) for item, _ in own),
                    relaxed=sum(is_relaxed(item, history) for item, _ in own),
                    discoveries=sum(item.candidate_id in found for item, _ in own),
                    spent=reduce(Spent.__add__, (spent for _, spent in own), Spent()),
                )
            )
    return tuple(rows)


def arms(
    history: History,
    costs: Sequence[Mapping[str, Spent]],
    discoveries: Sequence[str],
    duplicates: Sequence[str],
) -> tuple[Arm, ...]:
    """Return the yield of the whole campaign and of the parts that serve as its baseline.

    Numerators are distinct discoveries of the part, denominators its distinct relaxations. The
    extrapolation assumes a constant rate, which flatters the baseline: distinct phases run out.
    """
    found, repeated = set(discoveries), set(duplicates)
    per_candidate = [
        (item, reduce(Spent.__add__, cost.values(), Spent()).relaxations)
        for item, cost in zip(history.candidates, costs, strict=True)
    ]
    total = sum(relaxations for _, relaxations in per_candidate)
    parts: list[tuple[str, Literal["all", "feedback", "first", "random"], list[bool]]] = [
        ("the whole campaign", "all", [True for _ in per_candidate]),
        (
            "with feedback (iterations after the first)",
            "feedback",
            [item.record.iteration > 0 for item, _ in per_candidate],
        ),
        (
            "without feedback (first iteration)",
            "first",
            [item.record.iteration == 0 for item, _ in per_candidate],
        ),
        (
            "drawn by lot (iterations after the first)",
            "random",
            [item.record.iteration > 0 and drawn_by_lot(item) for item, _ in per_candidate],
        ),
    ]
    rows = []
    for label, kind, inside in parts:
        chosen = [pair for pair, take in zip(per_candidate, inside, strict=True) if take]
        trials = sum(relaxations for _, relaxations in chosen)
        distinct = sum(item.candidate_id in found for item, _ in chosen)
        repeats = sum(item.candidate_id in repeated for item, _ in chosen)
        if trials:
            rows.append(_arm(label, kind, distinct, distinct + repeats, trials, total))
    return tuple(rows)


def versus(own: Sequence[ProgressPoint], baseline: CampaignSummary) -> Versus:
    """Compare with a baseline campaign at equal numbers of relaxations.

    References
    ----------
    Enhancement and acceleration as in sequential-learning benchmarks, B. Rohr et al., Chem. Sci.
    11, 2696 (2020).
    """
    shared = min(own[-1].spent.relaxations, baseline.progress[-1].spent.relaxations)
    mine, other = _count_at(own, shared), _count_at(baseline.progress, shared)
    goal = baseline.progress[-1].discoveries
    acceleration: float | None = None
    if goal:
        needed = _relaxations_for(own, goal)
        base = _relaxations_for(baseline.progress, goal)
        acceleration = base / needed if base and needed else 0.0
    return Versus(
        campaign_id=baseline.record.campaign_id,
        relaxations=shared,
        own=mine,
        baseline=other,
        enhancement=mine / other if other else None,
        acceleration=acceleration,
    )


def baseline_arm(baseline: CampaignSummary, total: int) -> Arm:
    """Return the yield of a baseline campaign, extrapolated to `total` relaxations."""
    return _arm(
        f"campaign {baseline.record.campaign_id}",
        "campaign",
        len(baseline.discoveries),
        len(baseline.discoveries) + baseline.duplicates,
        baseline.spent.relaxations,
        total,
    )


def is_relaxed(followed: Followed, history: History) -> bool:
    """Whether a method that moves atoms was applied, successfully or not."""
    return any(record.evaluator in history.relaxers for record in followed.evaluations)


def drawn_by_lot(followed: Followed) -> bool:
    """Whether a selector let the candidate pass as part of its random arm."""
    return any(
        decision.outcome == "passed" and decision.evidence.get(RANDOM_ARM) == 1.0
        for decision in followed.decisions.values()
    )


def _arm(
    label: str,
    kind: Literal["all", "feedback", "first", "random", "campaign"],
    discoveries: int,
    hits: int,
    trials: int,
    total: int,
) -> Arm:
    low, high = wilson_interval(discoveries, trials)
    rate = discoveries / trials if trials else 0.0
    return Arm(
        label=label,
        kind=kind,
        discoveries=discoveries,
        hits=hits,
        relaxations=trials,
        rate=rate,
        low=low,
        high=high,
        expected=rate * total,
        expected_low=low * total,
        expected_high=high * total,
    )


def _count_at(points: Sequence[ProgressPoint], relaxations: int) -> int:
    return max(point.discoveries for point in points if point.spent.relaxations <= relaxations)


def _relaxations_for(points: Sequence[ProgressPoint], goal: int) -> int | None:
    return next((p.spent.relaxations for p in points if p.discoveries >= goal), None)
