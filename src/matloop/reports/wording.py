"""What the numbers of a campaign say, in plain sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from matloop.documents.theory import LevelOfTheory
from matloop.reports.arms import Arm
from matloop.reports.comparison import Fidelity
from matloop.reports.contents import CampaignSummary, Finding
from matloop.reports.figures.hull import hull_threshold
from matloop.reports.yields import wilson_interval


@dataclass(frozen=True)
class KeyFigure:
    """A number for the first screen."""

    value: str
    label: str
    note: str = ""


def headline(summary: CampaignSummary) -> str:
    """Return what was found, in one sentence."""
    found = summary.discoveries
    new = sum(finding.novelty != "withheld" for finding in found)
    again = sum(item.discovery for item in summary.rediscoveries)
    if not found:
        turns = count(summary.iterations, "iteration")
        return f"No discovery {'so far' if summary.status == 'running' else 'in'} {turns}".replace(
            "so far ", "so far, after "
        )
    parts = []
    if new:
        parts.append(count(new, "new phase"))
    if summary.rediscoveries:
        total = len(summary.rediscoveries)
        parts.append(
            f"{again} of {count(total, 'withheld phase')} rediscovered"
            if again
            else f"none of {count(total, 'withheld phase')} rediscovered"
        )
    text = ", and ".join(parts)
    return text + (" so far" if summary.status == "running" else "")


def lead(summary: CampaignSummary) -> str:
    """Return the sentences below the headline: the criterion, the names, the best."""
    objective = summary.record.campaign.objective
    sentences = []
    found = summary.discoveries
    threshold = hull_threshold(objective)
    if found:
        within = (
            f"within {threshold:g} eV/atom of the convex hull"
            if threshold is not None
            else f"with {objective.discovery}"
        )
        on = sum((f.e_above_hull_final or 0.0) <= 1e-6 for f in found)
        text = (
            f"{len(found)} distinct crystals lie {within}"
            if threshold is not None
            else (f"{len(found)} distinct crystals were found {within}")
        )
        if len(found) == 1:
            text = text.replace("crystals lie", "crystal lies").replace(
                "crystals were", "crystal was"
            )
        if summary.hull is not None and on:
            text += f", {on} of them on it"
        sentences.append(text + ".")
        names = [f.formula for f in found if f.novelty == "withheld"]
        if names:
            shown = ", ".join(dict.fromkeys(names))
            sentences.append(f"Withheld from the search and found again: {shown}.")
        best = None if objective.several else best_finding(summary)
        if best is not None and best.novelty != "withheld":
            sentences.append(f"The best new one is {describe(best, summary)}.")
    else:
        best = next(iter(summary.findings), None)
        if best is not None and not objective.several:
            far = " so far" if summary.status == "running" else ""
            sentences.append(f"The nearest{far} is {describe(best, summary)}.")
        elif summary.spent.relaxations == 0:
            sentences.append("Nothing has been relaxed yet.")
    if summary.front is not None:
        sentences.append(front(summary))
    missed = [r for r in summary.rediscoveries if r.candidate_id and not r.discovery]
    if missed:
        listed = ", ".join(
            r.formula + (f" ({stability(r.e_above_hull)})" if r.e_above_hull is not None else "")
            for r in missed[:4]
        )
        sentences.append(
            f"Reached, but no discovery by this judge: {listed}"
            f"{' and others' if len(missed) > 4 else ''}, withheld from the search."
        )
    return " ".join(sentences)


def front(summary: CampaignSummary) -> str:
    """Return the sentence about the Pareto front; there must be one."""
    found = summary.front
    assert found is not None
    made = sum(point.discovery for point in found.points)
    goals = " and ".join(f"{goal.direction} {goal.text}" for goal in found.goals)
    crystals = count(len(found.points), "distinct crystal")
    return (
        f"{crystals} of {found.judged} judged {'is' if len(found.points) == 1 else 'are'} on the "
        f"Pareto front ({goals}), {made} of them {'a discovery' if made == 1 else 'discoveries'}; "
        f"it dominates {found.volumes[-1]:.4g} {found.unit}."
    )


def origin(finding: Finding) -> str:
    """Return how a crystal was proposed, in a few words."""
    for name, value in finding.operator.items():
        if name == "operator":
            return str(value)
        if isinstance(value, str | int) and value != "" and name != "formula":
            return f"{name.replace('_', ' ')} {value}"
    return ""


def caveat(summary: CampaignSummary) -> str:
    """Return what the claims rest on, and what they do not say."""
    theories = summary.theories or ((summary.hull.theory,) if summary.hull is not None else ())
    judge = ", ".join(map(theory_name, theories)) or "one potential"
    if summary.fidelity is not None:
        judge = theory_name(summary.fidelity.upper)
    hidden = ", nor a withheld one" if summary.rediscoveries else ""
    return (
        f"“New” means: matches none of the {summary.known_crystals} reference phases of this "
        f"campaign{hidden}. Whether science knows a crystal was not asked. "
        + ("All energies are those " if summary.fidelity is None else "Discoveries are those ")
        + f"of {judge}, at 0 K, relative to a hull computed with the same method."
    )


def alarms(summary: CampaignSummary) -> list[str]:
    """Return what generators have collapsed in the last iteration that was watched, by generator.

    Parameters
    ----------
    summary
        The campaign.
    """
    last = max((row.iteration for row in summary.diversity), default=-1)
    said: dict[str, list[str]] = {}
    for alarm in summary.alarms:
        if alarm.iteration == last:
            end = f"; {alarm.reaction}" if alarm.reaction else ""
            said.setdefault(alarm.generator, []).append(alarm.reason + end)
    return [f"alarm: {name} offers little new: {reasons[0]}" for name, reasons in said.items()]


def key_figures(summary: CampaignSummary) -> list[KeyFigure]:
    """Return the numbers of the first screen."""
    spent, found = summary.spent, summary.discoveries
    figures = [
        KeyFigure(
            str(len(found)),
            "distinct discoveries" if len(found) != 1 else "distinct discovery",
            _also(summary),
        )
    ]
    if summary.rediscoveries:
        again = sum(item.discovery for item in summary.rediscoveries)
        figures.append(
            KeyFigure(
                f"{again}/{len(summary.rediscoveries)}",
                "withheld phases rediscovered",
                "known phases the search was not told of",
            )
        )
    proposed = sum(row.entered for row in summary.totals[:1])
    figures.append(
        KeyFigure(
            f"{spent.relaxations:,}",
            "relaxations",
            f"out of {proposed:,} proposals"
            + (f"; {spent.relaxations / len(found):.1f} per discovery" if found else ""),
        )
    )
    if summary.fidelity is not None:
        whole = summary.accounts[-1]
        figures.append(
            KeyFigure(
                f"{spent.calculations:,}",
                f"calculations by {theory_name(summary.fidelity.upper)}",
                f"{hours(whole.core_hours.spent)} core-hours with reference phases"
                if summary.accounts
                else "",
            )
        )
    figures.append(
        KeyFigure(
            duration(spent.seconds), "of worker time", f"{si(spent.work)} atoms × force calls"
        )
    )
    figures += _gain(summary)
    return figures


def _gain(summary: CampaignSummary) -> list[KeyFigure]:
    if summary.versus is not None and summary.versus.enhancement is not None:
        return [
            KeyFigure(
                f"×{summary.versus.enhancement:.2g}",
                "against the baseline",
                f"{summary.versus.own} to {summary.versus.baseline} discoveries after "
                f"{summary.versus.relaxations} relaxations each",
            )
        ]
    rows = {arm.kind: arm for arm in summary.arms}
    if "feedback" in rows and "first" in rows:
        late, first = rows["feedback"], rows["first"]
        return [
            KeyFigure(
                f"{per_hundred(late)} vs {per_hundred(first)}",
                "discoveries per 100 relaxations",
                f"with feedback ({late.discoveries} of {late.relaxations}) vs first iteration "
                f"({first.discoveries} of {first.relaxations})",
            )
        ]
    return []


def _also(summary: CampaignSummary) -> str:
    parts = []
    if summary.duplicates:
        parts.append(f"found again {summary.duplicates} times")
    if summary.known_again:
        parts.append(f"{summary.known_again} more match reference phases")
    if summary.superseded:
        parts.append(f"{summary.superseded} more were superseded by the growing hull")
    return "; ".join(parts)


def best_finding(summary: CampaignSummary) -> Finding | None:
    """Return the discovery of highest utility, new ones first."""
    ranked = sorted(
        summary.discoveries,
        key=lambda f: (f.novelty == "withheld", -(f.utility or 0.0), f.candidate_id),
    )
    return ranked[0] if ranked else None


def describe(finding: Finding, summary: CampaignSummary) -> str:
    """Return a finding in a few words: formula, symmetry, distance, property."""
    text = finding.formula
    if finding.space_group:
        text += f" ({finding.space_group})"
    if finding.e_above_hull_final is not None:
        text += f", {stability(finding.e_above_hull_final)}"
    for name in sorted(summary.record.campaign.objective.names - {"e_above_hull"}):
        quantity = finding.quantities.get(name)
        if quantity is not None:
            text += f", {quantity_name(name)} {quantity.value:.3g} {quantity.unit}".rstrip()
    return text


def stability(distance: float) -> str:
    """Return a distance to the hull in words."""
    if distance <= 1e-6:
        return "on the hull"
    return f"{1000 * distance:.0f} meV/atom above the hull"


def theory_name(theory: LevelOfTheory) -> str:
    """Return a method's name: code and model, once if the one holds the other."""
    if theory.model.lower().startswith(theory.code.lower()):
        return theory.model
    return f"{theory.code} {theory.model}"


