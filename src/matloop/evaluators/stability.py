"""Distance to the convex hull of the known phases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import ClassVar, Literal

from monty.json import MSONable

from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.evaluation import Evaluation
from matloop.documents.theory import LevelOfTheory
from matloop.errors import MissingReferenceError, TheoryMismatchError
from matloop.evaluators.artifacts import Source, phase_set, source
from matloop.evaluators.isolation import Finding, judge_each, judge_together
from matloop.protocols import Resources
from matloop.structures.contents import Contents, of_crystals
from matloop.structures.phase_diagram import Competition, Hull


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
        """Judge the candidates of each chemical system together, as if each were alone."""
        place = source(resources, "phases")
        if place is None:
            nothing = Finding("fail", "no phases were given to build a hull from")
            return judge_each(candidates, lambda candidate: nothing)
        return judge_together(candidates, lambda some: self._judge(some, place))

    def _judge(self, candidates: Sequence[Candidate], place: Source) -> list[Finding]:
        findings: dict[int, Finding] = {}
        energies: dict[int, Quantity] = {}
        for row, candidate in enumerate(candidates):
            energy = candidate.quantities.get("energy_per_atom")
            problem = _unusable(energy)
            if problem or energy is None:
                findings[row] = Finding("fail", problem or "")
            else:
                energies[row] = energy
        if energies:
            hull, rows = _hull(place), list(energies)
            theory = phase_set(place).theory
            for table in of_crystals([candidates[row].structure for row in rows]):
                members = [rows[i] for i in table.rows.tolist()]
                found = self._found([energies[row] for row in members], table, hull, theory)
                findings.update(zip(members, found, strict=True))
        return [findings[row] for row in range(len(candidates))]

    def _found(
        self, energies: Sequence[Quantity], table: Contents, hull: Hull, theory: LevelOfTheory
    ) -> list[Finding]:
        # Of one chemical system.
        foreign = [_foreign(energy, hull) for energy in energies]
        own = [row for row, problem in enumerate(foreign) if problem is None]
        placed: Iterator[Finding] = iter(())
        if own:
            try:
                rivals = hull.competition(table.elements, table.fractions[own])
            except MissingReferenceError as error:
                placed = repeat(Finding("fail", str(error)))
            else:
                placed = self._placed([energies[row] for row in own], rivals, theory)
        return [problem or next(placed) for problem in foreign]

    def _placed(
        self, energies: Sequence[Quantity], rivals: Competition, theory: LevelOfTheory
    ) -> Iterator[Finding]:
        lowest, elements = rivals.energies.tolist(), rivals.elements.tolist()
        for energy, below, apart, mixture in zip(
            energies, lowest, elements, rivals.mixtures, strict=True
        ):
            distance = energy.value - below
            found = {
                "e_above_hull": _like(energy, distance),
                "formation_energy": _like(energy, energy.value - apart),
            }
            side = "above" if distance >= 0 else "below"
            text = f"{abs(distance):.3f} eV/atom {side} {' + '.join(mixture)}"
            if self.reject_above is not None and distance > self.reject_above:
                text += f", at most {self.reject_above:g} allowed"
                yield Finding("reject", text, found, theory)
            else:
                yield Finding("pass", text, found, theory)


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


def _foreign(energy: Quantity, hull: Hull) -> Finding | None:
    try:
        hull.check_theory(energy.theory)
    except TheoryMismatchError as error:
        return Finding("fail", str(error))
    return None


def _like(energy: Quantity, value: float) -> Quantity:
    return Quantity(
        value=value, unit="eV/atom", uncertainty=energy.uncertainty, theory=energy.theory
    )


@lru_cache(maxsize=4)
def _hull(place: Source) -> Hull:
    phases = phase_set(place)
    before = _LATEST.get(phases.theory.key)
    _LATEST[phases.theory.key] = hull = before.updated(phases) if before else Hull(phases)
    return hull


# The hull last built at each level of theory: from one iteration to the next most systems stay.
_LATEST: dict[str, Hull] = {}
