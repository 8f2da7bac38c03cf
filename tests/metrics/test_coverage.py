"""Fingerprints of structure and composition, and coverage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from matloop.errors import ConfigurationError
from matloop.metrics.coverage import CUT_OFFS, cut_offs, near, reference_fingerprints
from matloop.metrics.fingerprints import (
    COMPOSITION_LENGTH,
    STRUCTURE_LENGTH,
    composition_fingerprint,
    structure_fingerprint,
)
from matloop.metrics.reference import Reference

from .conftest import fcc

# Places of the likelihood of six neighbours and of its octahedral order, as in matminer.
SIX, OCTAHEDRAL = 22, 24


def test_rock_salt_is_octahedral() -> None:
    """Every site has six neighbours, and their order parameter is that of an octahedron."""
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    found = structure_fingerprint(salt)
    assert found is not None
    assert found.shape == (STRUCTURE_LENGTH,) == (61,)
    assert found[[SIX, OCTAHEDRAL]] == pytest.approx([1, 1], abs=0.01)
    assert set(np.argsort(found)[-2:]) == {SIX, OCTAHEDRAL}
    bigger = structure_fingerprint(salt * (2, 1, 1))
    assert bigger == pytest.approx(found, abs=1e-6)


def test_magpie_numbers_are_matminers() -> None:
    """Some of 132 numbers by matminer 0.10.1 for SrTiO3, unscaled, and the scaling undone."""
    found = composition_fingerprint(Composition("SrTiO3"))
    assert found is not None
    assert found.shape == (COMPOSITION_LENGTH,)
    # Atomic number: minimum 8, maximum 38, range 30, mean 16.8, mean deviation 10.56, mode 8.
    means = [21.1944418, 58.2021266, 37.0076849, 36.5273852, 13.3506264, 29.4689222]
    widths = [16.3578174, 20.1895401, 20.5162984, 16.8167653, 7.96659133, 22.2707911]
    expected = (np.array([8, 38, 30, 16.8, 10.56, 8]) - means) / widths
    assert found[:6] == pytest.approx(expected, abs=1e-6)


def test_what_magpie_does_not_know() -> None:
    """Helium has no electronegativity: 0 after scaling. Elements beyond the table have nothing."""
    helium = composition_fingerprint(Composition("He"))
    assert helium is not None
    assert np.isfinite(helium).all()
    assert helium[42:48].tolist() == [0.0] * 6
    assert composition_fingerprint(Composition("Og")) is None


def test_coverage_counts_both_ways() -> None:
    """One of two references has a sample nearby, and one of three samples a reference."""
    width = STRUCTURE_LENGTH + COMPOSITION_LENGTH
    known = np.zeros((2, width))
    known[1] += 50.0
    samples = np.zeros((3, width))
    samples[1, 0] = 0.5  # too far in structure
    samples[2, -1] = 11.0  # too far in composition
    recall, precision = near(samples, known, CUT_OFFS["mp-20"])
    assert recall.tolist() == [True, False]
    assert precision.tolist() == [True, False, False]


def test_fingerprints_are_kept(metals: Reference, tmp_path: Path) -> None:
    """A second call reads what the first one wrote."""
    told: list[int] = []
    first = reference_fingerprints(metals, tmp_path, lambda step, done, total: told.append(done))
    assert told == [1, 2, 3, 4]
    again = reference_fingerprints(metals, tmp_path, lambda step, done, total: told.append(done))
    assert len(told) == 4
    assert np.array_equal(first, again)


def test_cut_offs_by_name_or_number() -> None:
    """Published sets by name, own cut-offs as two numbers, anything else is refused."""
    assert cut_offs("MP-20") == CUT_OFFS["mp-20"]
    assert cut_offs("0.3,5").composition == 5.0
    for text in ("mp-21", "0.3", "0,1"):
        with pytest.raises(ConfigurationError, match="coverage"):
            cut_offs(text)


def test_no_fingerprint_of_what_is_no_crystal() -> None:
    """A flat cell has none; a metal has."""
    flat = Structure(Lattice([[3, 0, 0], [0, 3, 0], [3, 3, 0]]), ["Cu"], [[0, 0, 0]])
    assert structure_fingerprint(flat) is None
    assert structure_fingerprint(fcc("Cu", 3.6)) is not None
