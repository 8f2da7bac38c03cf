"""Files of entries: what is read, and one line with file and row for what is not."""

import gzip
import json

import pytest
from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.core.entries import ComputedEntry, ComputedStructureEntry

from matloop.errors import ConfigurationError
from matloop.structures.entry_files import read_entries

HEADER = "formula,formation_energy_per_atom\n"
PARAMETERS = {"run_type": "GGA", "hubbards": {}}


def written(path, content):
    """Write text, or entries as JSON, and return the path."""
    text = content if isinstance(content, str) else json.dumps([one.as_dict() for one in content])
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def test_a_table_of_formation_energies(tmp_path):
    """Formulas name rows without an id; NaN is sodium nitride, not a missing value."""
    file = written(tmp_path / "t.csv.gz", HEADER + "Fe2O3,-1.7\nNaN,0.3\nFe2O3,-1.6\n")
    table = read_entries(file)
    assert table.formation
    assert [entry.entry_id for entry in table.entries] == ["Fe2O3", "NaN", "Fe2O3-2"]
    assert table.entries[1].composition == Composition("Na1N1")
    assert [entry.energy for entry in table.entries] == [-1.7, 0.3, -1.6]


def test_ids_and_other_columns(tmp_path):
    """An id column names the rows, in whatever place; other columns do no harm."""
    file = written(
        tmp_path / "t.csv", "note,formation_energy_per_atom,material_id,formula\nx,-1,mp-7,NaCl\n"
    )
    (entry,) = read_entries(file).entries
    assert (entry.entry_id, entry.energy, entry.name) == ("mp-7", -1, "mp-7 (NaCl)")


def test_computed_entries_keep_their_corrections(tmp_path):
    """Corrections of every kind, and a bare sum of old files, count as pymatgen counts them."""
    corrected = ComputedEntry(
        "Li2O", -14.3, parameters={**PARAMETERS, "potcar_symbols": ["PBE Li_sv", "PBE O"]}
    )
    MaterialsProject2020Compatibility().process_entry(corrected)
    manual = ComputedEntry("Li2O", -14.3, correction=-0.5, parameters=PARAMETERS)
    entries = [corrected, manual, ComputedEntry("Li2O", -14.3, parameters=PARAMETERS)]
    file = written(tmp_path / "t.json", entries)
    table = read_entries(file)
    assert not table.formation
    assert corrected.correction < -0.5
    for ours, theirs in zip(table.entries, entries, strict=True):
        assert ours.energy == pytest.approx(theirs.energy_per_atom, abs=1e-12)
    old = {**entries[2].as_dict(), "correction": -0.7}
    del old["energy_adjustments"]
    (entry,) = read_entries(written(tmp_path / "old.json", json.dumps([old]))).entries
    assert entry.energy == pytest.approx(-15.0 / 3)
    assert entry.theory.dft is not None
    assert entry.theory.dft.corrections == {"unnamed correction": ""}


def test_a_mapping_of_names_and_structures(tmp_path):
    """Entries may stand in a mapping; a crystal gives the composition where none is written."""
    crystal = Structure(Lattice.cubic(3.2), ["Li", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    content = ComputedStructureEntry(crystal, -7.2, parameters=PARAMETERS).as_dict()
    del content["composition"]
    file = written(tmp_path / "t.json.gz", json.dumps({"mine": content}))
    (entry,) = read_entries(file).entries
    assert entry.entry_id == "mine"
    assert entry.composition == crystal.composition
    assert entry.structure() == crystal


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("t.csv", HEADER + "NaCl,-1\nFe2O3,nan\n", "t.csv:3: formation_energy_per_atom: 'nan'"),
        ("t.csv", HEADER + "NaCl,\n", "t.csv:2: formation_energy_per_atom: ''"),
        ("t.csv", HEADER + "NaCl\n", "t.csv:2: formation_energy_per_atom: None"),
        ("t.csv", HEADER + "Na(Cl,-1\n", "t.csv:2: formula: Na(Cl is no formula"),
        ("t.csv", HEADER + "Qq2,-1\n", "t.csv:2: formula: Qq2 names what is no chemical element"),
        ("t.csv", HEADER + ",-1\n", "t.csv:2: formula: there is no formula"),
        ("t.csv", HEADER + "Fe,-0.2\n", "t.csv:2: formation_energy_per_atom: Fe has -0.2"),
        (
            "t.csv",
            "formula,e\nNaCl,-1\n",
            "t.csv:1: the column formation_energy_per_atom is missing",
        ),
        ("t.csv", "", "t.csv:1: the column formula is missing; there are: none"),
        ("t.csv", HEADER, "t.csv: it holds no entry"),
        ("t.json", "[]", "t.json: it holds no entry"),
        ("t.json", "7", "t.json: it holds no list of computed entries"),
        ("t.json", "[\n{,}]", "t.json:2: it is no JSON"),
        ("t.json", '[{"energy": 1}]', "t.json: entry 1: there is no formula"),
        ("t.json", '[{"energy": 1, "structure": {"sites": [{}]}}]', "t.json: entry 1: there is no"),
        ("t.json", "[3]", "t.json: entry 1: it is no ComputedEntry dictionary"),
        (
            "t.json",
            '[{"energy": NaN, "composition": {"Na": 1}, "entry_id": "mp-5"}]',
            "t.json: entry 1 (mp-5): its energy is nan",
        ),
        (
            "t.json",
            '[{"energy": 1, "composition": {"Na": 1}, "energy_adjustments": [{"x": 1}]}]',
            "t.json: entry 1: its correction or energy adjustments cannot be read",
        ),
        (
            "t.json",
            '[{"energy": 1, "composition": {"Na": 1}, "parameters": [1]}]',
            "t.json: entry 1: its parameters and data must be mappings",
        ),
        (
            "t.json",
            '[{"energy": 1, "composition": {"Na": 0}}]',
            't.json: entry 1: {"Na": 0} holds no atoms',
        ),
    ],
)
def test_a_mistake_is_one_line_with_file_and_row(tmp_path, name, content, line):
    """Whatever is wrong, the error is one line that begins with the file, row or entry."""
    file = written(tmp_path / name, content)
    with pytest.raises(ConfigurationError) as refused:
        read_entries(file)
    (said,) = refused.value.lines()
    assert said.removeprefix(f"{tmp_path}/").startswith(line)


def test_files_that_cannot_be_read(tmp_path):
    """A missing file, another format, a cut gzip file and bytes that are no text are named."""
    for name, content, complaint in [
        ("gone.csv", None, "does not exist"),
        ("t.xlsx", b"", "is no table of entries"),
        ("t.csv.gz", gzip.compress(b"formula\n" * 99)[:30], "it is no whole gzip file"),
        ("t.csv", b"formula\xff\xfe\n", "it is no UTF-8 text"),
    ]:
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=complaint):
            read_entries(file)


def test_many_mistakes_end_after_ten(tmp_path):
    """A table wrong in every row does not print every row."""
    file = written(tmp_path / "t.csv", HEADER + "NaCl,x\n" * 500)
    with pytest.raises(ConfigurationError) as refused:
        read_entries(file)
    assert len(refused.value.mistakes) == 10
