"""Reading structure files: every format, and every kind of damage among good files."""

from __future__ import annotations

import gzip
import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase.io import write
from pymatgen.core import DummySpecies, Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.vasp import Poscar

from matloop.errors import ConfigurationError
from matloop.structures.reading import objection, read_structures


def rock_salt(cation: str = "Mg", anion: str = "O", length: float = 4.21) -> Structure:
    """Return rock salt in its conventional cell."""
    faces = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    places = np.concatenate([faces, faces + 0.5])
    return Structure(Lattice.cubic(length), [cation] * 4 + [anion] * 4, places)


def write_cif(path: Path, structure: Structure) -> str:
    """Write a CIF and return its text."""
    structure.to(str(path), fmt="cif")
    return path.read_text()


def test_cif_with_several_blocks(tmp_path: Path) -> None:
    """Each data block with atoms is a crystal of its own name; a broken one is named."""
    one = write_cif(tmp_path / "a.cif", rock_salt()).replace("data_MgO", "data_first")
    two = write_cif(tmp_path / "b.cif", rock_salt("Ca", "O", 4.81)).replace(
        "data_CaO", "data_second"
    )
    broken = "data_broken\nloop_\n_atom_site_label\n_atom_site_fract_x\nMg1 0.0\n"
    file = tmp_path / "all.cif"
    file.write_text(f"data_global\n_journal_year 1963\n{one}\n{broken}\n{two}")
    found = read_structures([file])
    assert [c.known_id for c in found.crystals] == ["all-first", "all-second"]
    assert found.crystals[1].structure.matches(rock_salt("Ca", "O", 4.81), scale=False)
    assert [aside.name for aside in found.set_aside] == [f"{file}:broken"]


def test_poscar_names_and_endings(tmp_path: Path) -> None:
    """POSCAR and CONTCAR are named after their folder, .vasp files after themselves."""
    (tmp_path / "magnesia").mkdir()
    for name in ("magnesia/CONTCAR", "mgo.vasp", "POSCAR_relaxed"):
        Poscar(rock_salt()).write_file(tmp_path / name)
    found = read_structures([tmp_path])
    assert [c.known_id for c in found.crystals] == ["POSCAR_relaxed", "magnesia", "mgo"]
    assert all(c.structure.matches(rock_salt(), scale=False) for c in found.crystals)


def test_extxyz_with_several_frames(tmp_path: Path) -> None:
    """Frames are numbered; one without a lattice is named, and the others are kept."""
    frames = [AseAtomsAdaptor.get_atoms(rock_salt(length=a)) for a in (4.2, 4.3, 4.4)]
    frames[1].pbc = False
    file = tmp_path / "run.extxyz"
    write(file, frames)
    found = read_structures([file])
    assert [c.known_id for c in found.crystals] == ["run-0", "run-2"]
    assert found.crystals[1].structure.volume == pytest.approx(4.4**3)
    assert found.set_aside == (
        (f"{file}:1", "it cannot be read: it is not periodic in three directions"),
    )


def test_a_truncated_extxyz_keeps_what_came_before(tmp_path: Path) -> None:
    """A file cut short in its second frame, as a full disk leaves it, still gives the first."""
    file = tmp_path / "run.xyz"
    write(file, [AseAtomsAdaptor.get_atoms(rock_salt())] * 2, format="extxyz")
    file.write_text("\n".join(file.read_text().splitlines()[:-3]))
    found = read_structures([file])
    assert [c.known_id for c in found.crystals] == ["run-0"]
    assert "damaged from here on" in found.set_aside[0].reason