def quantity_name(name: str) -> str:
    """Return a quantity's name as readers say it."""
    return "distance to the hull" if name == "e_above_hull" else name.replace("_", " ")


def hours(value: float) -> str:
    """Return hours with three digits, as people write them."""
    if value < 0.001:
        return "0" if value == 0 else "< 0.001"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def share(part: int, whole: int) -> str:
    """Return a share with its 95 % interval; a dash of nothing."""
    if not whole:
        return "–"
    low, high = wilson_interval(part, whole)
    return f"{100 * part / whole:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def several(names: Sequence[str], most: int = 6) -> str:
    """Return the first few of some names."""
    return ", ".join(names[:most]) + (" and others" if len(names) > most else "")


def estimates(fidelity: Fidelity) -> str:
    """Return how good the estimates of cost were."""
    estimated = sum(pair.estimated for pair in fidelity.costs)
    actual = sum(pair.actual for pair in fidelity.costs)
    if not estimated:
        return "Nothing was estimated."
    ratios = sorted(p.actual / p.estimated for p in fidelity.costs if p.estimated and p.actual)
    text = (
        f"{count(len(fidelity.costs), 'calculation')} took {hours(actual)} core-hours, estimated "
        f"were {hours(estimated)}."
    )
    if len(ratios) >= 5:
        low, middle, high = (ratios[round(q * (len(ratios) - 1))] for q in (0.1, 0.5, 0.9))
        text += f" Paid per estimated: median {middle:.2f}, 80 % from {low:.2f} to {high:.2f}."
    return text


def audit(fidelity: Fidelity) -> str:
    """Return what the audit says: how often a no by the lower level is wrong."""
    row = next(row for row in fidelity.audit if row.kind == "negative")
    if not row.calculated:
        return (
            f"None of the {row.others} candidates that the lower level says no to has been "
            "calculated: how many are missed is not known."
        )
    rate, low, high = (f"{100 * value:.0f}" for value in (row.rate, row.low, row.high))
    missed, least, most = (f"{row.others * value:.0f}" for value in (row.rate, row.low, row.high))
    return (
        f"False negatives: {row.confirmed} of {row.calculated} that the lower level says no to, "
        f"{rate} % ({low} to {high}, 95 %). Of all {row.others} such candidates that would be "
        f"{missed} ({least} to {most}) missed."
    )


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.3g} {unit}"
    return f"{seconds / 86400:.3g} d"


def si(number: float) -> str:
    """Return a large number with three digits and k, M or G."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {letter}"
    return f"{number:.3g}"


def per_hundred(arm: Arm) -> str:
    """Return discoveries per hundred relaxations."""
    return f"{100 * arm.rate:.2g}"


def safe_id(name: str) -> str:
    """Return a name that may stand in an HTML id."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)
