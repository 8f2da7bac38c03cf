"""The convex hull of a table of formation energies, grown as compounds are bought."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition

from matloop.structures.phase_diagram import Hull, Point

Array = NDArray[np.float64]
System = tuple[str, ...]

_THEORY = "one table"


class KnownHull:
    """The hull of known compounds; elements have a formation energy of 0.

    Parameters
    ----------
    compounds
        Composition and formation energy (eV/atom) of each.
    """

    def __init__(self, compounds: Iterable[tuple[Composition, float]]) -> None:
        self._points: dict[System, list[Point]] = {}
        self._hulls: dict[System, Hull] = {}
        for composition, energy in compounds:
            self.add(composition, energy)

    def add(self, composition: Composition, energy: float) -> None:
        """Let a compound join."""
        system = system_of(composition)
        point = Point(f"{composition.formula} {energy:.6f}", composition, energy)
        self._points.setdefault(system, []).append(point)
        whole = set(system)
        self._hulls = {key: hull for key, hull in self._hulls.items() if not whole <= set(key)}

    def energies(self, compositions: Sequence[Composition]) -> Array:
        """Return the energy of the hull at each composition (eV/atom), shape (n,)."""
        result = np.empty(len(compositions))
        by_system: dict[System, list[int]] = {}
        for index, composition in enumerate(compositions):
            by_system.setdefault(system_of(composition), []).append(index)
        for system, rows in by_system.items():
            result[rows] = self._hull(system).energies([compositions[row] for row in rows])
        return result

    def _hull(self, system: System) -> Hull:
        if system not in self._hulls:
            points = [Point(name, Composition(name), 0.0) for name in system]
            for size in range(1, len(system) + 1):
                for part in combinations(system, size):
                    points += self._points.get(part, [])
            self._hulls[system] = Hull.from_points(points, _THEORY)
        return self._hulls[system]


def system_of(composition: Composition) -> System:
    """Return the elements of a composition, sorted."""
    return tuple(sorted(element.symbol for element in composition.elements))
