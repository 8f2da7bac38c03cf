"""What a replayed campaign is worth: gain over chance, cost, regret, diversity, calibration."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_ind

from benchmarks.discovery.known import system_of
from benchmarks.discovery.problem import Problem
from benchmarks.discovery.replay import Round
from matloop.surrogates.calibration import Residuals, quality

Array = NDArray[np.float64]
Summary = dict[str, float | None]

CALIBRATION = ("coverage_50", "coverage_80", "coverage_90", "coverage_95", "ence", "mae")
CALIBRATION += ("uncertainty_correlation", "sharpness", "rank_correlation")


@dataclass(frozen=True)
class Campaign:
    """One policy with one seed on one pool.

    Attributes
    ----------
    bought
        Crystals bought after each batch, with 0 before the first.
    found
        Discoveries after each batch.
    numbers
        Everything else that is measured, by name.
    rounds
        Calibration of each batch's predictions, made ahead.
    """

    bought: Array
    found: Array
    numbers: Mapping[str, float]
    rounds: Sequence[Mapping[str, float]]


def measured(problem: Problem, rounds: Sequence[Round]) -> Campaign:
    """Return what the rounds of a replayed campaign are worth."""
    sizes = [len(turn.bought) for turn in rounds]
    hits = [int(problem.stable[list(turn.bought)].sum()) for turn in rounds]
    rows = [row for turn in rounds for row in turn.bought]
    found = [row for row in rows if problem.stable[row]]
    atoms = sum(len(problem.candidates[row].structure) for row in rows)
    formulas = [problem.compositions[row] for row in found]
    numbers: dict[str, float] = {
        "bought": float(len(rows)),
        "discoveries": float(len(found)),
        "discoveries_per_1000_atoms": 1000.0 * len(found) / atoms if atoms else 0.0,
        "simple_regret": float(problem.truth[rows].min() - problem.truth.min()),
        "audc": area(np.cumsum([0, *sizes]), np.cumsum([0, *hits])),
        "chemical_systems": float(len({system_of(formula) for formula in formulas})),
        "formulas": float(len({formula.reduced_formula for formula in formulas})),
        "prototypes": float(len({problem.prototypes[row] for row in found})),
    }
    ahead = joined([turn.ahead for turn in rounds])
    for prefix, residuals in (("", ahead), ("unbought_", rounds[-1].unbought)):
        values = quality(residuals)
        if len(residuals.target):
            numbers[f"{prefix}predictions"] = values["n"]
        numbers |= {f"{prefix}{name}": values[name] for name in CALIBRATION if name in values}
    by_round = [
        {key: value for key, value in quality(turn.ahead).items() if key in ("n", *CALIBRATION)}
        for turn in rounds
    ]
    return Campaign(
        np.cumsum([0, *sizes]).astype(float), np.cumsum([0, *hits]).astype(float), numbers, by_round
    )


def joined(parts: Sequence[Residuals]) -> Residuals:
    """Return several sets of predictions as one."""
    return Residuals(
        np.concatenate([part.target for part in parts]),
        np.concatenate([part.mean for part in parts]),
        np.concatenate([part.spread for part in parts]),
    )


def area(bought: Array, found: Array) -> float:
    """Return the area under the discovery curve over that of discoveries only, Q^2 / 2."""
    total = float(bought[-1])
    return float(np.trapezoid(found, bought)) / (0.5 * total**2) if total else 0.0


def acceleration(own: Campaign, baseline: Campaign) -> float:
    """Return how many times fewer purchases reach the baseline's final count; 0 if never reached.

    Between batches discoveries are taken to come evenly.
    """
    goal = baseline.found[-1]
    if goal <= 0:
        return 1.0 if own is baseline else 0.0
    if own.found[-1] < goal:
        return 0.0
    index = int(np.argmax(own.found >= goal))
    before, after = own.found[index - 1], own.found[index]
    share = (goal - before) / (after - before)
    needed = own.bought[index - 1] + share * (own.bought[index] - own.bought[index - 1])
    return float(baseline.bought[-1] / needed)


def found_at(campaign: Campaign, purchases: float) -> float:
    """Return the discoveries after so many purchases."""
    return float(np.interp(purchases, campaign.bought, campaign.found))


def summary(values: Sequence[float]) -> Summary:
    """Return mean, standard deviation over seeds, and how many seeds."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return {"mean": None, "spread": None, "n": 0}
    spread = float(np.std(finite, ddof=1)) if len(finite) > 1 else None
    return {
        "mean": round(float(np.mean(finite)), 4),
        "spread": round(spread, 4) if spread is not None else None,
        "n": len(finite),
    }


