"""Variety of a batch: distinct crystals, histograms and how far they moved."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from matloop.structures.variety import divergence, element_histogram, variety

SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
CSCL = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_a_supercell_is_no_new_crystal() -> None:
    """The same crystal in another cell and at another volume is one, and not novel."""
    twin = SALT.get_primitive_structure()
    twin.scale_lattice(twin.volume * 1.1)
    found = variety([SALT, twin, CSCL, CSCL], known=[("salt", SALT)])
    assert found.uniqueness == 2 / 4
    assert found.novelty == 2 / 4
    assert (found.formula, found.top_formula) == ("CsCl", 0.5)
    assert found.prototype in ("AB in space group 221", "AB in space group 225")


def test_divergence_is_between_equal_and_disjoint() -> None:
    """0 for equal histograms, 1 for disjoint ones, 0.31 when half is replaced; symmetric."""
    one, other = {"Na": 0.5, "Cl": 0.5}, {"Na": 0.5, "Br": 0.5}
    assert divergence(one, one) == 0.0
    assert divergence({"Na": 1.0}, {"Cl": 1.0}) == pytest.approx(1.0)
    assert divergence(one, other) == pytest.approx(divergence(other, one)) == pytest.approx(0.5)
    half = {"Na": 0.5, "K": 0.5}
    assert divergence({"Na": 1.0}, half) == pytest.approx(0.3113, abs=1e-4)
    assert element_histogram([SALT, CSCL]) == pytest.approx({"Na": 0.4, "Cl": 0.5, "Cs": 0.1})
