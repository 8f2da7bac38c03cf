"""`matloop hull`: its table, its JSON, and what it refuses."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core.entries import ComputedEntry

IRON = """id,formula,formation_energy_per_atom
hematite,Fe2O3,-1.7
wustite,FeO,-1.3
magnetite,Fe3O4,-1.65
"""
DOCS = Path(__file__).parents[2] / "docs"
KEYS = [
    "role", "id", "formula", "energy_per_atom", "formation_energy_per_atom",
    "decomposition_energy", "e_above_hull", "stable", "ground_state", "products",
]  # fmt: skip


def oxides(u: float = 5.3) -> list[ComputedEntry]:
    """Return MP-compatible entries of Fe-O, with one U of iron."""
    symbols = {"Fe": "PBE Fe_pv", "O": "PBE O"}

    def entry(name: str, formula: str, energy: float, hubbard: float) -> ComputedEntry:
        entry = ComputedEntry(formula, energy, entry_id=name)
        entry.parameters = {
            "run_type": "GGA+U" if hubbard else "GGA",
            "hubbards": {"Fe": hubbard} if hubbard else {},
            "potcar_symbols": [symbols[str(element)] for element in entry.composition],
        }
        return entry

    return [
        entry("iron", "Fe", -8.31, 0),
        entry("oxygen", "O2", -9.86, 0),
        entry("hematite", "Fe2O3", -33.5, u),
        entry("wustite", "FeO", -13.1, u),
        entry("magnetite", "Fe3O4", -46.8, u),
    ]


def written(path: Path, entries: list[ComputedEntry]) -> Path:
    """Write entries as JSON."""
    path.write_text(json.dumps([entry.as_dict() for entry in entries]))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a table of formation energies."""
    file = tmp_path / "iron.csv"
    file.write_text(IRON)
    return file


def test_the_table_says_what_decomposes_to_what(matloop, table: Path) -> None:
    """People see both energies in meV/atom, the products, and how many are stable."""
    said = matloop("hull", "--entries", table)
    assert said.code == 0, said.err
    (wustite,) = [line for line in said.out.splitlines() if "wustite" in line]
    assert wustite.split()[:5] == ["wustite", "FeO", "-1.300", "143.7", "143.7"]
    assert "0.12 Fe + 0.88 Fe3O4" in wustite or "0.13 Fe + 0.88 Fe3O4" in wustite
    assert "3 entries, 2 on the hull" in said.out


def test_json_is_flat_and_agrees_with_pymatgen(matloop, table: Path) -> None:
    """Programs get the documented keys in order, and energies as pymatgen has them."""
    said = matloop("hull", "--entries", table, "--json")
    data = json.loads(said.out)
    assert list(data) == ["schema", "theory", "mixing", "left_out", "phases"]
    assert data["mixing"] is None
    assert all(list(phase) == KEYS for phase in data["phases"])
    rows = list(csv.DictReader(IRON.splitlines()))
    entries = [PDEntry("Fe", 0), PDEntry("O2", 0)]
    for row in rows:
        entry = PDEntry(row["formula"], 0)
        energy = float(row["formation_energy_per_atom"]) * entry.composition.num_atoms
        entries.append(PDEntry(row["formula"], energy))
    diagram = PhaseDiagram(entries)
    for phase, entry in zip(data["phases"], entries[2:], strict=True):
        assert phase["e_above_hull"] == pytest.approx(diagram.get_e_above_hull(entry), abs=1e-9)
        assert phase["decomposition_energy"] == pytest.approx(
            diagram.get_phase_separation_energy(entry), abs=1e-6
        )


