"""Two hulls of equal membership: a difference of theories, not of what has been calculated."""

from __future__ import annotations

import pytest
from pymatgen.core import Composition, Lattice, Structure

from matloop.documents.phase import Phase, PhaseSet
from matloop.documents.theory import LevelOfTheory
from matloop.structures.shared_hull import SharedHull, unknown_above

LOW = LevelOfTheory(kind="mlip", code="low", version="1", model="low")
HIGH = LevelOfTheory(kind="dft", code="high", version="1", model="high")


def phase(name: str, formula: str, energy: float, theory: LevelOfTheory, source: str) -> Phase:
    species = [str(e) for e, n in Composition(formula).items() for _ in range(int(n))]
    sites = [[0.1 + 0.8 * i / len(species)] * 3 for i in range(len(species))]
    structure = Structure(Lattice.cubic(4), species, sites)
    return Phase(phase_id=name, structure=structure, energy=energy, theory=theory, source=source)


def hulls() -> tuple[PhaseSet, PhaseSet]:
    """Return hulls of Na and Cl; the lower one has found Na2Cl, which nobody calculated above."""
    low = [
        phase("Na-bcc", "Na", 0.0, LOW, "reference"),
        phase("Cl", "Cl", 0.0, LOW, "reference"),
        phase("salt", "NaCl", -1.0, LOW, "found"),
        phase("rich", "Na2Cl", -1.2, LOW, "found"),
    ]
    high = [
        phase("my-Na", "Na", 0.0, HIGH, "reference"),
        phase("Cl", "Cl", 0.0, HIGH, "reference"),
        phase("salt", "NaCl", -0.9, HIGH, "found"),
    ]
    return PhaseSet(theory=LOW, phases=low), PhaseSet(theory=HIGH, phases=high)


def test_only_shared_phases_compete() -> None:
    """A phase that one level lacks does not make the other look kinder."""
    shared = SharedHull(*hulls())
    low, high = shared.distances("new", Composition("Na3Cl"), (-0.4, -0.4))
    assert low == pytest.approx(-0.4 + 0.5)  # half of what salt has, Na2Cl left out
    assert high == pytest.approx(-0.4 + 0.45)


def test_a_phase_does_not_compete_with_itself() -> None:
    """A found phase has its signed distance to all others, not 0 at both levels."""
    shared = SharedHull(*hulls())
    assert shared.distances("salt", Composition("NaCl"), (-1.0, -0.9)) == pytest.approx(
        (-1.0, -0.9)
    )


def test_an_element_without_reference_gives_nothing() -> None:
    """What the shared phases do not span has no distance."""
    assert SharedHull(*hulls()).distances("new", Composition("KCl"), (-1.0, -1.0)) is None


def test_what_is_not_calculated_is_named() -> None:
    """Found phases on the lower hull without an energy above are listed."""
    assert [item.phase_id for item in unknown_above(*hulls())] == ["rich"]