def test_json_of_every_shape(tmp_path: Path) -> None:
    """A structure, a list, a mapping, computed entries and exported records are all understood."""
    plain = rock_salt().as_dict()
    entry = ComputedStructureEntry(rock_salt("Na", "Cl", 5.64), -3.0, entry_id="mp-22862")
    record = {"candidate_id": "c-17", "formula": "CaO", "structure": rock_salt("Ca").as_dict()}
    contents: dict[str, object] = {
        "one": plain,
        "list": [plain, entry.as_dict(), record, {"formula": "nothing"}],
        "named": {"salt": rock_salt("K", "Cl", 6.29).as_dict()},
        "record": record,
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    found = read_structures([tmp_path / f"{name}.json" for name in contents])
    assert [(c.known_id, c.structure.composition.reduced_formula) for c in found.crystals] == [
        ("one", "MgO"),
        ("list-0", "MgO"),
        ("list-mp-22862", "NaCl"),
        ("list-c-17", "CaO"),
        ("named-salt", "KCl"),
        ("record", "CaO"),
    ]
    assert [Path(aside.name).name for aside in found.set_aside] == ["list.json:3"]


def test_csv_with_a_cif_column(tmp_path: Path) -> None:
    """Rows are named by their id column; one bad row does not stop the table."""
    import pandas as pd

    good = write_cif(tmp_path / "x.cif", rock_salt())
    table = pd.DataFrame({"material_id": ["m-1", "m-2", "m-3"], "cif": [good, "rubbish", good]})
    table.to_csv(tmp_path / "table.csv.gz", index=False)
    found = read_structures([tmp_path / "table.csv.gz"])
    assert [c.known_id for c in found.crystals] == ["table-m-1", "table-m-3"]
    assert found.set_aside[0].name.endswith("table.csv.gz:m-2")


def test_zip_of_cifs(tmp_path: Path) -> None:
    """An archive gives its CIFs in the order of names, and names the broken one."""
    good = write_cif(tmp_path / "x.cif", rock_salt())
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("sub/b.cif", good)
        archive.writestr("a.cif", good)
        archive.writestr("c.cif", "this is no CIF")
        archive.writestr("notes.txt", "hello")
    found = read_structures([tmp_path / "set.zip"])
    assert [c.known_id for c in found.crystals] == ["set-a", "set-sub/b"]
    assert [aside.name for aside in found.set_aside] == [f"{tmp_path / 'set.zip'}:c"]


def test_compressed_cif(tmp_path: Path) -> None:
    """A gzipped file is read like the plain one."""
    text = write_cif(tmp_path / "x.cif", rock_salt())
    (tmp_path / "y.cif.gz").write_bytes(gzip.compress(text.encode()))
    assert [c.known_id for c in read_structures([tmp_path / "y.cif.gz"]).crystals] == ["y"]


def test_bad_files_among_good_ones_are_named(tmp_path: Path) -> None:
    """Unreadable, disordered, empty and NaN files are set aside, each with its reason."""
    rock_salt().to(str(tmp_path / "good.cif"))
    mixed = rock_salt()
    mixed.replace_species({"Mg": {"Mg": 0.5, "Ca": 0.5}})
    mixed.to(str(tmp_path / "disordered.cif"))
    partial = rock_salt()
    partial.replace_species({"O": {"O": 0.9}})
    partial.to(str(tmp_path / "partial.cif"))
    text = (tmp_path / "good.cif").read_text()
    (tmp_path / "binary.cif").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "cut.cif").write_text(text[: len(text) // 3])
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "none.json").write_text("[]")
    poscar = Poscar(rock_salt()).get_str(significant_figures=3)
    (tmp_path / "nan.vasp").write_text(poscar.replace(" 0.500", " nan", 1))
    (tmp_path / "zero.cif").write_text("")
    broken_zip = tmp_path / "broken.zip"
    broken_zip.write_bytes(b"PK\x03\x04 and then nothing")
    found = read_structures([tmp_path])
    assert [c.known_id for c in found.crystals] == ["good"]
    reasons = {Path(aside.name).name: aside.reason for aside in found.set_aside}
    assert set(reasons) == {
        "binary.cif",
        "broken.zip",
        "cut.cif",
        "disordered.cif",
        "empty.json",
        "nan.vasp",
        "none.json",
        "partial.cif",
        "zero.cif",
    }
    assert "disordered" in reasons["disordered.cif"]
    assert "disordered" in reasons["partial.cif"]
    assert "no structure" in reasons["none.json"]
    assert "finite" in reasons["nan.vasp"]
    assert all(len(reason) < 220 for reason in reasons.values())


def far_apart() -> Structure:
    """Return one atom in an empty box."""
    return Structure(Lattice.cubic(30), ["Ar"], [[0, 0, 0]])


@pytest.mark.parametrize(
    ("structure", "part"),
    [
        (Structure(Lattice.cubic(4), [], []), "empty"),
        (Structure(Lattice.cubic(4), ["O"], [[np.nan, 0, 0]]), "finite"),
        (Structure(Lattice([[np.inf, 0, 0], [0, 4, 0], [0, 0, 4]]), ["O"], [[0] * 3]), "finite"),
        (Structure(Lattice([[4, 0, 0], [0, 4, 0], [4, 4, 0]]), ["O"], [[0] * 3]), "volume is 0"),
        (Structure(Lattice.cubic(0.421), ["O"], [[0] * 3]), "per atom"),
        (far_apart(), "per atom"),
        (Structure(Lattice.cubic(4), ["O", "O"], [[0] * 3, [0.001, 0, 0]]), "twice"),
        (Structure(Lattice.orthorhombic(0.2, 9, 9), ["O"], [[0] * 3]), "apart"),
        (Structure(Lattice.cubic(4), [DummySpecies("X")], [[0] * 3]), "no chemical element"),
        (rock_salt() * (6, 6, 5), "1440 sites"),
    ],
)
def test_absurd_crystals_are_refused(structure: Structure, part: str) -> None:
    """What no method could compute is refused with the reason."""
    assert part in (objection(structure) or "")


def test_a_structure_of_500_atoms_is_read(tmp_path: Path) -> None:
    """A large cell is for the chemical space to judge, not for the reader."""
    large = rock_salt() * (4, 4, 4)
    large.remove_sites(range(12))
    large.to(str(tmp_path / "large.cif"))
    (found,) = read_structures([tmp_path]).crystals
    assert len(found.structure) == 500


def test_decorations_are_dropped(tmp_path: Path) -> None:
    """Oxidation states, isotopes and site properties do not make another crystal."""
    decorated = Structure(
        Lattice.cubic(4.2),
        ["Li+", "D-"],
        [[0, 0, 0], [0.5, 0.5, 0.5]],
        site_properties={"magmom": [1.0, 2.0]},
        charge=1,
    )
    (tmp_path / "x.json").write_text(json.dumps(decorated.as_dict()))
    (found,) = read_structures([tmp_path]).crystals
    assert [site.species_string for site in found.structure] == ["Li", "H"]
    assert not found.structure.site_properties
    assert found.structure.charge == 0


def test_missing_paths_are_all_named(tmp_path: Path) -> None:
    """Every path that does not exist is one mistake."""
    with pytest.raises(ConfigurationError) as error:
        read_structures([tmp_path / "a.cif", tmp_path, tmp_path / "b"])
    assert len(error.value.mistakes) == 2


def test_folders_are_walked_in_order_and_files_read_once(tmp_path: Path) -> None:
    """Order is that of paths, a file named twice counts once, equal names are numbered."""
    for folder in ("z", "a"):
        (tmp_path / folder).mkdir()
        rock_salt().to(str(tmp_path / folder / "same.cif"))
    (tmp_path / "a" / "notes.txt").write_text("ignored in a folder")
    (tmp_path / "a" / ".hidden.cif").write_text("ignored")
    found = read_structures([tmp_path / "z" / "same.cif", tmp_path, tmp_path])
    assert [c.known_id for c in found.crystals] == ["same", "same-2"]
    assert [Path(c.source).parent.name for c in found.crystals] == ["z", "a"]
    assert found.set_aside == ()


def test_a_named_file_of_no_format_is_set_aside(tmp_path: Path) -> None:
    """Naming a text file, or a folder without structures, is answered."""
    (tmp_path / "notes.txt").write_text("hello")
    found = read_structures([tmp_path / "notes.txt", tmp_path])
    assert len(found.set_aside) == 2


def test_warnings_are_silenced_only_while_reading(tmp_path: Path) -> None:
    """Parsers' warnings do not reach the user, and the filters are as before."""
    text = write_cif(tmp_path / "x.cif", rock_salt()).replace("0.5 ", "0.4999 ")
    (tmp_path / "x.cif").write_text(text)
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inside = list(warnings.filters)
        read_structures([tmp_path])
        assert list(warnings.filters) == inside
    assert caught == []
    assert list(warnings.filters) == before