def test_candidates_are_placed_on_the_hull_of_the_entries(
    matloop, table: Path, tmp_path: Path
) -> None:
    """A candidate below the hull is negative, and does not move the entries."""
    candidates = tmp_path / "new.csv"
    candidates.write_text("formula,formation_energy_per_atom\nFeO,-1.6\nFeO2,-0.1\n")
    before = json.loads(matloop("hull", "-e", table, "--json").out)["phases"]
    data = json.loads(matloop("hull", "-e", table, "-c", candidates, "--json").out)
    assert data["phases"][:3] == before
    below, above = data["phases"][3:]
    assert [phase["role"] for phase in (below, above)] == ["candidate"] * 2
    assert below["e_above_hull"] == pytest.approx(-1.6 + 1.65 * 0.875)
    assert below["ground_state"] == "wustite"
    assert below["stable"]
    assert above["e_above_hull"] > 0.5
    said = matloop("hull", "-e", table, "-c", candidates)
    assert "2 candidates, 1 on or below" in said.out


def test_mixed_theories_are_refused_in_one_line(matloop, tmp_path: Path) -> None:
    """GGA iron beside GGA+U oxides: one line with both, and the scheme that would be right."""
    said = matloop("hull", "-e", written(tmp_path / "fe.json", oxides()))
    assert said.code == 2
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "iron (Fe) is vasp GGA, hematite (Fe2O3) is vasp GGA, U Fe 5.3 eV" in line
    assert "--mixing mp2020" in line


def test_mp2020_gives_the_hull_of_pymatgen(matloop, tmp_path: Path) -> None:
    """Asked for by name, mixing gives pymatgen's own corrected phase diagram, and says so."""
    file = written(tmp_path / "fe.json", oxides())
    data = json.loads(matloop("hull", "-e", file, "--mixing", "mp2020", "--json").out)
    assert data["mixing"] == "mp2020"
    assert "pymatgen" in data["theory"]["dft"]["corrections"]["MaterialsProject2020Compatibility"]
    corrected = MaterialsProject2020Compatibility().process_entries(oxides())
    diagram = PhaseDiagram(corrected)
    assert len(data["phases"]) == len(corrected)
    for phase, entry in zip(data["phases"], corrected, strict=True):
        assert phase["energy_per_atom"] == pytest.approx(entry.energy_per_atom, abs=1e-12)
        assert phase["e_above_hull"] == pytest.approx(diagram.get_e_above_hull(entry), abs=1e-9)
        assert phase["formation_energy_per_atom"] == pytest.approx(
            diagram.get_form_energy_per_atom(entry), abs=1e-9
        )


def test_what_a_scheme_leaves_out_is_named(matloop, tmp_path: Path) -> None:
    """A U that the scheme does not know leaves the entry out with its reason, not in silence."""
    entries = [*oxides(), *[one for one in oxides(4.0) if one.entry_id == "hematite"]]
    file = written(tmp_path / "fe.json", entries)
    said = matloop("hull", "-e", file, "--mixing", "mp2020")
    assert "left out hematite-2 (Fe2O3): Invalid U value of 4.0 on Fe" in said.err
    data = json.loads(matloop("hull", "-e", file, "--mixing", "mp2020", "--json").out)
    assert [one["name"] for one in data["left_out"]] == ["hematite-2 (Fe2O3)"]
    all_wrong = written(tmp_path / "all.json", oxides(4.0)[2:])
    refused = matloop("hull", "-e", all_wrong, "--mixing", "mp2020")
    assert refused.code == 2
    assert "leaves out all entries" in refused.err


