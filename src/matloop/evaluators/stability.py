"""Distance to the convex hull of the known phases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from monty.json import MSONable

from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.evaluation import Evaluation
from matloop.errors import MissingReferenceError, TheoryMismatchError
from matloop.evaluators.artifacts import Source, phase_set, source
from matloop.evaluators.isolation import Finding, judge_each
from matloop.protocols import Resources
from matloop.structures.phase_diagram import Hull


@dataclass(frozen=True)
class HullDistance(MSONable):
    """Measure how far each crystal lies above or below the hull of the known phases.

    ``e_above_hull`` is the signed decomposition energy against the phases known before this
    iteration: negative for a crystal that beats every mixture of them. Energies of different levels
    of theory are refused, never mixed.

    Attributes
    ----------
    reject_above
        Largest distance (eV/atom) that passes; empty lets all pass and leaves the choice to
        selectors.
    """

    reject_above: float | None = None

    produces: ClassVar[Mapping[str, str]] = {
        "e_above_hull": "eV/atom",
        "formation_energy": "eV/atom",
    }
    requires: ClassVar[tuple[str, ...]] = ("energy_per_atom",)
    resources: ClassVar[tuple[str, ...]] = ("phases",)
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"
    cheap: ClassVar[bool] = True

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Judge every candidate on its own."""
        place = source(resources, "phases")
        return judge_each(candidates, lambda candidate: self._judge(candidate, place))

    def _judge(self, candidate: Candidate, place: Source | None) -> Finding:
        energy = candidate.quantities.get("energy_per_atom")
        problem = _unusable(energy)
        if place is None:
            problem = "no phases were given to build a hull from"
        if problem or energy is None or place is None:
            return Finding("fail", problem or "")
        hull = _hull(place)
        composition = candidate.structure.composition
        try:
            distance = hull.distance(composition, energy.value, energy.theory)
            formation = hull.formation_energy(composition, energy.value, energy.theory)
            rivals = hull.decomposition(composition)
        except (MissingReferenceError, TheoryMismatchError) as error:
            return Finding("fail", str(error))
        found = {
            name: Quantity(
                value=value, unit="eV/atom", uncertainty=energy.uncertainty, theory=energy.theory
            )
            for name, value in (("e_above_hull", distance), ("formation_energy", formation))
        }
        side = "above" if distance >= 0 else "below"
        text = f"{abs(distance):.3f} eV/atom {side} {' + '.join(rivals)}"
        theory = phase_set(place).theory
        if self.reject_above is not None and distance > self.reject_above:
            text += f", at most {self.reject_above:g} allowed"
            return Finding("reject", text, found, theory)
        return Finding("pass", text, found, theory)


def _unusable(energy: Quantity | None) -> str | None:
    if energy is None:
        return "its energy_per_atom is not known: an evaluator such as relaxation must come before"
    if energy.unit != "eV/atom":
        return f"its energy_per_atom is in {energy.unit or 'no unit'}, not in eV/atom"
    if not math.isfinite(energy.value):
        return "its energy_per_atom is not a finite number"
    if energy.theory is None:
        return "its energy_per_atom has no level of theory, so it belongs on no hull"
    return None


@lru_cache(maxsize=4)
def _hull(place: Source) -> Hull:
    phases = phase_set(place)
    before = _LATEST.get(phases.theory.key)
    _LATEST[phases.theory.key] = hull = before.updated(phases) if before else Hull(phases)
    return hull


# The hull last built at each level of theory: from one iteration to the next most systems stay.
_LATEST: dict[str, Hull] = {}