def compared(
    own: Sequence[Campaign],
    chance: Sequence[Campaign],
    greedy: Mapping[str, Sequence[Campaign]],
    sizes: Sequence[int],
) -> dict[str, object]:
    """Return one policy's numbers, each with mean and spread over seeds.

    Parameters
    ----------
    own
        One campaign per seed.
    chance
        Those of random choice, with the same seeds and pools.
    greedy
        Those of ranking by one cheap method, by its name.
    sizes
        Crystals in the pool of each seed.
    """
    fifth = [0.2 * size for size in sizes]
    reached = all(c.bought[-1] >= q - 1 for c, q in zip(own, fifth, strict=True))
    base = float(np.mean([found_at(c, q) for c, q in zip(chance, fifth, strict=True)]))
    gains = [
        found_at(c, q) / base if reached and base > 0 else np.nan
        for c, q in zip(own, fifth, strict=True)
    ]
    last = float(np.mean([c.found[-1] for c in chance]))
    accelerations = [acceleration(a, b) for a, b in zip(own, chance, strict=True)]
    result: dict[str, object] = {
        "enhancement_at_20pct": summary(gains),
        "enhancement": summary([c.found[-1] / last if last else np.nan for c in own]),
        "acceleration": {
            **summary(accelerations),
            "never_reached": sum(value == 0 for value in accelerations),
        },
    }
    names = dict.fromkeys(name for campaign in own for name in campaign.numbers)
    for name in names:
        values = [campaign.numbers.get(name, np.nan) for campaign in own]
        result[name] = summary(values)
    for name in ("coverage_90", "ence", "uncertainty_correlation"):
        result.setdefault(name, summary([]))
    counts = [c.found[-1] for c in own]
    by_chance = [c.found[-1] for c in chance]
    result["p_worse_than_random"] = _p_worse(counts, by_chance)
    for name, others in greedy.items():
        result[f"enhancement_over_greedy:{name}"] = summary(
            [
                a.found[-1] / b.found[-1] if b.found[-1] else np.nan
                for a, b in zip(own, others, strict=True)
            ]
        )
        result[f"acceleration_over_greedy:{name}"] = summary(
            [acceleration(a, b) for a, b in zip(own, others, strict=True)]
        )
    result["curves"] = {
        "bought": own[0].bought.tolist(),
        "found": [c.found.tolist() for c in own],
    }
    result["calibration_by_round"] = _by_round(own)
    return result


def _p_worse(own: Sequence[float], chance: Sequence[float]) -> float | None:
    """Return the one-sided p value of Welch's test that the policy finds less than chance."""
    if len(own) < 2 or (np.ptp(own) == 0 and np.ptp(chance) == 0):
        return None
    if list(own) == list(chance):
        return 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one of the two may not vary at all
        result = ttest_ind(own, chance, equal_var=False, alternative="less")
    return round(float(result.pvalue), 4)


def _by_round(own: Sequence[Campaign]) -> list[dict[str, Summary]]:
    result = []
    for turn in range(len(own[0].rounds)):
        each = [campaign.rounds[turn] for campaign in own]
        names = dict.fromkeys(name for numbers in each for name in numbers)
        result.append({n: summary([numbers.get(n, np.nan) for numbers in each]) for n in names})
    return result
