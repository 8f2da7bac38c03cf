"""Space groups and standard cells."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.structures.symmetry import (
    SymmetryError,
    conventional_cell,
    primitive_cell,
    primitive_size,
    rotations,
    space_group,
)

PEROVSKITE = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
)


def rattled(structure, amplitude, seed=0):
    """Return a copy with every site moved by the amplitude (Å) in a random direction."""
    steps = np.random.default_rng(seed).normal(size=(len(structure), 3))
    steps *= amplitude / np.linalg.norm(steps, axis=1)[:, None]
    return Structure(
        structure.lattice,
        structure.species,
        structure.cart_coords + steps,
        coords_are_cartesian=True,
    )


@pytest.mark.parametrize(
    ("group", "lattice", "species", "coords", "number"),
    [
        ("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]], 227),
        ("P6_3/mmc", Lattice.hexagonal(3.21, 5.21), ["Mg"], [[1 / 3, 2 / 3, 0.25]], 194),
        (
            "P4_2/mnm",
            Lattice.tetragonal(4.59, 2.96),
            ["Ti", "O"],
            [[0, 0, 0], [0.305, 0.305, 0]],
            136,
        ),
    ],
)
def test_textbook_crystals_have_their_space_group(group, lattice, species, coords, number):
    """Diamond, hexagonal close packing and rutile, in their conventional and primitive cells."""
    crystal = Structure.from_spacegroup(group, lattice, species, coords)
    assert space_group(crystal).number == number
    assert space_group(crystal.get_primitive_structure()).number == number


def test_symbol_wyckoff_letters_and_tolerance_are_reported():
    """Cubic perovskite: Pm-3m, letters a, b and c, the three oxygens equivalent."""
    group = space_group(PEROVSKITE, symprec=0.05)
    assert (group.symbol, group.symprec) == ("Pm-3m", 0.05)
    assert group.wyckoff_sequence == "a b c"
    assert len(set(group.orbits)) == 3


def test_a_rattled_crystal_is_moved_back_onto_its_symmetry():
    """Displaced by 0.02 Å it is cubic within 0.1 Å; the cells returned are so within 1e-5 Å."""
    bent = rattled(PEROVSKITE * [2, 1, 1], 0.02)
    assert space_group(bent, symprec=1e-4).number < 16
    assert space_group(bent, symprec=0.1).number == 221
    for cell in (primitive_cell(bent), conventional_cell(bent)):
        assert len(cell) == 5
        assert space_group(cell, symprec=1e-5).number == 221


def test_primitive_and_conventional_cells_have_their_sizes():
    """Face-centred copper: one atom and four; a supercell has the same primitive cell."""
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.61), ["Cu"], [[0, 0, 0]])
    assert len(primitive_cell(copper * [2, 2, 1])) == primitive_size(copper) == 1
    assert len(conventional_cell(primitive_cell(copper))) == 4


def test_a_coarse_tolerance_falls_back_to_a_finer_one():
    """A cell smaller than the tolerance still gets its space group, with the tolerance used."""
    tiny = Structure(Lattice.cubic(0.5), ["Na"], [[0, 0, 0]])
    group = space_group(tiny, symprec=5.0)
    assert group.number == 221
    assert group.symprec < 5.0


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        (Structure(Lattice.cubic(4), ["Na"], [[np.nan, 0, 0]]), "not finite"),
        (Structure(Lattice.cubic(4), ["Na", "Na"], [[0, 0, 0], [0, 0, 0]]), "no symmetry"),
        (Structure(Lattice.cubic(4), [{"Na": 0.5}], [[0, 0, 0]]), "disordered"),
        (Structure(Lattice.cubic(4), ["X"], [[0, 0, 0]]), "no chemical element"),
    ],
)
def test_what_has_no_symmetry_says_why(structure, words):
    """Broken crystals raise one kind of error, and count as their own primitive cell."""
    with pytest.raises(SymmetryError, match=words):
        space_group(structure)
    assert primitive_size(structure) == len(structure)


@pytest.mark.parametrize(
    ("structure", "order"),
    [
        (PEROVSKITE, 48),
        (PEROVSKITE * (1, 1, 2), 16),
        (Structure(Lattice.from_parameters(3, 4, 5, 70, 80, 95), ["Li"], [[0, 0, 0]]), 2),
    ],
)
def test_rotations_are_a_group_that_keeps_lengths(structure, order):
    """As many as the point group of the cell's own lattice allows, closed, and all orthogonal."""
    turns = rotations(structure)
    cell = structure.lattice.matrix
    metric = cell @ cell.T
    for turn in turns:
        assert turn.T @ metric @ turn == pytest.approx(metric, abs=1e-6)
    assert len(turns) == order
    known = {tuple(turn.ravel()) for turn in turns}
    assert {tuple((a @ b).ravel()) for a in turns for b in turns} == known
