"""Watch generators for collapse: what they offered in an iteration, and the alarms about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop.documents.campaign import Campaign, CandidateRecord
from matloop.documents.diversity import Alarm, Diversity, Measure, Watch
from matloop.jobs.history import History
from matloop.jobs.piecewise import picked
from matloop.structures.variety import count_elements, divergence, shares_of, variety

COMPARED = 200
"""Most proposals of a generator that are compared as crystals in one iteration."""

REMEMBERED = 400
"""Most of its earlier proposals they are compared with, the newest."""

REPLAYED = "replayed_share"
"""End of the name of a learner's metric that says which share of samples repeats training data."""


def watched(
    campaign: Campaign,
    iteration: int,
    proposals: Sequence[CandidateRecord],
    references: Sequence[tuple[str, Structure]],
    metrics: Mapping[str, float],
) -> list[Diversity]:
    """Return what each generator offered in an iteration.

    Parameters
    ----------
    campaign
        As declared.
    iteration
        The iteration.
    proposals
        All proposals of the campaign so far, or those that `compared` names; read one by one.
    references
        Name and structure of the reference phases.
    metrics
        What learners measured last, as ``learner.metric``. A metric whose name ends in
        ``<generator>.replayed_share`` is that generator's share of replayed training data.
    """
    found = []
    iterations: list[int] = []
    where: dict[str, list[int]] = {entry.label: [] for entry in campaign.generators}
    atoms: dict[tuple[str, int], Counter[str]] = {}
    for place, item in enumerate(proposals):
        generator = item.candidate.origin.generator
        iterations.append(item.iteration)
        where.setdefault(generator, []).append(place)
        count_elements(
            atoms.setdefault((generator, item.iteration), Counter()), item.candidate.structure
        )

    for entry in campaign.generators:
        own = where[entry.label]
        now = [place for place in own if iterations[place] == iteration]
        if not now:
            continue
        begun = min(iterations[place] for place in own)
        before = [place for place in own if iterations[place] < iteration][-REMEMBERED:]
        earlier = [
            (item.candidate.candidate_id, item.candidate.structure)
            for item in picked(proposals, before)
        ]
        sample = [item.candidate.structure for item in picked(proposals, _evenly(now, COMPARED))]
        seen = variety(sample, [*references, *earlier])
        found.append(
            Diversity(
                iteration=iteration,
                generator=entry.label,
                proposed=len(now),
                compared=len(sample),
                uniqueness=seen.uniqueness,
                novelty=seen.novelty,
                divergence=divergence(
                    shares_of(atoms[entry.label, begun]), shares_of(atoms[entry.label, iteration])
                ),
                top_formula=seen.top_formula,
                formula=seen.formula,
                top_prototype=seen.top_prototype,
                prototype=seen.prototype,
                replayed=_replayed(entry.label, metrics),
            )
        )
    return found


def compared(seen: History, iteration: int) -> NDArray[np.int64]:
    """Return whose proposals `watched` looks at, in order: new ones, the first, and the last ones.

    They are given by their places among all rows.

    Parameters
    ----------
    seen
        Everyone, in the order proposed.
    iteration
        The iteration.
    """
    who, when = seen.texts("generator"), seen.numbers("iteration")
    wanted = when == iteration
    for generator in set(who.tolist()):
        own = who == generator
        wanted |= own & (when == when[own].min())
        wanted[np.flatnonzero(own & (when < iteration))[-REMEMBERED:]] = True
    return np.flatnonzero(wanted)


def alarms(
    diversity: Sequence[Diversity],
    watch: Watch,
    earlier: Sequence[Diversity] = (),
    standing: Sequence[Alarm] = (),
) -> list[Alarm]:
    """Return the limits that were passed.

    One formula or prototype may be most of what a search can offer, so these two count only where
    their share has grown since the generator's first iteration.

    Parameters
    ----------
    diversity
        What generators offered.
    watch
        The limits.
    earlier
        What they offered in earlier iterations, oldest first.
    standing
        Alarms of the iteration before. One stays until its measure is within the limit again,
        however few proposals the generator has been left with.
    """
    before = {(alarm.generator, alarm.measure) for alarm in standing}
    first: dict[str, Diversity] = {}
    for item in earlier:
        first.setdefault(item.generator, item)
    found = []
    for item in diversity:
        start = first.get(item.generator)
        for measure, value, words in _told(item):
            if item.proposed < watch.min_proposals and (item.generator, measure) not in before:
                continue
            limit = float(getattr(watch, measure))
            low = measure in ("uniqueness", "novelty")
            if measure in ("top_formula", "top_prototype") and (
                start is None or value <= getattr(start, measure)
            ):
                continue
            if value < limit if low else value > limit:
                found.append(
                    Alarm(
                        iteration=item.iteration,
                        generator=item.generator,
                        measure=measure,
                        value=value,
                        limit=limit,
                        reason=f"{words}; {'at least' if low else 'at most'} {limit:g} is allowed",
                    )
                )
    return found


def _told(item: Diversity) -> list[tuple[Measure, float, str]]:
    of = f"of {item.compared} proposals"
    told: list[tuple[Measure, float, str]] = [
        ("uniqueness", item.uniqueness, f"a share of {item.uniqueness:.2f} {of} is distinct"),
        (
            "novelty",
            item.novelty,
            f"a share of {item.novelty:.2f} {of} repeats no reference and none of its own before",
        ),
        (
            "divergence",
            item.divergence,
            f"its elements are {item.divergence:.2f} bits away from its first iteration",
        ),
        ("top_formula", item.top_formula, f"{item.top_formula:.2f} {of} are {item.formula}"),
        (
            "top_prototype",
            item.top_prototype,
            f"{item.top_prototype:.2f} {of} are {item.prototype}",
        ),
    ]
    if item.replayed is not None:
        words = f"a share of {item.replayed:.2f} of its samples repeats its training data"
        told.append(("replayed", item.replayed, words))
    return told


def _replayed(label: str, metrics: Mapping[str, float]) -> float | None:
    named = {name: value for name, value in metrics.items() if name.endswith(REPLAYED)}
    own = [value for name, value in named.items() if name.endswith(f"{label}.{REPLAYED}")]
    return next(iter(own or []), None)


def _evenly(items: Sequence[int], most: int) -> list[int]:
    if len(items) <= most:
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]
