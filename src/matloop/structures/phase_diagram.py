"""Convex hulls of formation energy: distances and decompositions, one level of theory at a time.

A hull is built per chemical sub-system on first use and kept as its facet planes. When phases are
added, only those systems are built anew in which one of them falls on or below the hull.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Structure

from matloop.documents.phase import PhaseSet
from matloop.errors import MissingReferenceError, TheoryMismatchError
from matloop.structures import contents
from matloop.structures.contents import Contents, content, fractions_of, system_of
from matloop.structures.facets import ON_HULL, LowerHull

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One phase as the hull sees it.

    Attributes
    ----------
    phase_id
        Its name.
    composition
        Its composition, in any number of formula units.
    energy
        Energy (eV/atom).
    """

    phase_id: str
    composition: Composition
    energy: float


class Competition(NamedTuple):
    """What known phases offer at some compositions.

    Attributes
    ----------
    energies
        Energy of the hull (eV/atom), shape (questions,).
    elements
        Energy of the elements in their most stable known forms (eV/atom), shape (questions,).
    mixtures
        Ids of the phases of the most stable mixtures, those that `Hull.decomposition` names.
    """

    energies: Array
    elements: Array
    mixtures: list[tuple[str, ...]]


class Hull:
    """The convex hull of known phases.

    Parameters
    ----------
    phases
        Phases of one level of theory.

    Attributes
    ----------
    theory
        Key of the level of theory of all energies.
    """

    def __init__(self, phases: PhaseSet) -> None:
        self._set_up(
            (
                Point(phase.phase_id, phase.structure.composition, phase.energy)
                for phase in phases.phases
            ),
            phases.theory.key,
        )

    @classmethod
    def from_points(cls, points: Iterable[Point], theory: str) -> Self:
        """Return the hull of phases given by composition and energy alone.

        Parameters
        ----------
        points
            The phases.
        theory
            Key of the level of theory that all energies share; the caller answers for it.
        """
        hull = cls.__new__(cls)
        hull._set_up(points, theory)
        return hull

    def updated(self, phases: PhaseSet) -> Hull:
        """Return the hull of other phases; it shares every system that they leave as it was.

        A system is built anew only where a phase has gone or changed, or where a new one falls on
        or below the hull: in its own system and in those that contain it.

        Parameters
        ----------
        phases
            All phases, those of this hull among them or not.
        """
        hull = Hull(phases)
        if hull.theory != self.theory:
            return hull
        before = dict(zip(self._formulas, self._points, strict=True))
        after = dict(zip(hull._formulas, hull._points, strict=True))
        new, gone = [], []
        for formula in before.keys() | after.keys():
            old, now = before.get(formula), after.get(formula)
            if old and now and (old.phase_id, old.energy) == (now.phase_id, now.energy):
                continue
            if old and (now is None or now.energy >= old.energy):
                gone.append(frozenset(content(old.composition)))
            elif now:
                new.append(now)
        for system, section in self._sections.items():
            chosen = frozenset(system)
            inside = [point for point in new if chosen.issuperset(content(point.composition))]
            if any(elements <= chosen for elements in gone):
                continue
            if not inside or section.outlives(inside, system):
                hull._sections[system] = section
        return hull

    def distance(
        self, composition: Composition, energy_per_atom: float, theory: str | None = None
    ) -> float:
        """Return the signed decomposition energy against the known phases (eV/atom).

        Positive: above the hull, the energy set free by decomposing. Negative: below the present
        hull, by how much the phase beats the best mixture of what is known.

        Parameters
        ----------
        composition
            Composition of the crystal.
        energy_per_atom
            Its energy (eV/atom), total as the hull's phases have it.
        theory
            Key of the level of theory of the energy; None if the caller has made sure of it.

        Raises
        ------
        TheoryMismatchError
            If the energy has another level of theory than the hull.
        MissingReferenceError
            If the known phases do not span the chemical system.
        """
        self.check_theory(theory)
        return energy_per_atom - self.energy(composition)

    def energy(self, composition: Composition) -> float:
        """Return the energy of the hull at a composition (eV/atom).

        Raises
        ------
        MissingReferenceError
            If the known phases do not span the chemical system.
        """
        return float(self.energies([composition])[0])

    def energies(self, compositions: Sequence[Composition]) -> Array:
        """Return the energy of the hull at many compositions (eV/atom).

        Raises
        ------
        MissingReferenceError
            If the known phases do not span a chemical system.
        """
        return self._energies(contents.of_compositions(compositions), len(compositions))

    def crystal_energies(self, structures: Sequence[Structure]) -> Array:
        """Return the energy of the hull at the compositions of many crystals (eV/atom).

        Raises
        ------
        MissingReferenceError
            If the known phases do not span a chemical system.
        ValueError
            If a site holds a negative amount.
        """
        return self._energies(contents.of_crystals(structures), len(structures))

    def energies_at(self, elements: Sequence[str], fractions: Array) -> Array:
        """Return the energy of the hull of one chemical system at atomic fractions (eV/atom).

        Parameters
        ----------
        elements
            The elements of the system, in the order of the fractions.
        fractions
            Atomic fractions, shape (questions, elements); zeros are allowed.

        Raises
        ------
        MissingReferenceError
            If the known phases do not span the chemical system.
        """
        order = sorted(range(len(elements)), key=lambda place: elements[place])
        system = tuple(elements[place] for place in order)
        self._require(system)
        return self._section(system).energies(np.asarray(fractions, dtype=float)[:, order])

    def competition(self, elements: Sequence[str], fractions: Array) -> Competition:
        """Return what the known phases of one chemical system offer at atomic fractions.

        A question has the same answer to the last bit, whatever is asked beside it.

        Parameters
        ----------
        elements
            The elements of the system, sorted.
        fractions
            Atomic fractions, shape (questions, elements); zeros are allowed.

        Raises
        ------
        MissingReferenceError
            If the known phases do not span the chemical system.
        """
        system = tuple(elements)
        self._require(system)
        return self._section(system).competition(np.asarray(fractions, dtype=float))

    def decomposition(self, composition: Composition) -> dict[str, float]:
        """Return the most stable mixture of known phases at a composition.

        Each phase comes with its share of the atoms; the shares add up to 1.

        Raises
        ------
        MissingReferenceError
            If the known phases do not span the chemical system.
        """
        system = system_of(composition)
        self._require(system)
        section = self._section(system)
        shares = section.hull.mixture(fractions_of(composition, system))
        return {section.points[i].phase_id: share for i, share in shares}

    def formation_energy(
        self, composition: Composition, energy_per_atom: float, theory: str | None = None
    ) -> float:
        """Return the energy against the most stable known form of each element (eV/atom).

        Raises
        ------
        TheoryMismatchError
            If the energy has another level of theory than the hull.
        MissingReferenceError
            If an element is missing among the known phases.
        """
        self.check_theory(theory)
        system = system_of(composition)
        self._require(system)
        references = np.array([self._elemental[element] for element in system])
        return energy_per_atom - float(fractions_of(composition, system) @ references)

    def stable_phases(self, elements: Iterable[str]) -> list[str]:
        """Return the ids of the phases on the hull of a chemical system, in the order given.

        Raises
        ------
        MissingReferenceError
            If the known phases do not span the chemical system.
        """
        system = tuple(sorted(set(elements)))
        self._require(system)
        section = self._section(system)
        below = section.above(section.points, system) < ON_HULL
        return [p.phase_id for p, stable in zip(section.points, below, strict=True) if stable]

    def check_theory(self, theory: str | None) -> None:
        """Refuse energies that do not belong on this hull.

        Raises
        ------
        TheoryMismatchError
            If the key is given and differs.
        """
        if theory is not None and theory != self.theory:
            raise TheoryMismatchError(
                f"the energy was computed with {theory}, the hull with {self.theory}: "
                "compute both with the same method"
            )

    def missing(self, elements: Iterable[str]) -> list[str]:
        """Return the elements that have no reference phase, sorted."""
        return sorted(set(elements) - self._elemental.keys())

    def _set_up(self, points: Iterable[Point], theory: str) -> None:
        self.theory = theory
        best: dict[str, Point] = {}
        for point in points:
            if not np.isfinite(point.energy):
                raise ValueError(f"the energy of phase {point.phase_id} is not a finite number")
            formula = point.composition.element_composition.reduced_formula
            # The first of several with the same energy stays: the order of the input decides.
            if formula not in best or point.energy < best[formula].energy:
                best[formula] = point
        self._formulas = tuple(best)
        self._points = tuple(best.values())
        self._blocks: dict[frozenset[str], list[int]] = {}
        for place, point in enumerate(self._points):
            self._blocks.setdefault(frozenset(content(point.composition)), []).append(place)
        self._elemental = {
            next(iter(system)): self._points[places[0]].energy
            for system, places in self._blocks.items()
            if len(system) == 1
        }
        self._sections: dict[tuple[str, ...], _Section] = {}

    def _require(self, system: tuple[str, ...]) -> None:
        lacking = self.missing(system)
        if lacking:
            names = ", ".join(lacking)
            raise MissingReferenceError(
                f"no reference phase of {names} is known, so nothing in {'-'.join(system)} can be "
                f"placed on a hull: add a crystal of elemental {names} to the references"
            )

    def _energies(self, tables: Iterable[Contents], count: int) -> Array:
        result = np.empty(count)
        for table in tables:
            result[table.rows] = self.energies_at(table.elements, table.fractions)
        return result

    def _section(self, system: tuple[str, ...]) -> _Section:
        if system not in self._sections:
            places = sorted(place for part in self._parts(system) for place in self._blocks[part])
            points = [self._points[place] for place in places]
            self._sections[system] = _Section(points, system, self._elemental)
        return self._sections[system]

    def _parts(self, system: tuple[str, ...]) -> list[frozenset[str]]:
        # Subsystems with phases; either all subsets are looked up, or all systems are looked at.
        if 2 ** len(system) < len(self._blocks):
            sizes = range(1, len(system) + 1)
            subsets = (frozenset(p) for size in sizes for p in combinations(system, size))
            return [part for part in subsets if part in self._blocks]
        chosen = frozenset(system)
        return [part for part in self._blocks if part <= chosen]


