"""Phases that span a hull: leaving the others out changes no distance."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.phase import Phase, PhaseSet
from matloop.documents.theory import LevelOfTheory
from matloop.structures.phase_diagram import Hull
from matloop.structures.spanning import spanned

TOY = LevelOfTheory(kind="empirical", code="test", version="1", model="toy")


def crystal(formula: str) -> Structure:
    amounts = Composition(formula).get_el_amt_dict()
    species = [symbol for symbol, amount in amounts.items() for _ in range(int(amount))]
    places = np.linspace(0, 0.9, len(species))[:, None] * np.ones(3)
    return Structure(Lattice.cubic(4.0), species, places)


def found(name: str, formula: str, energy: float, distance: float) -> Candidate:
    return Candidate(
        candidate_id=name,
        structure=crystal(formula),
        origin=Origin(generator="test"),
        quantities={
            "energy_per_atom": Quantity(value=energy, unit="eV/atom", theory=TOY.key),
            "e_above_hull": Quantity(value=distance, unit="eV/atom", theory=TOY.key),
        },
    )


@pytest.fixture
def elements() -> PhaseSet:
    return PhaseSet(
        theory=TOY,
        phases=tuple(
            Phase(phase_id=symbol, structure=crystal(symbol), energy=0.0, theory=TOY)
            for symbol in ("Al", "Ni", "Ti")
        ),
    )


@pytest.mark.parametrize("size", [1, 7, 400])
def test_distances_are_those_of_all_phases(elements: PhaseSet, size: int) -> None:
    """Of 400 compounds below the elements few are kept, and the hull is the same everywhere."""
    rng = np.random.default_rng(5)
    candidates = []
    for number in range(400):
        amounts = rng.integers(0, 4, 3)
        if (amounts > 0).sum() < 2:
            amounts = np.array([1, 2, 1])
        formula = "".join(f"{s}{n}" for s, n in zip(("Al", "Ni", "Ti"), amounts, strict=True) if n)
        energy = float(-rng.random())
        candidates.append(found(f"c{number}", formula, energy, energy))
    pieces = [candidates[start : start + size] for start in range(0, 400, size)]
    kept = spanned(elements, pieces)
    everything = elements.grown(candidates)
    assert len(everything.phases) == 403
    assert 4 < len(kept.phases) < 40
    assert [p.phase_id for p in kept.phases[:3]] == ["Al", "Ni", "Ti"]
    asked = [item.structure.composition for item in candidates]
    np.testing.assert_allclose(
        Hull(kept).energies(asked), Hull(everything).energies(asked), rtol=0, atol=1e-12
    )


def test_what_was_known_stays(elements: PhaseSet) -> None:
    """A phase of an earlier iteration stays though a new one beats it; one above the hull goes."""
    earlier = elements.grown([found("old", "AlNi", -0.3, -0.3)])
    later = [found("new", "AlNi", -0.5, -0.2), found("worse", "AlNi", -0.4, -0.1)]
    kept = spanned(earlier, [later, [found("above", "AlTi", -0.1, 0.2)]])
    assert [phase.phase_id for phase in kept.phases] == ["Al", "Ni", "Ti", "old", "new"]
    assert kept.phases[-1].source == "found"
