"""Which of the phases that were found span the hull: all others may be left out of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matloop.documents.candidate import Candidate
from matloop.documents.phase import Phase, PhaseSet
from matloop.structures.contents import system_of
from matloop.structures.phase_diagram import Hull


def spanned(known: PhaseSet, pieces: Iterable[Sequence[Candidate]]) -> PhaseSet:
    """Return a hull's phases with those candidates that end up on it.

    Before much is known of a system nearly every compound lies below its hull, and most of them
    above one another's. Whoever is above stays above, however many follow; so each piece is
    reduced as it comes, and no more is held than spans the hull.

    Parameters
    ----------
    known
        The phases so far, which stay.
    pieces
        Candidates, as `PhaseSet.grown` takes them.
    """
    phases, hull = known, None
    kept = {phase.phase_id for phase in known.phases}
    for piece in pieces:
        wider = phases.grown(piece)
        if len(wider.phases) == len(phases.phases):
            continue
        hull = Hull(wider) if hull is None else hull.updated(wider)
        stable: dict[tuple[str, ...], set[str]] = {}
        left: list[Phase] = []
        for phase in wider.phases:
            if phase.phase_id not in kept:
                system = system_of(phase.structure.composition)
                if system not in stable:
                    stable[system] = set(hull.stable_phases(system))
                if phase.phase_id not in stable[system]:
                    continue
            left.append(phase)
        phases = PhaseSet(theory=known.theory, phases=tuple(left))
    return phases
