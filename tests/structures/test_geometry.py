"""Distances and sanity of crystals, good and bad."""

import math
import re

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.structures import geometry

SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0, 0]]
)


def test_textbook_crystals_have_textbook_numbers():
    """Rock salt: 2.82 Å from Na to Cl, 22.4 Å^3 per atom, 2.16 g/cm^3."""
    contact = geometry.closest_contact(SALT)
    assert contact.distance == pytest.approx(2.82)
    assert {SALT[contact.first].species_string, SALT[contact.second].species_string} == {"Na", "Cl"}
    assert geometry.volume_per_atom(SALT) == pytest.approx(5.64**3 / 8)
    assert geometry.density(SALT) == pytest.approx(2.163, abs=2e-3)
    assert geometry.tightest_contact(SALT).ratio == pytest.approx(2.82 / (1.66 + 1.02))


def test_one_atom_in_a_tiny_cell_meets_its_own_images():
    """The only distances in a one-atom cell are lattice vectors, however the cell is written."""
    skew = Lattice([[0.4, 0, 0], [0.8, 3.0, 0], [-1.2, 3.0, 5.0]])  # 0.4 x 3 x 5 in disguise
    contact = geometry.closest_contact(Structure(skew, ["Cu"], [[0.3, 0.1, 0.9]]))
    assert contact.distance == pytest.approx(0.4)
    assert contact.first == contact.second == 0


@pytest.mark.parametrize("seed", range(8))
def test_the_shortest_distance_is_that_of_brute_force(seed):
    """Random skew cells: no image within three cells in each direction is closer."""
    rng = np.random.default_rng(seed)
    shear = np.array([[1, 0, 0], [rng.integers(-2, 3), 1, 0], [rng.integers(-2, 3), 1, 1]])
    matrix = shear @ (rng.normal(size=(3, 3)) * 0.4 + np.diag(rng.uniform(1.5, 5, 3)))
    coords = rng.random((rng.integers(1, 7), 3))
    structure = Structure(Lattice(matrix), ["O"] * len(coords), coords)
    images = np.array(np.meshgrid(*[range(-9, 10)] * 3)).reshape(3, -1).T
    vectors = (coords[:, None, None] - coords[None, :, None] + images) @ matrix
    distances = np.linalg.norm(vectors, axis=-1)
    expected = distances[distances > 1e-9].min()
    assert geometry.closest_contact(structure).distance == pytest.approx(expected, abs=1e-9)


def test_the_tightest_contact_weighs_distances_by_size():
    """An O-H bond of 0.97 Å is shorter than Cs-Cs at 3 Å, but Cs-Cs is the squeezed one."""
    structure = Structure(
        Lattice.cubic(12),
        ["Cs", "Cs", "O", "H"],
        [[0, 0, 0], [3.0, 0, 0], [6, 6, 6], [6.97, 6, 6]],
        coords_are_cartesian=True,
    )
    assert geometry.closest_contact(structure).distance == pytest.approx(0.97)
    tightest = geometry.tightest_contact(structure)
    assert (tightest.first, tightest.second) in {(0, 1), (1, 0)}
    assert tightest.ratio == pytest.approx(3.0 / 4.88)


def test_numbers_do_not_depend_on_the_choice_of_cell():
    """The primitive and a skewed supercell of rock salt have the same contact and density."""
    primitive = SALT.get_primitive_structure()
    other = primitive * [[1, 3, 0], [0, 1, 2], [0, 0, 2]]
    for function in (geometry.density, geometry.volume_per_atom):
        assert function(other) == pytest.approx(function(SALT))
    assert geometry.closest_contact(other).distance == pytest.approx(2.82)
    skewed = Structure(
        Lattice(np.array([[1, 0, 0], [7, 1, 0], [-5, 9, 1]]) @ primitive.lattice.matrix),
        primitive.species,
        primitive.cart_coords,
        coords_are_cartesian=True,
    )
    assert geometry.aspect(skewed) == pytest.approx(geometry.aspect(primitive))


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        (Structure(Lattice.cubic(4), ["Na"], [[np.nan, 0, 0]]), "site 0"),
        (Structure(Lattice.cubic(4), ["Na"], [[np.inf, 0, 0]]), "site 0"),
        (Structure(Lattice(np.full((3, 3), np.nan)), ["Na"], [[0, 0, 0]]), "lattice vector"),
        (Structure(Lattice.from_parameters(4, 4, 4, 1, 1, 1), ["Na"], [[0, 0, 0]]), "flat"),
        (Structure(Lattice([[3, 0, 0], [0, 3, 0], [3, 3, 0]]), ["Na"], [[0, 0, 0]]), "flat"),
        (Structure(Lattice.cubic(0.01), ["Na"], [[0, 0, 0]]), "0.01 Å"),
        (Structure(Lattice.cubic(1e5), ["Na"], [[0, 0, 0]]), "1e+05 Å"),
        (Structure(Lattice.cubic(4), [{"Na": 0.5}], [[0, 0, 0]]), "disordered"),
        (Structure(Lattice.cubic(4), [], []), "no atoms"),
        (Structure(Lattice.cubic(4), ["X"], [[0, 0, 0]]), "no chemical element"),
        (Structure(Lattice.cubic(99), ["Na"] * 1001, np.zeros((1001, 3))), "1001 sites"),
    ],
)
def test_what_is_no_crystal_is_named_and_does_not_raise(structure, words):
    """Every broken cell gets a sentence, and its numbers are finite or NaN."""
    assert words in geometry.objection(structure)
    for function in (geometry.volume_per_atom, geometry.density, geometry.aspect):
        assert isinstance(function(structure), float)
    with pytest.raises(ValueError, match=re.escape(words)):
        geometry.closest_contact(structure)


def test_overlapping_atoms_are_zero_apart():
    """Two atoms on one point are two atoms: their distance is zero, not the next one."""
    structure = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [1, 0, 0]])
    assert geometry.closest_contact(structure).distance == pytest.approx(0, abs=1e-9)
    assert geometry.tightest_contact(structure).ratio == pytest.approx(0, abs=1e-9)


def test_five_hundred_atoms_are_measured():
    """A cell of 512 atoms has the same shortest distance as its one-atom cell."""
    structure = Structure(Lattice.cubic(3.3), ["Po"], [[0, 0, 0]]) * [8, 8, 8]
    assert len(structure) == 512
    assert geometry.closest_contact(structure).distance == pytest.approx(3.3)
    assert geometry.tightest_contact(structure).ratio == pytest.approx(3.3 / 2.8)


def test_an_element_without_a_radius_has_no_ratio():
    """No covalent radius of oganesson is known: the distance stands, the ratio is NaN."""
    structure = Structure(Lattice.cubic(4), ["Og"], [[0, 0, 0]])
    contact = geometry.tightest_contact(structure)
    assert contact.distance == pytest.approx(4)
    assert math.isnan(contact.ratio)
