"""Reference crystals as arrays."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from matloop.errors import ConfigurationError
from matloop.metrics.reference import Reference, load_reference

from .conftest import fcc, ordered, written


def test_crystals_come_back_as_they_were(metals: Reference) -> None:
    """What arrays hold is what the files held."""
    assert len(metals) == 4
    place = metals.ids.index("auricupride")
    crystal = metals.structure(place)
    assert crystal.composition.reduced_formula == metals.formulas[place] == "Cu3Au"
    assert crystal.matches(ordered("Au", "Cu", 3.75), scale=False)
    assert metals.densities[place] == pytest.approx(crystal.density)


def test_only_subsystems_are_chosen(metals: Reference) -> None:
    """Within Au-Cu lie both elements and the alloy, and no silver."""
    chosen = {metals.ids[i] for i in metals.within([frozenset({"Au", "Cu"})])}
    assert chosen == {"copper", "gold", "auricupride"}


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    """A single file is named by its sha256; its arrays are found again and are the same."""
    file = tmp_path / "copper.cif"
    fcc("Cu", 3.61).to(str(file), fmt="cif")
    first = load_reference([file], tmp_path / "cache")
    assert first.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    told: list[bool] = []
    again = load_reference([file], tmp_path / "cache", lambda: told.append(True))
    assert not told
    assert again.ids == first.ids
    assert np.array_equal(again.coords, first.coords)


def test_damaged_arrays_are_made_anew(tmp_path: Path) -> None:
    """A shortcut that was cut short is no obstacle."""
    file = tmp_path / "copper.cif"
    fcc("Cu", 3.61).to(str(file), fmt="cif")
    load_reference([file], tmp_path / "cache")
    (kept,) = (tmp_path / "cache").glob("reference-*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    assert len(load_reference([file], tmp_path / "cache")) == 1


def test_a_reference_without_crystals_is_refused(tmp_path: Path) -> None:
    """One line says why."""
    (tmp_path / "broken.cif").write_text("data_x\n")
    with pytest.raises(ConfigurationError, match="holds no crystal"):
        load_reference([tmp_path / "broken.cif"])
    with pytest.raises(ConfigurationError, match="or the word embedded"):
        load_reference([written(tmp_path / "known", {}) / "missing"])
