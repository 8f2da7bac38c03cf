"""Small sets of real crystals to learn from."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from matloop.generators.neural.architecture import TrainingCrystal
from matloop.generators.neural.crystals import TrainingData


def rocksalt(cation: str, anion: str, edge: float) -> Structure:
    lattice = Lattice.cubic(edge)
    return Structure.from_spacegroup(225, lattice, [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def perovskite(a: str, b: str, edge: float) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    return Structure.from_spacegroup(221, Lattice.cubic(edge), [a, b, "O"], sites)


def rutile(metal: str, a: float, c: float, x: float) -> Structure:
    lattice = Lattice.tetragonal(a, c)
    return Structure.from_spacegroup(136, lattice, [metal, "O"], [[0, 0, 0], [x, x, 0]])


CRYSTALS = [
    rocksalt("Mg", "O", 4.21),
    rocksalt("Ca", "O", 4.81),
    rocksalt("Sr", "O", 5.16),
    rocksalt("Ba", "O", 5.54),
    rocksalt("Na", "Cl", 5.64),
    rocksalt("K", "Cl", 6.29),
    perovskite("Sr", "Ti", 3.905),
    perovskite("Ba", "Ti", 4.00),
    perovskite("Ca", "Ti", 3.84),
    rutile("Ti", 4.594, 2.959, 0.305),
    rutile("Sn", 4.737, 3.186, 0.307),
    rutile("Mn", 4.398, 2.873, 0.305),
]


@pytest.fixture(scope="session")
def data() -> TrainingData:
    """Return a dozen textbook oxides and halides, four times over, with a made-up property."""
    crystals = tuple(
        TrainingCrystal(one.get_primitive_structure(), {"density": float(one.density)}, str(index))
        for index, one in enumerate(CRYSTALS * 4)
    )
    return TrainingData(crystals, crystals[:12], "textbook", "0" * 64, {})
