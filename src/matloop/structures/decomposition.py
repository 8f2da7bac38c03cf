"""Decomposition energies and distances to the hull, for tables of any size.

The decomposition energy of a phase compares it with the best mixture of phases of *other* formulas
(Bartel et al., npj Comput. Mater. 6, 97 (2020)). Where no phase of its formula is stable, this is
the distance above the hull; where one is, it says how far the phase is from losing its place:
negative for the stable phase, and for a polymorph whatever its own energy makes it. With the ground
state of its formula it gives the hull itself, so one small linear programme per formula answers
both questions and no hull is built as a whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from pymatgen.core import Composition

from matloop.errors import MissingReferenceError
from matloop.structures.mixtures import NOTHING, Array, least_mixture
from matloop.structures.phase_diagram import Point

STABLE_WITHIN = 1e-8
"""Distance to the hull (eV/atom) up to which a phase counts as being on it: rounding."""


_AS_WRITTEN = 1e-6  # eV/atom, to which tables write their energies


class Share(NamedTuple):
    """One product of a decomposition.

    Attributes
    ----------
    phase_id, formula
        The phase.
    atoms
        Its share of the atoms; the shares of all products add up to 1.
    """

    phase_id: str
    formula: str
    atoms: float


@dataclass(frozen=True)
class Decomposition:
    """What the competition makes of one phase; energies in eV/atom.

    Attributes
    ----------
    point
        The phase.
    formula
        Its reduced formula.
    formation_energy
        Energy against the lowest known form of each element.
    decomposition_energy
        Energy against the best mixture of known phases of other formulas; None for elements, which
        nothing else can form.
    hull_distance
        Energy above the hull of the known phases; negative for a candidate below it.
    ground_state
        Id of the lowest known phase of the formula; empty if the formula is new.
    products
        The mixture that `decomposition_energy` compares with; empty for elements.
    """

    point: Point
    formula: str
    formation_energy: float
    decomposition_energy: float | None
    hull_distance: float
    ground_state: str
    products: tuple[Share, ...]

    @property
    def stable(self) -> bool:
        """Whether the phase is on the hull, or below it."""
        return self.hull_distance <= STABLE_WITHIN


class _Rated(NamedTuple):
    # A formula against its competitors: formation energies in eV/atom.
    competition: float | None
    hull: float
    products: tuple[Share, ...]


class _Member(NamedTuple):
    # The lowest phase of one formula.
    point: Point
    formula: str
    fractions: tuple[float, ...]  # in the order of the system's elements
    formation: float


class Competitors:
    """Known phases of one level of theory, ordered by chemical system.

    Parameters
    ----------
    phases
        The phases; the first of several with the same formula and energy counts.
    elements_are_zero
        Whether energies are formation energies, so that each pure element exists at zero.

    Raises
    ------
    ValueError
        If an energy is not finite.
    """

    def __init__(self, phases: Iterable[Point], *, elements_are_zero: bool = False) -> None:
        best: dict[str, Point] = {}
        names: dict[str, tuple[str, tuple[str, ...], tuple[float, ...]]] = {}
        for point in phases:
            if not np.isfinite(point.energy):
                raise ValueError(f"the energy of phase {point.phase_id} is not a finite number")
            formula, system, fractions = _described(point.composition)
            names[formula] = formula, system, fractions
            if formula not in best or point.energy < best[formula].energy:
                best[formula] = point
        self._zero = elements_are_zero
        self._elements: dict[str, Point] = {
            system[0]: best[formula]
            for formula, system, _ in names.values()
            # A row of a formation-energy table above zero is another form of the element.
            if len(system) == 1 and not (elements_are_zero and best[formula].energy > _AS_WRITTEN)
        }
        self._best = best
        self._blocks: dict[tuple[str, ...], list[_Member]] = defaultdict(list)
        for formula, system, fractions in names.values():
            # A system that lacks an element cannot be asked for either.
            if len(system) > 1 and not self.missing(system):
                self._blocks[system].append(
                    _Member(
                        best[formula],
                        formula,
                        fractions,
                        best[formula].energy - self._reference(system, fractions),
                    )
                )

    def missing(self, elements: Iterable[str]) -> list[str]:
        """Return the elements that have no reference phase, sorted."""
        if self._zero:
            return []
        return sorted(set(elements) - self._elements.keys())

    def judge(self, points: Sequence[Point]) -> list[Decomposition]:
        """Return what each phase would decompose to, and what that sets free.

        Parameters
        ----------
        points
            Phases of the known ones' level of theory, known themselves or not.

        Raises
        ------
        MissingReferenceError
            If the known phases do not hold every element; names the elements and a phase of each.
        ValueError
            If an energy is not finite.
        """
        described = [_described(point.composition) for point in points]
        self._require_elements(points, [system for _, system, _ in described])
        wanted: dict[tuple[str, ...], dict[str, tuple[float, ...]]] = defaultdict(dict)
        for point, (formula, system, fractions) in zip(points, described, strict=True):
            if not np.isfinite(point.energy):
                raise ValueError(f"the energy of {point.phase_id} is not a finite number")
            wanted[system].setdefault(formula, fractions)
        rated: dict[str, _Rated] = {}
        for system, formulas in wanted.items():
            rated.update(self._rate(system, formulas))
        result = []
        for point, (formula, system, fractions) in zip(points, described, strict=True):
            competition, hull, products = rated[formula]
            formation = point.energy - self._reference(system, fractions)
            known = self._elements.get(system[0]) if len(system) == 1 else self._best.get(formula)
            result.append(
                Decomposition(
                    point=point,
                    formula=formula,
                    formation_energy=formation,
                    decomposition_energy=None if competition is None else formation - competition,
                    hull_distance=formation - hull,
                    ground_state=known.phase_id if known else "",
                    products=products,
                )
            )
        return result

    def _rate(
        self, system: tuple[str, ...], formulas: Mapping[str, tuple[float, ...]]
    ) -> dict[str, _Rated]:
        if len(system) == 1:
            return dict.fromkeys(formulas, _Rated(None, 0.0, ()))
        members = self._section(system)
        fractions = np.array([member.fractions for member in members])
        energies = np.array([member.formation for member in members])
        place = {member.formula: index for index, member in enumerate(members)}
        rated = {}
        for formula, target in formulas.items():
            own = place.get(formula)
            others = energies
            if own is not None:
                others = energies.copy()
                others[own] = np.inf
            competition, shares = _mixture(fractions, others, np.array(target))
            products = tuple(
                Share(members[i].point.phase_id, members[i].formula, float(shares[i]))
                for i in np.flatnonzero(shares > NOTHING)
            )
            hull = competition if own is None else min(competition, members[own].formation)
            rated[formula] = _Rated(competition, hull, products)
        return rated

    def _section(self, system: tuple[str, ...]) -> list[_Member]:
        # All phases of a system and its subsystems, the elements first, with its elements' order.
        members = []
        for place, element in enumerate(system):
            composition = Composition(element)
            point = self._elements.get(element) or Point(element, composition, 0.0)
            corner = tuple(float(place == other) for other in range(len(system)))
            members.append(_Member(point, composition.reduced_formula, corner, 0.0))
        for part in self._parts(system):
            places = [system.index(element) for element in part]
            for member in self._blocks[part]:
                spread = [0.0] * len(system)
                for place, fraction in zip(places, member.fractions, strict=True):
                    spread[place] = fraction
                members.append(member._replace(fractions=tuple(spread)))
        return members

    def _parts(self, system: tuple[str, ...]) -> list[tuple[str, ...]]:
        # Subsystems with phases; either all subsets are looked up, or all systems are looked at.
        if 2 ** len(system) < len(self._blocks):
            subsets = (
                part for size in range(2, len(system) + 1) for part in combinations(system, size)
            )
            return [part for part in subsets if part in self._blocks]
        chosen = set(system)
        parts = [part for part in self._blocks if chosen.issuperset(part)]
        return sorted(parts, key=lambda part: (len(part), part))

    def _reference(self, system: tuple[str, ...], fractions: tuple[float, ...]) -> float:
        if self._zero:
            return 0.0
        return sum(
            fraction * self._elements[element].energy
            for element, fraction in zip(system, fractions, strict=True)
        )

    def _require_elements(
        self, points: Sequence[Point], systems: Sequence[tuple[str, ...]]
    ) -> None:
        lacking: dict[str, str] = {}
        for point, system in zip(points, systems, strict=True):
            for element in self.missing(system):
                lacking.setdefault(element, point.phase_id)
        if lacking:
            wanted = ", ".join(f"{element} (needed by {lacking[element]})" for element in lacking)
            raise MissingReferenceError(
                f"no elemental reference for {wanted}: total energies need an entry of each pure "
                "element, computed at the same level of theory"
            )


def _described(
    composition: Composition,
) -> tuple[str, tuple[str, ...], tuple[float, ...]]:
    # Reduced formula, elements in order, and their fractions.
    bare = composition.element_composition
    amounts = {str(element): amount for element, amount in bare.items() if amount > 0}
    system = tuple(sorted(amounts))
    total = sum(amounts.values())
    return (
        str(bare.reduced_formula),
        system,
        tuple(amounts[element] / total for element in system),
    )


def _mixture(fractions: Array, energies: Array, target: Array) -> tuple[float, Array]:
    # Only elements and phases below their plane can be part of the best mixture.
    useful = np.flatnonzero((energies < 0.0) | (np.arange(len(energies)) < len(target)))
    energy, shares = least_mixture(fractions[useful], energies[useful], target)
    everything = np.zeros(len(energies))
    everything[useful] = shares
    return energy, everything
