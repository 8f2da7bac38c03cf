"""Convex hulls of formation energy: distances and decompositions, one level of theory at a time.

A hull is built per chemical sub-system on first use and kept as its facet planes. The lower hull is
convex, so its energy at a composition is the largest of all facet planes there: one matrix product
answers any number of questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Element
from scipy.spatial import ConvexHull, QhullError

from matloop.documents.phase import PhaseSet
from matloop.errors import MissingReferenceError, TheoryMismatchError
from matloop.structures.mixtures import least_mixture

Array = NDArray[np.float64]

MAX_FACET_ELEMENTS = 7
"""Chemical systems of more elements are solved by linear programming, query by query: the number of
facets grows exponentially with the number of elements."""

_NOTHING = 1e-9  # fractions below it are rounding
_VERTICAL = 1e-8  # energy component of a facet's unit normal below which it is a side wall


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
        result = np.empty(len(compositions))
        by_system: dict[tuple[str, ...], list[int]] = {}
        for index, composition in enumerate(compositions):
            by_system.setdefault(_system(composition), []).append(index)
        for system, indices in by_system.items():
            fractions = np.array([_fractions(compositions[i], system) for i in indices])
            reference = fractions @ self._reference_energies(system)
            result[indices] = self._section(system).energies(fractions) + reference
        return result

    def decomposition(self, composition: Composition) -> dict[str, float]:
        """Return the most stable mixture of known phases at a composition.

        Each phase comes with its share of the atoms; the shares add up to 1.

        Raises
        ------
        MissingReferenceError
            If the known phases do not span the chemical system.
        """
        system = _system(composition)
        self._reference_energies(system)
        section = self._section(system)
        shares = section.mixture(_fractions(composition, system))
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
        system = _system(composition)
        references = self._reference_energies(system)
        return energy_per_atom - float(_fractions(composition, system) @ references)

    def stable_phases(self, elements: Iterable[str]) -> list[str]:
        """Return the ids of the phases on the hull of a chemical system, in the order given.

        Raises
        ------
        MissingReferenceError
            If the known phases do not span the chemical system.
        """
        system = tuple(sorted(set(elements)))
        self._reference_energies(system)
        section = self._section(system)
        above = section.formation - section.energies(section.fractions)
        return [
            point.phase_id for point, gap in zip(section.points, above, strict=True) if gap < 1e-8
        ]

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
            formula = _bare(point.composition).reduced_formula
            # The first of several with the same energy stays: the order of the input decides.
            if formula not in best or point.energy < best[formula].energy:
                best[formula] = point
        self._points = tuple(best.values())
        self._systems = [frozenset(_system(point.composition)) for point in self._points]
        self._elemental = {
            next(iter(system)): point.energy
            for point, system in zip(self._points, self._systems, strict=True)
            if len(system) == 1
        }
        self._sections: dict[tuple[str, ...], _Section] = {}

    def _reference_energies(self, system: tuple[str, ...]) -> Array:
        lacking = self.missing(system)
        if lacking:
            names = ", ".join(lacking)
            raise MissingReferenceError(
                f"no reference phase of {names} is known, so nothing in {'-'.join(system)} can be "
                f"placed on a hull: add a crystal of elemental {names} to the references"
            )
        return np.array([self._elemental[element] for element in system])

    def _section(self, system: tuple[str, ...]) -> _Section:
        if system not in self._sections:
            chosen = set(system)
            points = [
                point
                for point, elements in zip(self._points, self._systems, strict=True)
                if elements <= chosen
            ]
            self._sections[system] = _Section(points, system, self._elemental)
        return self._sections[system]


class _Section:
    # The hull of one chemical system, over formation energies; the elements are its corners.

    def __init__(
        self, points: list[Point], system: tuple[str, ...], elemental: Mapping[str, float]
    ) -> None:
        self.points = points
        self.fractions = np.array([_fractions(point.composition, system) for point in points])
        references = np.array([elemental[element] for element in system])
        energies = np.array([point.energy for point in points])
        self.formation = energies - self.fractions @ references
        # Phases above the plane of the elements are on no facet.
        corner = (self.fractions > 1 - _NOTHING).any(axis=1)
        self.useful = np.flatnonzero(corner | (self.formation < -_NOTHING))
        self.planes = self._facet_planes()

    def energies(self, fractions: Array) -> Array:
        # Formation energy of the hull at atomic fractions, shape (queries, elements).
        if self.planes is not None:
            return np.asarray((fractions @ self.planes.T).max(axis=1))
        return np.array([self._solve(row)[0] for row in fractions])

    def mixture(self, fractions: Array) -> list[tuple[int, float]]:
        # Phases of the most stable mixture with their shares of the atoms.
        _, shares = self._solve(fractions)
        return [(int(self.useful[i]), float(shares[i])) for i in np.flatnonzero(shares)]

    def _facet_planes(self) -> Array | None:
        # Each facet as the formation energies it gives the pure elements, shape (facets, elements).
        elements = self.fractions.shape[1]
        fractions, formation = self.fractions[self.useful], self.formation[self.useful]
        if len(self.useful) == elements:
            return np.zeros((1, elements))
        if elements > MAX_FACET_ELEMENTS:
            return None
        points = np.column_stack([fractions[:, 1:], formation])
        try:
            equations = ConvexHull(points, qhull_options="Qt").equations
        except QhullError:
            return None
        lower = equations[equations[:, -2] < -_VERTICAL]
        slopes = -lower[:, :-2] / lower[:, -2:-1]
        first = -lower[:, -1:] / lower[:, -2:-1]
        return np.asarray(np.unique(np.column_stack([first, first + slopes]), axis=0))

    def _solve(self, fractions: Array) -> tuple[float, Array]:
        return least_mixture(self.fractions[self.useful], self.formation[self.useful], fractions)


def _bare(composition: Composition) -> Composition:
    return composition.element_composition


def _system(composition: Composition) -> tuple[str, ...]:
    bare = _bare(composition)
    return tuple(sorted(str(element) for element in bare.elements if bare[element] > 0))


def _fractions(composition: Composition, system: tuple[str, ...]) -> Array:
    bare = _bare(composition)
    return np.array([bare.get_atomic_fraction(Element(name)) for name in system])
