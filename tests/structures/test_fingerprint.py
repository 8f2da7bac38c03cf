"""Fingerprints: independent of the description of a crystal, and continuous."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.structures import fingerprint as fingerprints

PEROVSKITE = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
)


def fingerprint(structure):
    """Return the fingerprint of a crystal, its sites by rising atomic number."""
    sites = structure.get_sorted_structure(key=lambda site: site.specie.Z)
    numbers = np.array(sites.atomic_numbers)
    return fingerprints.fingerprint(sites.lattice.matrix, numbers, sites.frac_coords)


def crystal(seed, species=("Ti", "Ti", "O", "O", "O", "O")):
    """Return random sites in a skew cell."""
    rng = np.random.default_rng(seed)
    lattice = Lattice.from_parameters(*rng.uniform(4, 6, 3), *rng.uniform(75, 105, 3))
    return Structure(lattice, species, rng.random((len(species), 3)))


@pytest.mark.parametrize("structure", [PEROVSKITE, crystal(0), crystal(1)])
def test_another_description_has_the_same_fingerprint(structure):
    """Other axes, origin, order of sites and volume: the same to rounding."""
    other = structure * [[1, 1, 0], [0, 1, 0], [0, 1, 2]]
    other.translate_sites(range(len(other)), [0.13, 0.4, 0.77])
    other = Structure.from_sites(
        [other[i] for i in np.random.default_rng(0).permutation(len(other))]
    )
    other.scale_lattice(other.volume * 1.2)
    np.testing.assert_allclose(fingerprint(other), fingerprint(structure), atol=1e-9)


def test_it_moves_no_more_than_twice_as_far_as_a_site():
    """Distances change by at most the sum of two displacements: no jump anywhere."""
    rng = np.random.default_rng(3)
    for seed in range(5):
        first = crystal(seed)
        unit = (first.volume / len(first)) ** (1 / 3)
        for size in (1e-6, 1e-3, 0.1):
            steps = rng.normal(size=(len(first), 3))
            steps *= size / np.linalg.norm(steps, axis=1)[:, None]
            moved = Structure(
                first.lattice,
                first.species,
                first.cart_coords + steps,
                coords_are_cartesian=True,
            )
            gap = np.linalg.norm(fingerprint(moved) - fingerprint(first))
            assert 0 < gap <= 2 * size / unit * (1 + 1e-6)


def test_polymorphs_are_told_apart():
    """Rutile and anatase lie further apart than the reach of a search."""
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    anatase = Structure.from_spacegroup(
        "I4_1/amd", Lattice.tetragonal(3.78, 9.51), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.208]]
    )
    assert np.linalg.norm(fingerprint(rutile) - fingerprint(anatase)) > 0.05


def test_lengths_agree_within_a_formula_and_single_atoms_have_one():
    """Its length depends on the number of elements alone."""
    copper = Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    assert fingerprint(copper).shape == fingerprint(copper * [2, 1, 1]).shape
    assert fingerprint(crystal(0)).shape == fingerprint(crystal(5)).shape
