"""Which energies may share a hull."""

import json

import pytest
from pymatgen.core.entries import ComputedEntry

from matloop.errors import ConfigurationError, TheoryMismatchError
from matloop.structures.entries import comparable
from matloop.structures.entry_files import read_entries

HEADER = "formula,formation_energy_per_atom\n"
PARAMETERS = {"run_type": "GGA", "hubbards": {}}


def written(path, content):
    """Write text, or entries as JSON, and return the path."""
    text = content if isinstance(content, str) else json.dumps([one.as_dict() for one in content])
    path.write_text(text)
    return path


def test_rows_may_name_their_theory(tmp_path):
    """A theory column is believed: two names in one table are refused."""
    file = written(
        tmp_path / "t.csv",
        "formula,formation_energy_per_atom,theory\nNaCl,-2,PBE\nLiCl,-2,r2SCAN\n",
    )
    with pytest.raises(TheoryMismatchError, match=r"NaCl is PBE, LiCl is r2SCAN"):
        comparable(read_entries(file))


def test_formation_and_total_energies_never_meet(tmp_path):
    """A table of formation energies refuses candidates with total energies."""
    table = read_entries(written(tmp_path / "a.csv", HEADER + "NaCl,-2\n"))
    total = [ComputedEntry("NaCl", -6.8, parameters=PARAMETERS, entry_id="mine")]
    with pytest.raises(TheoryMismatchError, match=r"NaCl is .*, mine \(NaCl\) is vasp GGA"):
        comparable(table, read_entries(written(tmp_path / "b.json", total)))


def test_a_scheme_needs_total_energies(tmp_path):
    """Formation energies cannot be mixed: the line says what would be right."""
    table = read_entries(written(tmp_path / "a.csv", HEADER + "NaCl,-2\n"))
    with pytest.raises(ConfigurationError, match="ComputedEntry JSON"):
        comparable(table, mixing="mp2020")
