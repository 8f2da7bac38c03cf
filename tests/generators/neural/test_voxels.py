"""Crystals as densities on a grid: what goes in comes out again, and what cannot is said."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matloop.generators.neural.representations.orbits import element_order
from matloop.generators.neural.representations.voxels import (
    crystal_of_peaks,
    density,
    resolves,
    symmetrised,
)
from matloop.structures.symmetry import space_group

from ..conftest import perovskite, rock_salt, rutile

CRYSTALS = {
    "perovskite": (perovskite("Sr", "Ti", "O", 3.9), 221),
    "rutile": (rutile("Ti", "O", 4.59, 2.96, 0.305), 136),
    "rock salt": (rock_salt("Na", "Cl", 5.64).get_primitive_structure(), 225),
}


def written(structure: Structure, points: int = 12) -> tuple[np.ndarray, list[str], list[int]]:
    """Return densities, elements of the channels and their numbers of atoms."""
    symbols = [site.specie.symbol for site in structure]
    order = element_order(symbols)
    channel = np.array([order.index(symbol) for symbol in symbols])
    grid = density(structure.frac_coords, channel, len(order), points)
    return grid, order, [symbols.count(name) for name in order]


@pytest.mark.parametrize("name", CRYSTALS)
def test_peaks_give_the_crystal_back(name: str) -> None:
    """Off the grid points too, atoms return to 0.02 Å, and symmetry makes them exact."""
    crystal, number = CRYSTALS[name]
    moved = crystal.copy()
    moved.translate_sites(range(len(moved)), [0.237, 0.041, 0.613])
    grid, order, counts = written(moved)
    found = crystal_of_peaks(grid, order, counts, np.array(moved.lattice.matrix))
    assert found is not None
    rms, _ = StructureMatcher(scale=False, primitive_cell=False).get_rms_dist(moved, found)
    assert rms * (crystal.volume / len(crystal)) ** (1 / 3) < 0.02
    assert space_group(symmetrised(found), 1e-4).number == number


@pytest.mark.parametrize("name", CRYSTALS)
def test_noise_is_symmetrised_away(name: str) -> None:
    """Under noise of a tenth of a peak, the nearest symmetry is still that of the crystal."""
    crystal, number = CRYSTALS[name]
    grid, order, counts = written(crystal)
    noisy = grid + np.random.default_rng(1).normal(0, 0.05, grid.shape).astype(np.float32)
    found = crystal_of_peaks(noisy, order, counts, np.array(crystal.lattice.matrix))
    assert found is not None
    better = symmetrised(found)
    assert space_group(better, 1e-4).number == number
    assert better.composition.reduced_formula == crystal.composition.reduced_formula


def test_a_free_crystal_stays_as_it_is() -> None:
    """What is far from any symmetry is not pulled onto one."""
    rng = np.random.default_rng(3)
    crystal = Structure(
        Lattice.from_parameters(5.1, 6.3, 7.7, 83, 97, 104), ["Sr", "Ti", "O"], rng.random((3, 3))
    )
    assert space_group(symmetrised(crystal), 1e-3).number == 1


def test_what_the_grid_cannot_tell_apart() -> None:
    """Like atoms within two points run into one peak; unlike ones have channels of their own."""
    near = np.array([[0.0, 0.0, 0.0], [0.1, 0.1, 0.1]])
    assert not resolves(near, np.array([0, 0]), 12)
    assert resolves(near, np.array([0, 1]), 12)
    assert resolves(near * 2, np.array([0, 0]), 12)


def test_atoms_that_are_not_there() -> None:
    """More atoms than peaks, and cells smaller than an atom, give no crystal."""
    crystal, _ = CRYSTALS["perovskite"]
    grid, order, counts = written(crystal)
    matrix = np.array(crystal.lattice.matrix)
    counts[order.index("Ti")] = 2
    assert crystal_of_peaks(grid, order, counts, matrix) is None
    counts[order.index("Ti")] = 1
    assert crystal_of_peaks(grid, order, counts, matrix / 4) is None
