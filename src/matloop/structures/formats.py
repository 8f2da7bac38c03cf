"""Structure file formats: which records a file holds, and what parses each of them."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from matloop.structures.arrays import crystal_arrays

Record = tuple[str, Callable[[], Structure]]
"""Name of a record within its file, empty if it is the only one, and what parses it."""

Reader = Callable[[Path], Iterator[Record]]


def reader_of(file: Path) -> Reader | None:
    """Return what reads a file by its name; None if that is the name of no format."""
    name = file.name.lower().removesuffix(".gz")
    if name.startswith(("poscar", "contcar")) or name.endswith((".vasp", ".poscar")):
        return _poscar
    by_suffix: dict[str, Reader] = {
        ".cif": _cif,
        ".mcif": _cif,
        ".xyz": _xyz,
        ".extxyz": _xyz,
        ".json": _json,
        ".csv": _csv,
        ".zip": _zip,
        ".npz": crystal_arrays,
    }
    return by_suffix.get(Path(name).suffix)


def brief(error: Exception) -> str:
    """Return what an error says, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def _text(file: Path) -> str:
    content = file.read_bytes()
    if file.suffix.lower() == ".gz":
        content = gzip.decompress(content)
    return content.decode("utf-8", errors="replace")


def _poscar(file: Path) -> Iterator[Record]:
    from pymatgen.io.vasp import Poscar

    text = _text(file)
    yield "", lambda: Poscar.from_str(text).structure


def _cif(file: Path) -> Iterator[Record]:
    yield from _cif_blocks(_text(file))


def _cif_blocks(text: str) -> Iterator[Record]:
    """Split a CIF at its data blocks; those without an atom table (`global`) are passed."""
    blocks = [block for block in re.split(r"(?mi)^(?=data_)", text) if block.startswith("data_")]
    with_atoms = [block for block in blocks if re.search(r"(?mi)^\s*_atom_site_", block)]
    if not with_atoms:
        raise ValueError("it has no block with atoms")
    for block in with_atoms:
        name = block.split(maxsplit=1)[0].removeprefix("data_") if len(with_atoms) > 1 else ""
        yield name, lambda block=block: _from_cif(block)  # type: ignore[misc]


def _from_cif(text: str) -> Structure:
    from pymatgen.io.cif import CifParser

    found = CifParser.from_str(text).parse_structures(primitive=False, check_occu=True)
    return found[0]


def _xyz(file: Path) -> Iterator[Record]:
    from ase.io import iread

    frames = iread(io.StringIO(_text(file)), index=":", format="extxyz")
    count = 0
    while True:
        try:
            atoms = next(frames)
        except StopIteration:
            break
        except Exception as error:
            # What follows a damaged frame cannot be told apart.
            yield f"{count}", _raising(f"damaged from here on: {brief(error)}")
            return
        yield f"{count}", lambda atoms=atoms: _from_atoms(atoms)  # type: ignore[misc]
        count += 1
    if count == 0:
        raise ValueError("it holds no frame")


def _raising(message: str) -> Callable[[], Structure]:
    def parse() -> Structure:
        raise ValueError(message)

    return parse


def _from_atoms(atoms: Any) -> Structure:
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise ValueError("it is not periodic in three directions")
    return Structure(
        atoms.cell.array, atoms.get_chemical_symbols(), atoms.positions, coords_are_cartesian=True
    )


def _json(file: Path) -> Iterator[Record]:
    content = json.loads(_text(file))
    if isinstance(content, Mapping) and not {"structure", "lattice", "sites"} & set(content):
        items = [(str(name), value) for name, value in content.items()]
    elif isinstance(content, list):
        items = [(str(index), value) for index, value in enumerate(content)]
    else:
        items = [("", content)]
    if not items:
        raise ValueError("it holds no structure")
    for name, value in items:
        yield _own_name(value) or name if name else "", lambda value=value: _from_json(value)  # type: ignore[misc]


def _crystal_of(value: Any) -> Mapping[str, Any] | None:
    """Return the structure dictionary in a record: the record itself, or its `structure`."""
    for found in (value, value.get("structure") if isinstance(value, Mapping) else None):
        if isinstance(found, Mapping) and "lattice" in found and "sites" in found:
            return found
    return None


def _own_name(value: Any) -> str:
    if isinstance(value, Mapping):
        for key in ("candidate_id", "known_id", "phase_id", "entry_id", "material_id", "name"):
            if isinstance(value.get(key), str):
                return str(value[key])
    return ""


def _from_json(value: Any) -> Structure:
    crystal = _crystal_of(value)
    if crystal is None:
        raise ValueError("no pymatgen structure, nor a record with a `structure`")
    return Structure.from_dict(dict(crystal))


def _csv(file: Path) -> Iterator[Record]:
    import pandas as pd

    table = pd.read_csv(io.StringIO(_text(file)), keep_default_na=False, dtype=str)
    columns = {str(column).lower(): column for column in table.columns}
    cif = "cif" if "cif" in columns else _column_of_cifs(table, columns)
    label = next(
        (columns[c] for c in ("material_id", "candidate_id", "id", "name") if c in columns), None
    )
    for index, text in enumerate(table[columns[cif]]):
        name = str(table[label].iloc[index]) if label is not None else ""
        yield name or str(index), lambda text=text: _from_cif(text)  # type: ignore[misc]


def _column_of_cifs(table: Any, columns: Mapping[str, str]) -> str:
    found = [
        name
        for name, column in columns.items()
        if len(table) and "_cell_length_a" in str(table[column].iloc[0])
    ]
    if len(found) != 1:
        raise ValueError(f"it has no column `cif`; its columns are {', '.join(columns)}")
    return found[0]


def _zip(file: Path) -> Iterator[Record]:
    with zipfile.ZipFile(file) as archive:
        names = sorted(
            name
            for name in archive.namelist()
            if name.lower().endswith(".cif") and not Path(name).name.startswith(".")
        )
        if not names:
            raise ValueError("the archive holds no CIF")
        for name in names:
            stem = str(Path(name).with_suffix("").as_posix())
            try:
                text = archive.read(name).decode("utf-8", errors="replace")
                blocks = list(_cif_blocks(text))
            except Exception as error:
                yield stem, _raising(brief(error))
                continue
            for block, parse in blocks:
                yield f"{stem}-{block}" if block else stem, parse