class _Section:
    # The hull of one chemical system, with its phases.

    def __init__(
        self, points: list[Point], system: tuple[str, ...], elemental: Mapping[str, float]
    ) -> None:
        self.points = points
        fractions = np.array([fractions_of(point.composition, system) for point in points])
        self._references = np.array([elemental[element] for element in system])
        energies = np.array([point.energy for point in points])
        self.hull = LowerHull(fractions, energies - fractions @ self._references)

    def energies(self, fractions: Array) -> Array:
        return np.asarray(self.hull.energies(fractions) + fractions @ self._references)

    def competition(self, fractions: Array) -> Competition:
        formation, mixtures = self.hull.competitors(fractions)
        elements = (fractions * self._references).sum(axis=1)
        named = {
            mixture: tuple(dict.fromkeys(self.points[place].phase_id for place in mixture))
            for mixture in set(mixtures)
        }
        return Competition(formation + elements, elements, [named[mixture] for mixture in mixtures])

    def above(self, points: Sequence[Point], system: tuple[str, ...]) -> Array:
        fractions = np.array([fractions_of(point.composition, system) for point in points])
        energies = np.array([point.energy for point in points])
        return np.asarray(energies - self.energies(fractions))

    def outlives(self, points: Sequence[Point], system: tuple[str, ...]) -> bool:
        return bool((self.above(points, system) >= ON_HULL).all())
