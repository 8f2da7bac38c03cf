"""Volumes estimated from compositions."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from matloop.generators.volumes import estimated_volume, volume_correction

# Measured cells from textbooks: composition, volume of one formula unit (Å³).
KNOWN = [
    ({"Sr": 1, "Ti": 1, "O": 3}, 3.905**3),
    ({"Na": 1, "Cl": 1}, 5.640**3 / 4),
    ({"Mg": 1, "O": 1}, 4.212**3 / 4),
    ({"Ca": 1, "F": 2}, 5.463**3 / 4),
    ({"Zn": 1, "S": 1}, 5.409**3 / 4),
    ({"Ti": 1, "O": 2}, 4.594**2 * 2.959 / 2),
    ({"Al": 1, "Ni": 1}, 2.887**3),
    ({"Ni": 3, "Al": 1}, 3.572**3),
    ({"Ti": 1, "Ni": 1}, 3.015**3),
    ({"Cu": 3, "Au": 1}, 3.748**3),
]


@pytest.mark.parametrize(("counts", "volume"), KNOWN)
def test_textbook_crystals(counts: dict[str, int], volume: float) -> None:
    """Measured volumes of common salts and alloys are met within 15 %."""
    assert estimated_volume(counts) == pytest.approx(volume, rel=0.15)


def test_unknown_element_has_a_volume() -> None:
    """Elements without an entry fall back on their covalent sphere."""
    assert 10 < estimated_volume({"Am": 1}) < 100


def test_correction_needs_more_than_one_crystal() -> None:
    """One odd crystal changes nothing, many that agree set the correction; elements are ignored."""

    def salt(factor: float) -> Structure:
        length = (factor * 4 * estimated_volume({"Mg": 1, "O": 1})) ** (1 / 3)
        return Structure.from_spacegroup(
            "Fm-3m", Lattice.cubic(length), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        )

    assert volume_correction([salt(1.3)]) == 1.0
    assert volume_correction([salt(1.3)] * 7) == pytest.approx(1.3)
    assert volume_correction([Structure(Lattice.cubic(9.0), ["Mg"], [[0, 0, 0]])] * 9) == 1.0
