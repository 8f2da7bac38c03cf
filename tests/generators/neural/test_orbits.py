"""Crystals as space group, orbits and free numbers, and back."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matloop.generators.neural.representations.orbits import symmetric

from .conftest import CRYSTALS

MATCHER = StructureMatcher(ltol=0.01, stol=0.02, angle_tol=0.1, scale=False)


@pytest.mark.parametrize("structure", CRYSTALS, ids=lambda one: one.composition.reduced_formula)
def test_a_crystal_is_given_back(structure: Structure) -> None:
    """What symmetry leaves open is enough to rebuild a crystal, volume included."""
    written = symmetric(structure)
    assert written is not None
    assert MATCHER.fit(written.structure(), structure)


def test_all_lattice_families_and_p1_are_given_back() -> None:
    """Every crystal family, oblique cells and crystals without symmetry among them."""
    rng = np.random.default_rng(3)
    families = {
        1: Lattice.from_parameters(4.1, 5.2, 6.3, 78, 95, 102),
        14: Lattice.monoclinic(5.0, 6.1, 5.4, 103),
        62: Lattice.orthorhombic(7.4, 9.6, 8.3),
        123: Lattice.tetragonal(9.8, 15.5),
        166: Lattice.hexagonal(9.8, 18.1),
        194: Lattice.hexagonal(8.2, 9.2),
        227: Lattice.cubic(18.1),
    }
    for number, lattice in families.items():
        points = rng.random((2, 3))
        structure = Structure.from_spacegroup(number, lattice, ["Fe", "O"], points)
        written = symmetric(structure)
        assert written is not None, number
        assert written.space_group == number
        assert MATCHER.fit(written.structure(), structure), number


def test_any_description_of_a_crystal_is_written_the_same() -> None:
    """Origin, cell and order of sites do not change group, letters' count and cell numbers."""
    rng = np.random.default_rng(0)
    rutile = CRYSTALS[9]
    first = symmetric(rutile)
    moved = rutile.copy()
    moved.translate_sites(range(len(moved)), rng.random(3))
    moved.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
    second = symmetric(moved)
    assert first is not None
    assert second is not None
    assert first.space_group == second.space_group
    assert first.cell == pytest.approx(second.cell, abs=1e-6)
    assert len(first.orbits) == len(second.orbits)
    assert first.counts == second.counts