def test_a_missing_element_is_one_line(matloop, tmp_path: Path) -> None:
    """Total energies without elemental oxygen: the element and an entry that needs it."""
    entries = [one for one in oxides() if one.entry_id in ("hematite", "wustite")]
    said = matloop("hull", "-e", written(tmp_path / "fe.json", entries))
    assert said.code == 2
    (line,) = said.err.splitlines()
    assert "Fe (needed by hematite), O (needed by hematite)" in line


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("-e", "gone.csv"), "does not exist"),
        (("-e", "iron.csv", "-c", "gone.csv"), "does not exist"),
        (("-e", "iron.csv", "--mixing", "mine"), "there are mp2020, mp-gga-r2scan"),
        (("-e", "iron.csv", "-o", "out.xlsx"), "written as .json or .csv"),
        (("-e", "iron.csv", "-o", "iron.csv/out.csv"), "cannot be written"),
    ],
)
def test_mistakes_exit_with_two(
    matloop, table: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, complaint: str
) -> None:
    """A wrong file, scheme or target is one line and exit code 2, and leaves no output."""
    monkeypatch.chdir(table.parent)
    said = matloop("hull", *arguments)
    assert said.code == 2
    assert complaint in said.err
    assert "Traceback" not in said.err
    assert table.read_text() == IRON


def test_results_are_written_whole(matloop, table: Path, tmp_path: Path) -> None:
    """JSON as printed; CSV with one row per phase that a table reader understands."""
    printed = json.loads(matloop("hull", "-e", table, "--json", "-o", tmp_path / "r.json").out)
    assert json.loads((tmp_path / "r.json").read_text()) == printed
    matloop("hull", "-e", table, "-o", tmp_path / "r.csv")
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert [row["id"] for row in rows] == ["hematite", "wustite", "magnetite"]
    assert float(rows[1]["e_above_hull"]) == printed["phases"][1]["e_above_hull"]
    # what was written is itself a table that can be read
    again = json.loads(matloop("hull", "-e", tmp_path / "r.csv", "--json").out)["phases"]
    assert [p["e_above_hull"] for p in again] == [p["e_above_hull"] for p in printed["phases"]]


def test_ten_thousand_entries_take_seconds(matloop, tmp_path: Path) -> None:
    """A table of 10,000 compounds in many systems is judged in well under 20 s."""
    metals = ["Li", "Na", "K", "Mg", "Ca", "Sr", "Ba", "Ti", "Fe", "Zn"]
    others = ["O", "S", "Se", "F", "Cl"]
    rows = [
        (f"{m}{i}{n}{j}{x}{k}", -0.2 - ((i * 7 + j * 11 + k * 13) % 17) / 10)
        for m in metals
        for n in metals
        if m < n
        for x in others
        for i in range(1, 5)
        for j in range(1, 5)
        for k in range(1, 4)
    ]
    file = tmp_path / "many.csv"
    lines = [f"{formula},{energy}" for formula, energy in rows[:10_000]]
    file.write_text("formula,formation_energy_per_atom\n" + "\n".join(lines) + "\n")
    begun = time.perf_counter()
    data = json.loads(matloop("hull", "-e", file, "--json").out)
    assert time.perf_counter() - begun < 20
    assert len(data["phases"]) == 10_000
    assert all(phase["e_above_hull"] > -1e-9 for phase in data["phases"])


@pytest.mark.parametrize("candidates", [False, True])
def test_the_documentation_shows_real_output(
    matloop, monkeypatch: pytest.MonkeyPatch, candidates: bool
) -> None:
    """The tables on the page are what the commands on the page print."""
    monkeypatch.chdir(DOCS / "examples")
    more = ("--candidates", "iron-oxides-candidates.csv") if candidates else ()
    said = matloop("hull", "--entries", "iron-oxides.csv", *more)
    name = "iron-oxides-candidates.txt" if candidates else "iron-oxides.txt"
    shown = Path(name).read_text(encoding="utf-8")
    assert [line.rstrip() for line in said.out.splitlines()] == shown.splitlines()


def test_the_documentation_shows_the_real_refusal(matloop, tmp_path: Path) -> None:
    """The error on the page is the error of the command; all JSON keys are explained there."""
    page = (DOCS / "levels-of-theory.md").read_text(encoding="utf-8")
    assert matloop("hull", "-e", written(tmp_path / "fe.json", oxides())).err.strip() in page
    assert all(f"`{key}`" in page for key in KEYS)
