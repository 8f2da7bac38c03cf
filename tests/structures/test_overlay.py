"""Verdicts on arrays are those of pymatgen's matcher on crystals."""

import itertools

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matloop.structures.matching import Matcher

MATCHER = Matcher(ltol=0.2, stol=0.3, angle_tol=5.0)
JUDGE = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5.0)
FORMULAS = (("C",) * 6, ("Ti", "O", "O"), ("Sr", "Ti", "O", "O", "O"), ("Al", "Al", "Ni", "Ni"))


def family(species, rng):
    """Return crystals of one formula, some alike: rattled, strained, in another cell."""
    found = []
    for _ in range(4):
        angles = rng.uniform(70, 110, 3)
        lattice = Lattice.from_parameters(*rng.uniform(3, 6, 3), *angles)
        start = Structure(lattice, species, rng.random((len(species), 3)))
        for size in (0.0, 0.05, 0.15, 0.3, 0.6):
            strain = np.eye(3) + rng.normal(scale=0.15 * size, size=(3, 3))
            sites = start.cart_coords @ strain + rng.normal(scale=0.6 * size, size=(len(start), 3))
            cell = lattice.matrix @ strain
            other = Structure(cell, species, sites, coords_are_cartesian=True)
            other.make_supercell([[1, 1, 0], [0, 1, 0], [0, -1, 1]])
            other.translate_sites(range(len(other)), rng.random(3))
            found.append(other)
    return found


@pytest.mark.parametrize("species", FORMULAS, ids="".join)
def test_verdicts_are_those_of_pymatgen(species):
    """On pairs from alike to strange, and on those in between."""
    reduced = [MATCHER.reduce(one) for one in family(species, np.random.default_rng(2))]
    verdicts = []
    for first, second in itertools.combinations(reduced, 2):
        expected = JUDGE.fit(first.structure, second.structure, skip_structure_reduction=True)
        assert MATCHER.same(first, second) == expected
        verdicts.append(expected)
    assert 3 < sum(verdicts) < len(verdicts) - 3  # both verdicts occur


def test_the_first_of_several_is_found():
    """Asked about many at once, the place of a match is named, and none where there is none."""
    reduced = [MATCHER.reduce(one) for one in family(FORMULAS[1], np.random.default_rng(5))]
    for place, one in enumerate(reduced):
        others = reduced[:place]
        alike = [index for index, other in enumerate(others) if MATCHER.same(other, one)]
        found = MATCHER.first(others, one)
        assert (found is None) == (not alike)
        assert found is None or found in alike


def test_a_supercell_is_reduced_to_its_primitive_cell():
    """As many sites as pymatgen finds, and the same crystal."""
    rng = np.random.default_rng(3)
    for species in FORMULAS:
        lattice = Lattice.from_parameters(*rng.uniform(3, 6, 3), *rng.uniform(75, 105, 3))
        start = Structure(lattice, species, rng.random((len(species), 3)))
        large = start * [[2, 0, 0], [0, 1, 0], [1, 0, 2]]
        reduced = MATCHER.reduce(large)
        assert len(reduced.numbers) == len(large.get_primitive_structure())
        assert JUDGE.fit(reduced.structure, start)
