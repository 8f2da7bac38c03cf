"""Compare two levels of theory fairly: each crystal against the phases that both levels know."""

from __future__ import annotations

from pymatgen.core import Composition

from matloop.documents.phase import Phase, PhaseSet
from matloop.structures.phase_diagram import Hull


class SharedHull:
    """Two hulls of equal membership, at two levels of theory.

    A level that has seen fewer phases makes everything look more stable. Only phases that both
    know take part: found ones with the same id, references with the same formula.

    Parameters
    ----------
    lower, upper
        Phases of the two levels.
    """

    def __init__(self, lower: PhaseSet, upper: PhaseSet) -> None:
        known = {_name(phase) for phase in lower.phases} & {_name(phase) for phase in upper.phases}
        self._sides = tuple(
            side.model_copy(update={"phases": tuple(p for p in side.phases if _name(p) in known)})
            for side in (lower, upper)
        )
        self._hulls = tuple(Hull(side) for side in self._sides)

    def distances(
        self, name: str, composition: Composition, energies: tuple[float, float]
    ) -> tuple[float, float] | None:
        """Return the signed distances of a crystal to the two hulls of all others (eV/atom).

        Parameters
        ----------
        name
            Its id: it does not compete with itself.
        composition
            Its composition.
        energies
            Its energy at the lower and at the upper level (eV/atom).

        Returns
        -------
        tuple or None
            None where the shared phases do not span its elements.
        """
        found = []
        for side, hull, energy in zip(self._sides, self._hulls, energies, strict=True):
            others = tuple(phase for phase in side.phases if phase.phase_id != name)
            if len(others) < len(side.phases):
                hull = Hull(side.model_copy(update={"phases": others}))  # noqa: PLW2901
            if hull.missing(composition.chemical_system_set):
                return None
            found.append(hull.distance(composition, energy))
        return found[0], found[1]


def unknown_above(lower: PhaseSet, upper: PhaseSet) -> list[Phase]:
    """Return found phases on the lower hull whose energy is not known at the upper level.

    As long as there are any, distances to the upper hull may come out too small.
    """
    known = {phase.phase_id for phase in upper.phases}
    hull = Hull(lower)
    return [
        phase
        for phase in lower.phases
        if phase.source == "found"
        and phase.phase_id not in known
        and hull.distance(phase.structure.composition, phase.energy) <= 1e-6
    ]


def _name(phase: Phase) -> tuple[str, str]:
    if phase.source == "found":
        return "found", phase.phase_id
    return "reference", str(phase.structure.composition.reduced_formula)
