"""Descriptors of crystals as proposed."""

import time

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.surrogates import descriptors
from matloop.surrogates.descriptors import FEATURES, describe, describe_all


def rock_salt(a: float = 5.64) -> Structure:
    corners = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    centres = [[0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    return Structure(Lattice.cubic(a), ["Na"] * 4 + ["Cl"] * 4, corners + centres)


def perovskite() -> Structure:
    faces = [[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], *faces]
    return Structure(Lattice.cubic(3.905), ["Sr", "Ti", "O", "O", "O"], sites)


def named(structure: Structure) -> dict[str, float]:
    return dict(zip(FEATURES, describe(structure).tolist(), strict=True))


def test_descriptor_does_not_depend_on_the_description_of_the_crystal():
    """Supercell, skewed cell, rotation, translation and another order of sites change nothing."""
    rng = np.random.default_rng(0)
    crystal = perovskite()
    low = Structure(
        Lattice.from_parameters(4.1, 5.3, 6.2, 81, 97, 104),
        ["Ca", "Ti", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.45, 0.52], [0.5, 0.5, 0.1], [0.05, 0.5, 0.5], [0.5, 0.02, 0.55]],
    )
    for structure in (crystal, low):
        expected = describe(structure)
        doubled = structure.copy()
        doubled.make_supercell([2, 1, 1])
        skewed = structure.copy()
        skewed.make_supercell([[1, 1, 0], [0, 1, 2], [0, 0, 1]])
        moved = structure.copy()
        moved.translate_sites(range(len(moved)), rng.random(3))
        shuffled = Structure.from_sites([structure[i] for i in rng.permutation(len(structure))])
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        turned = Structure(
            structure.lattice.matrix @ rotation, structure.species, structure.frac_coords
        )
        for other in (doubled, skewed, moved, shuffled, turned):
            assert describe(other) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_descriptor_tells_polymorphs_apart():
    """Rock salt and CsCl types of one formula differ in coordination, packing and symmetry."""
    sixfold = named(rock_salt())
    eightfold = named(Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]))
    assert sixfold["space_group"] == 225
    assert eightfold["space_group"] == 221
    assert sixfold["packing"] != pytest.approx(eightfold["packing"], abs=0.02)
    assert np.abs(describe(rock_salt()) - list(eightfold.values())).max() > 1.0


def test_madelung_energy_of_rock_salt():
    """The electrostatic energy is -1.7476 e^2 / (4 pi eps0 d) per ion pair, to one percent."""
    expected = -1.74756 * 14.399645 / 2.82 / 2.0
    assert named(rock_salt())["madelung"] == pytest.approx(expected, rel=0.01)


def test_bond_order_of_the_octahedron():
    """Ti in perovskite has six oxygens: Q4 = 0.7638 and no polarity (Steinhardt 1983)."""
    values = named(perovskite())
    assert values["q4_max"] == pytest.approx(0.7638, abs=0.02)
    assert values["polar_max"] == pytest.approx(0.0, abs=1e-6)


def test_compression_shows():
    """A squeezed crystal has shorter contacts, more overlap and a higher pair energy."""
    relaxed, squeezed = named(rock_salt()), named(rock_salt(4.2))
    assert squeezed["nearest_min"] < relaxed["nearest_min"]
    assert squeezed["overlap"] > relaxed["overlap"] == 0.0
    assert squeezed["pair_energy"] > relaxed["pair_energy"]


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (Structure(Lattice.cubic(3), ["Na"], [[np.nan, 0, 0]]), "not numbers"),
        (Structure(Lattice.cubic(0.5), ["Na"], [[0, 0, 0]]), "per atom"),
        (Structure(Lattice.cubic(90), ["Na"], [[0, 0, 0]]), "per atom"),
        (Structure(Lattice.orthorhombic(0.1, 20, 20), ["Na"], [[0, 0, 0]]), "flat"),
        (Structure(Lattice.cubic(3), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]]), "partly"),
        (Structure(Lattice.cubic(3), [], []), "empty"),
        (Structure(Lattice.cubic(4), ["Og"], [[0, 0, 0]]), "no data for the element"),
    ],
)
def test_poison_is_refused_in_words(structure, message):
    """A crystal that cannot be described raises a ValueError that says why."""
    with pytest.raises(ValueError, match=message):
        describe(structure)


def test_one_bad_crystal_leaves_the_others_alone():
    """A batch with a NaN coordinate gives one failure and finite rows for the rest."""
    bad = Structure(Lattice.cubic(3), ["Na"], [[np.nan, 0, 0]])
    features, failures = describe_all([rock_salt(), bad, perovskite()])
    assert list(failures) == [1]
    assert np.isfinite(features[[0, 2]]).all()
    assert np.isnan(features[1]).all()


@pytest.mark.parametrize("seed", range(20))
def test_random_and_colliding_atoms_give_finite_numbers(seed):
    """Random positions, coincident atoms and noble gases still give a finite vector."""
    rng = np.random.default_rng(seed)
    n_atoms = int(rng.integers(1, 12))
    lattice = Lattice.from_parameters(*rng.uniform(2.5, 9, 3), *rng.uniform(50, 125, 3) / 1.2)
    species = rng.choice(["Ar", "O", "U", "H", "Ti", "Cs"], n_atoms).tolist()
    coordinates = rng.random((n_atoms, 3))
    coordinates[-1] = coordinates[0]
    structure = Structure(lattice, species, coordinates)
    if lattice.volume / n_atoms < 1.0:
        pytest.skip("the cell came out flat")
    assert np.isfinite(describe(structure)).all()


def test_description_is_cheap():
    """A crystal of 20 atoms takes well below 50 ms of processor time (about 2 ms alone)."""
    structure = perovskite()
    structure.make_supercell([2, 2, 1])
    structure.perturb(0.05)
    describe(structure)
    descriptors._cached.cache_clear()
    start = time.process_time()
    for _ in range(5):
        structure.translate_sites([0], [0.001, 0, 0])
        describe(structure)
    assert (time.process_time() - start) / 5 < 0.05
