"""Phases with energies: inside the space, not withheld, each at its own level of theory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monty.json import MontyEncoder
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from matloop.documents.campaign import References
from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError
from matloop.references.computed import computed

GGA = {"run_type": "GGA", "hubbards": {}, "potcar_spec": None}


def entry(name: str, species: list[str], energy: float, run_type: str) -> ComputedStructureEntry:
    coords = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0, 0.5, 0.5]][: len(species)]
    return ComputedStructureEntry(
        Structure(Lattice.cubic(3.5), species, coords),
        energy * len(species),
        entry_id=name,
        parameters={**GGA, "run_type": run_type},
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    entries = [
        entry("al", ["Al"], -3.7, "GGA"),
        entry("al-scan", ["Al"], -7.9, "r2SCAN"),
        entry("alni", ["Al", "Ni"], -5.0, "GGA"),
        entry("outside", ["Al", "O"], -5.0, "GGA"),
        entry("ternary", ["Al", "Ni", "Ti"], -6.0, "GGA"),
    ]
    path = tmp_path / "entries.json"
    path.write_text(json.dumps(entries, cls=MontyEncoder))
    return path


def test_what_is_inside_is_given_with_its_theory(file: Path) -> None:
    """Entries of other elements stay behind; two levels of theory stay two."""
    space = ChemicalSpace(system="Al-Ni-Ti", max_atoms=4)
    found = computed(References(entries=(str(file),)), space)
    assert [item.entry_id for item in found.entries] == ["al", "al-scan", "alni", "ternary"]
    keys = {item.entry_id: item.theory.key for item in found.entries}
    assert keys["al"] != keys["al-scan"]


def test_what_is_withheld_is_withheld_here_too(file: Path) -> None:
    """A blind test knows neither withheld formulas nor phases of too many elements."""
    space = ChemicalSpace(system="Al-Ni-Ti", max_atoms=4)
    blind = References(entries=(str(file),), max_elements=2, withhold=("NiAl",))
    found = computed(blind, space)
    assert [item.entry_id for item in found.entries] == ["al", "al-scan"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """An entries file that is not there is one clear line."""
    space = ChemicalSpace(system="Al-Ni", max_atoms=4)
    with pytest.raises(ConfigurationError, match=r"nowhere\.json"):
        computed(References(entries=(str(tmp_path / "nowhere.json"),)), space)
