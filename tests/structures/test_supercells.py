"""Supercells are large enough, symmetric, even, and no larger than they must be."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.structures.supercells import supercell_matrix
from matloop.structures.symmetry import primitive_cell, rotations

CRYSTALS = {
    "copper": ("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]]),
    "iron": ("Im-3m", Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]]),
    "perovskite": (
        "Pm-3m",
        Lattice.cubic(3.9),
        ["Sr", "Ti", "O"],
        [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0]],
    ),
    "magnesium": ("P6_3/mmc", Lattice.hexagonal(3.2, 5.2), ["Mg"], [[1 / 3, 2 / 3, 0.25]]),
    "corundum": (
        "R-3c",
        Lattice.hexagonal(4.76, 12.99),
        ["Al", "O"],
        [[0, 0, 0.352], [0.306, 0, 0.25]],
    ),
    "triclinic": (
        "P1",
        Lattice.from_parameters(3.1, 5.2, 6.3, 62, 105, 71),
        ["Li", "S"],
        [[0.1, 0.2, 0.3], [0.6, 0.5, 0.1]],
    ),
}


def primitive(name: str) -> Structure:
    return primitive_cell(Structure.from_spacegroup(*CRYSTALS[name]), 0.01)


@pytest.mark.parametrize("name", CRYSTALS)
def test_images_are_far_apart_and_symmetry_is_kept(name: str) -> None:
    """Images keep their distance, rotations map the lattice onto itself, half points fit in."""
    crystal = primitive(name)
    turns = rotations(crystal)
    cell = crystal.lattice.matrix
    matrix = supercell_matrix(cell, turns, 9.0, max_cells=400)
    vectors = Lattice(matrix @ cell).get_niggli_reduced_lattice()
    assert min(vectors.abc) >= 9.0
    images = matrix @ turns.transpose(0, 2, 1) @ np.linalg.inv(matrix)
    assert np.abs(images - np.rint(images)).max() < 1e-9
    assert (matrix % 2 == 0).all()


@pytest.mark.parametrize(
    ("name", "length", "atoms"),
    [("copper", 10.0, 64), ("perovskite", 10.0, 80), ("magnesium", 10.0, 48), ("iron", 8.0, 32)],
)
def test_the_smallest_is_found(name: str, length: float, atoms: int) -> None:
    """Known best cells: a simple cube of the perovskite would take 320 atoms, fcc takes 80."""
    crystal = primitive(name)
    matrix = supercell_matrix(crystal.lattice.matrix, rotations(crystal), length, max_cells=400)
    assert round(abs(np.linalg.det(matrix))) * len(crystal) == atoms


def test_more_cells_than_allowed_are_refused() -> None:
    """The reason names length and limit."""
    crystal = primitive("copper")
    with pytest.raises(ValueError, match="30 Å apart take more than 100"):
        supercell_matrix(crystal.lattice.matrix, rotations(crystal), 30.0, max_cells=100)
