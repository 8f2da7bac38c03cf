"""Crystals as space group, orbits and free numbers, and back."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matloop.generators.neural.representations.normalizer import descriptions
from matloop.generators.neural.representations.orbits import SymmetricCrystal, symmetric
from matloop.generators.wyckoff import space_group

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


@pytest.mark.parametrize("structure", CRYSTALS, ids=lambda one: one.composition.reduced_formula)
def test_any_description_of_a_crystal_is_written_the_same(structure: Structure) -> None:
    """Neither origin nor cell nor order of sites changes a letter or a number."""
    rng = np.random.default_rng(0)
    first = symmetric(structure)
    assert first is not None
    for _ in range(3):
        moved = structure.copy()
        moved.translate_sites(range(len(moved)), rng.random(3))
        moved.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
        order = [int(index) for index in rng.permutation(len(moved))]
        second = symmetric(Structure.from_sites([moved[index] for index in order]))
        assert second is not None
        _same(first, second)


@pytest.mark.parametrize("number", [1, 2, 12, 18, 33, 62, 64, 82, 144, 164, 173, 194, 216])
def test_other_origins_of_a_group_are_written_the_same(number: int) -> None:
    """Moved by what maps the group onto itself, a crystal keeps its letters and its numbers."""
    lattices = {
        "triclinic": Lattice.from_parameters(7.1, 8.2, 9.3, 78, 95, 102),
        "monoclinic": Lattice.monoclinic(8.0, 9.1, 7.4, 103),
        "orthorhombic": Lattice.orthorhombic(7.4, 9.6, 8.3),
        "tetragonal": Lattice.tetragonal(9.8, 15.5),
        "trigonal": Lattice.hexagonal(9.8, 18.1),
        "hexagonal": Lattice.hexagonal(9.8, 18.1),
        "cubic": Lattice.cubic(18.1),
    }
    lattice = lattices[space_group(number).lattice_type]
    rng = np.random.default_rng(7)
    points = rng.random((3, 3))
    given = Structure.from_spacegroup(number, lattice, ["Fe", "O", "O"], points)
    first = symmetric(given)
    assert first is not None
    others = descriptions(number)[1:]
    for index in rng.permutation(len(others))[:3]:
        description = others[index]
        sites = description.sites(given.frac_coords)
        cell = description.basis(given.lattice.matrix)
        second = symmetric(Structure(cell, given.species, sites))
        assert second is not None
        _same(first, second)


@pytest.mark.parametrize(
    ("number", "count"), [(2, 8), (62, 8), (64, 4), (123, 4), (166, 2), (225, 2), (230, 1)]
)
def test_settings_of_a_group(number: int, count: int) -> None:
    """As many as the index of the group in its normalizer (International Tables A, 3.5)."""
    assert len(descriptions(number)) == count


def _same(first: SymmetricCrystal, second: SymmetricCrystal) -> None:
    assert first.space_group == second.space_group
    assert first.cell == pytest.approx(second.cell, abs=1e-5)
    named = [[(one.element, one.letter) for one in crystal.orbits] for crystal in (first, second)]
    assert named[0] == named[1]
    for one, other in zip(first.orbits, second.orbits, strict=True):
        assert one.free == pytest.approx(other.free, abs=1e-4)
