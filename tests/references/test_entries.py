"""A user's entries as reference phases: their own theory, their own energies, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Lattice, Structure
from pymatgen.core.entries import ComputedEntry, ComputedStructureEntry

from matloop.documents.reference import ReferenceEntry
from matloop.errors import ConfigurationError, TheoryMismatchError
from matloop.references.entries import entries_from_file, phase_set
from matloop.structures.phase_diagram import Hull


def entry(
    name: str, species: list[str], energy: float, hubbard: float = 0
) -> ComputedStructureEntry:
    """Return an MP-compatible entry of a simple cubic or CsCl-like crystal."""
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]][: len(species)]
    structure = Structure(Lattice.cubic(3.1), species, sites)
    symbols = {"Fe": "PBE Fe_pv", "O": "PBE O"}
    parameters = {
        "run_type": "GGA+U" if hubbard else "GGA",
        "hubbards": {"Fe": hubbard} if hubbard else {},
        "potcar_symbols": [symbols[name] for name in species],
    }
    return ComputedStructureEntry(structure, energy, entry_id=name, parameters=parameters)


def written(path: Path, entries: list[ComputedEntry]) -> Path:
    """Write entries as JSON."""
    path.write_text(json.dumps([one.as_dict() for one in entries]))
    return path


def test_entries_keep_energy_crystal_and_theory(tmp_path: Path) -> None:
    """Each phase has its energy per atom, its crystal and the theory its parameters state."""
    given = [entry("iron", ["Fe"], -8.3), entry("oxide", ["Fe", "O"], -13.0, 5.3)]
    file = written(tmp_path / "mine.json", given)
    found = entries_from_file(file)
    assert found.set_aside == []
    assert [(one.entry_id, one.energy) for one in found.entries] == [
        ("iron", -8.3),
        ("oxide", -6.5),
    ]
    assert found.entries[1].structure == given[1].structure
    assert found.entries[1].source == str(file)
    theory = found.entries[1].theory
    assert theory.dft is not None
    assert theory.dft.u_values == {"Fe": 5.3, "O": 0}
    again = ReferenceEntry.model_validate_json(found.entries[1].model_dump_json())
    assert again == found.entries[1]


def test_what_has_no_crystal_is_set_aside(tmp_path: Path) -> None:
    """An entry without a structure, or with another one's, is named with the reason."""
    wrong = entry("wrong", ["Fe", "O"], -13.0).as_dict()
    wrong["composition"] = {"Fe": 2, "O": 3}
    content = [
        entry("iron", ["Fe"], -8.3).as_dict(),
        ComputedEntry("FeO", -13.0, entry_id="bare").as_dict(),
        wrong,
        {**entry("torn", ["Fe"], -8.3).as_dict(), "structure": {"sites": 1}},
    ]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content))
    found = entries_from_file(file)
    assert [one.entry_id for one in found.entries] == ["iron"]
    assert [aside.name for aside in found.set_aside] == ["bare (FeO)", "wrong (Fe2O3)", "torn (Fe)"]
    assert "no structure" in found.set_aside[0].reason
    assert "its structure is FeO" in found.set_aside[1].reason
    assert "cannot be read" in found.set_aside[2].reason


def test_one_scale_makes_one_hull(tmp_path: Path) -> None:
    """With mp2020 all phases share one theory and span a hull with pymatgen's energies."""
    given = [
        entry("iron", ["Fe"], -8.3),
        entry("oxygen", ["O"], -4.9),
        entry("oxide", ["Fe", "O"], -13.0, 5.3),
        entry("other", ["Fe", "O"], -13.0, 4.0),
    ]
    file = written(tmp_path / "mine.json", given)
    found = entries_from_file(file, mixing="mp2020")
    assert [aside.name for aside in found.set_aside] == ["other (FeO)"]
    corrected = MaterialsProject2020Compatibility().process_entries(given[:3])
    assert [one.energy for one in found.entries] == [one.energy_per_atom for one in corrected]
    hull = Hull(phase_set(found.entries))
    diagram = PhaseDiagram(corrected)
    assert hull.theory == found.entries[0].theory.key
    for one, theirs in zip(found.entries, corrected, strict=True):
        distance = hull.distance(one.structure.composition, one.energy, one.theory.key)
        assert max(distance, 0) == pytest.approx(diagram.get_e_above_hull(theirs), abs=1e-9)


def test_two_levels_of_theory_make_no_hull(tmp_path: Path) -> None:
    """Without mixing, iron at GGA and its oxide at GGA+U are refused with the scheme's name."""
    given = [entry("iron", ["Fe"], -8.3), entry("oxide", ["Fe", "O"], -13.0, 5.3)]
    found = entries_from_file(written(tmp_path / "mine.json", given))
    with pytest.raises(TheoryMismatchError, match="--mixing mp2020"):
        phase_set(found.entries)
    assert len(phase_set(found.entries[:1]).phases) == 1


def test_formation_energies_are_no_reference_phases(tmp_path: Path) -> None:
    """A CSV table has no crystals: one line says what is needed."""
    file = tmp_path / "t.csv"
    file.write_text("formula,formation_energy_per_atom\nFeO,-1.3\n")
    with pytest.raises(ConfigurationError, match="need ComputedStructureEntry JSON"):
        entries_from_file(file)
