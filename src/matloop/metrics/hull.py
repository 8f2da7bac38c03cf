"""Relaxed energies of samples, and a hull of reference crystals relaxed in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pymatgen.core import Structure

from matloop.documents.candidate import Candidate, Origin
from matloop.documents.evaluation import Evaluation
from matloop.evaluators.mlip.relaxation import Relaxation
from matloop.jobs.evaluation import Effort, Shelf, evaluate
from matloop.metrics.reference import Reference
from matloop.protocols import Resources
from matloop.references import embedded
from matloop.structures.phase_diagram import Hull, Point

CHUNK = 32
"""Crystals relaxed and recorded together: what a killed run loses at most."""

Notify = Callable[[str, int, int], None]
"""Told what is done at the moment, how much of it is done, and of how much."""


@dataclass(frozen=True)
class Judge:
    """How energies are made: one relaxation for samples and references alike.

    Attributes
    ----------
    relaxation
        Potential and settings.
    shelf
        Where results are kept under structure and method, and found again: a ledger.
    workers
        Worker processes; 0 relaxes in this process.
    """

    relaxation: Relaxation
    shelf: Shelf
    workers: int = 0

    def relax(
        self, crystals: Mapping[str, Structure], kind: str, notify: Notify
    ) -> dict[str, Evaluation]:
        """Return the evaluation of each crystal by name; a bad one fails alone."""
        candidates = [
            Candidate(candidate_id=name, structure=structure, origin=Origin(generator=kind))
            for name, structure in crystals.items()
        ]
        notify(f"relax {kind}", 0, len(candidates))
        standings = evaluate(
            [self.relaxation],
            candidates,
            Resources(),
            self.shelf,
            Effort(workers=self.workers, chunk=CHUNK),
            lambda done: notify(f"relax {kind}", done, len(candidates)),
        )
        return {item.candidate.candidate_id: item.evaluations[0] for item in standings}


@dataclass(frozen=True)
class ReferenceHull:
    """A hull of the chemical systems at hand, at the level of theory of one judge.

    Attributes
    ----------
    points
        Reference crystals that relaxed.
    theory
        Key of the level of theory.
    asked
        Number of reference crystals within the systems, fillings included.
    filled
        Elements taken from the embedded set, because the reference has no crystal of them.
    given_up
        Reference crystals that did not relax, with reasons.
    """

    points: tuple[Point, ...]
    theory: str
    asked: int
    filled: tuple[str, ...] = ()
    given_up: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def hull(self) -> Hull:
        """The convex hull."""
        return Hull.from_points(self.points, self.theory)

    def missing(self, elements: Iterable[str]) -> list[str]:
        """Return the elements without a reference."""
        return self.hull.missing(elements)


def reference_hull(
    reference: Reference, systems: Iterable[frozenset[str]], judge: Judge, notify: Notify
) -> ReferenceHull:
    """Relax the reference crystals within some chemical systems, and return their hull.

    Every element of the systems needs an elemental crystal. Where the reference has none, or none
    that relaxes, those of the embedded set are taken.

    Parameters
    ----------
    reference
        Known crystals.
    systems
        Chemical systems whose hull is wanted.
    judge
        What relaxes them.
    notify
        Told of progress.
    """
    wanted = set(systems)
    chosen = {reference.ids[i]: reference.structure(i) for i in reference.within(wanted)}
    evaluations = judge.relax(chosen, "references", notify)
    points = list(_points(chosen, evaluations))
    held = {str(p.composition.elements[0]) for p in points if len(p.composition) == 1}
    lacking = set().union(*wanted) - held if wanted else set()
    substitutes = {
        f"{embedded.__name__.rpartition('.')[2]}-{entry.name}": entry.structure
        for entry in embedded.entries()
        if len(entry.composition) == 1 and entry.formula in lacking
    }
    if substitutes:
        filled = judge.relax(substitutes, "missing elements", notify)
        points += _points(substitutes, filled)
        evaluations |= filled
    return ReferenceHull(
        points=tuple(points),
        theory=judge.relaxation.theory().key,
        asked=len(chosen) + len(substitutes),
        filled=tuple(
            sorted(
                lacking
                & {str(p.composition.elements[0]) for p in points if len(p.composition) == 1}
            )
        ),
        given_up={
            name: found.reason for name, found in evaluations.items() if found.verdict != "pass"
        },
    )


def _points(
    crystals: Mapping[str, Structure], evaluations: Mapping[str, Evaluation]
) -> Sequence[Point]:
    return [
        Point(name, crystals[name].composition, found.quantities["energy_per_atom"].value)
        for name, found in evaluations.items()
        if found.verdict == "pass"
    ]
