"""Distances to the final hull, for everything the campaign computed."""

from __future__ import annotations

from pymatgen.core import Composition

from matloop.documents.candidate import Quantity
from matloop.documents.phase import PhaseSet
from matloop.reports.contents import Hull, HullPoint
from matloop.reports.history import Followed, History
from matloop.structures import phase_diagram

ENERGY = "energy_per_atom"
DISTANCE = "e_above_hull"
MOST_CANDIDATES = 3000
"""Candidates kept for drawing; those nearest to the hull come first."""


class Energies:
    """Energies of candidates, seen on the final hull.

    Parameters
    ----------
    phases
        Reference and found phases; None where there is no hull.
    """

    def __init__(self, phases: PhaseSet | None) -> None:
        self.phases = phases
        self._hull = phase_diagram.Hull(phases) if phases is not None else None

    def energy(self, item: Followed) -> float | None:
        """Return a candidate's energy (eV/atom) if it is at the hull's level of theory."""
        quantity = item.final.quantities.get(ENERGY)
        if self.phases is None or quantity is None or not item.relaxed:
            return None
        return quantity.value if quantity.theory == self.phases.theory.key else None

    def above_hull(self, item: Followed) -> float | None:
        """Return a candidate's distance to the final hull (eV/atom), negative below it."""
        energy = self.energy(item)
        if energy is None:
            return None
        return self.distance(item.final.structure.composition, energy)

    def refreshed(self, item: Followed) -> dict[str, Quantity]:
        """Return a candidate's quantities, with the distance to the final hull."""
        quantities = dict(item.final.quantities)
        distance = self.above_hull(item)
        if DISTANCE in quantities and distance is not None:
            quantities[DISTANCE] = quantities[DISTANCE].model_copy(update={"value": distance})
        return quantities

    def distance(self, composition: Composition, energy: float) -> float | None:
        """Return energy (eV/atom) minus the hull's; None if elements have no reference."""
        if self._hull is None or self._hull.missing(composition.chemical_system_set):
            return None
        return self._hull.distance(composition, energy)

    def formation(self, composition: Composition, energy: float) -> float | None:
        """Return the formation energy (eV/atom); None if elements have no reference."""
        if self._hull is None or self._hull.missing(composition.chemical_system_set):
            return None
        return self._hull.formation_energy(composition, energy)


def final_phases(history: History, phases: PhaseSet | None) -> PhaseSet | None:
    """Return the hull's phases with those of an iteration that is still under way."""
    if phases is None:
        return None
    last = history.record.campaign.stages[-1].name
    return phases.grown(item.final for item in history.candidates if item.passed(last))


def hull_points(history: History, energies: Energies) -> Hull | None:
    """Return all phases and computed candidates on the composition axes; None without a hull."""
    phases = energies.phases
    if phases is None:
        return None
    points = [
        _point(phase.phase_id, phase.structure.composition, phase.energy, phase.source, energies)
        for phase in phases.phases
    ]
    taken = {phase.phase_id for phase in phases.phases}
    others = []
    for item in history.candidates:
        energy = energies.energy(item)
        if energy is not None and item.candidate_id not in taken:
            composition = item.final.structure.composition
            others.append(_point(item.candidate_id, composition, energy, "candidate", energies))
    drawn = sorted((p for p in others if p is not None), key=lambda p: (p.e_above_hull, p.point_id))
    return Hull(
        elements=history.record.campaign.space.allowed,
        theory=phases.theory,
        points=tuple([p for p in points if p is not None] + drawn[:MOST_CANDIDATES]),
    )


def _point(
    name: str, composition: Composition, energy: float, source: str, energies: Energies
) -> HullPoint | None:
    distance = energies.distance(composition, energy)
    formation = energies.formation(composition, energy)
    if distance is None or formation is None:
        return None
    fractions = composition.fractional_composition
    return HullPoint(
        point_id=name,
        formula=composition.reduced_formula,
        fractions={str(element): float(fractions[element]) for element in composition.elements},
        e_form=formation,
        e_above_hull=distance if abs(distance) > 1e-9 else 0.0,
        source=source,
    )
