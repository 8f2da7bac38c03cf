"""Structure files of every common format: what can be read is read, the rest is named."""

from __future__ import annotations

import gzip
import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pymatgen.core import Element, Structure

from matloop.documents.phase import Known
from matloop.documents.space import ISOTOPES
from matloop.errors import ConfigurationError, Mistake
from matloop.structures import geometry

MIN_DISTANCE = 0.3
"""Sites closer than this (Å) are one site written twice; the shortest bond, in H2, has 0.74."""

MIN_VOLUME, MAX_VOLUME = 1.0, 1000.0
"""Volumes per atom (Å^3) outside which a cell is a mistake of units or an empty box: the densest
crystals at ambient pressure have 5.7 (diamond), the most open zeolites and frameworks about 100."""


class SetAside(NamedTuple):
    """A file, or one record of a file, that was not read.

    Attributes
    ----------
    name
        File, with the record's name behind a colon.
    reason
        Why, in a few words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class ReadResult:
    """What a set of files held.

    Attributes
    ----------
    crystals
        Ordered crystals with finite coordinates, in the order of files and records; ids are unique,
        `Known.source` is the file.
    set_aside
        Everything else, with reasons.
    """

    crystals: tuple[Known, ...]
    set_aside: tuple[SetAside, ...]


# A record: its name within the file (empty if it is the only one), and what parses it.
_Record = tuple[str, Callable[[], Structure]]


def read_structures(paths: Sequence[Path]) -> ReadResult:
    """Read structure files, and folders with all their subfolders.

    Known are CIF, POSCAR (``POSCAR*``, ``CONTCAR*``, ``.vasp``, ``.poscar``), ``.xyz`` and
    ``.extxyz`` with any number of frames, ``.json`` (a structure, a computed entry, a record with a
    ``structure``, lists and named mappings of them), ``.csv`` with a ``cif`` column, and ``.zip``
    archives of CIFs; all but the last also compressed with gzip (``.gz``). Files with other names
    are ignored in folders and set aside when named themselves.

    Parameters
    ----------
    paths
        Files and folders; folders are walked in the order of file names.

    Raises
    ------
    ConfigurationError
        With one mistake per path that does not exist.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise ConfigurationError(
            [
                Mistake("", f"{path} does not exist; give a structure file or folder")
                for path in missing
            ]
        )
    crystals: list[Known] = []
    set_aside: list[SetAside] = []
    taken: set[str] = set()
    for file in _files(paths, set_aside):
        for record, parsed in _parsed(file):
            name = f"{file}:{record}" if record else str(file)
            if isinstance(parsed, str):
                set_aside.append(SetAside(name, parsed))
                continue
            known_id = unique_name(f"{_stem(file)}-{record}" if record else _stem(file), taken)
            crystals.append(Known(known_id=known_id, structure=parsed, source=str(file)))
    return ReadResult(tuple(crystals), tuple(set_aside))


def objection(structure: Structure) -> str | None:
    """Say why a structure is no ordered crystal that can be computed; None if it is one."""
    if len(structure) == 0:
        return "it is empty: it holds no site"
    if not structure.is_ordered:
        return "it is disordered: sites are shared or partly occupied; give an ordered model"
    numbers = np.concatenate([structure.lattice.matrix.ravel(), structure.frac_coords.ravel()])
    if not np.isfinite(numbers).all():
        return "its lattice or coordinates are not finite numbers"
    strangers = sorted(
        {s.species_string for s in structure if not Element.is_valid_symbol(_symbol(s.specie))}
    )
    if strangers:
        return f"it holds {', '.join(strangers)}, which is no chemical element"
    if len(structure) > geometry.MAX_SITES:
        return f"it has {len(structure)} sites; at most {geometry.MAX_SITES} are read"
    volume = structure.volume / len(structure)
    if not MIN_VOLUME <= volume <= MAX_VOLUME:
        return (
            f"its volume is {volume:.3g} Å^3 per atom; "
            f"crystals have {MIN_VOLUME:g} to {MAX_VOLUME:g}"
        )
    problem = geometry.objection(structure)
    if problem is not None:
        return f"it cannot be measured: {problem}"
    shortest = geometry.closest_contact(structure).distance
    if shortest < MIN_DISTANCE:
        return f"two sites are {shortest:.2g} Å apart; one of them is written twice"
    return None


def unique_name(wanted: str, taken: set[str]) -> str:
    """Return a name not yet taken, numbering repetitions from 2, and take it."""
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}-{count}"
    taken.add(name)
    return name


def _files(paths: Sequence[Path], set_aside: list[SetAside]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.is_file() and not file.name.startswith(".") and _reader(file)
            )
            if not inside:
                set_aside.append(SetAside(str(path), "the folder holds no structure file"))
        else:
            inside = [path]
        for file in inside:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _parsed(file: Path) -> Iterator[tuple[str, Structure | str]]:
    """Yield each record of a file as a clean crystal, or as the reason why it is none."""
    reader = _reader(file)
    if reader is None:
        yield "", "its name is that of no structure format read here"
        return
    records = reader(file)
    name = ""
    while True:
        # Libraries warn about rounding and missing symmetry; a reason is given where it matters.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                name, parse = next(records)
            except StopIteration:
                return
            except Exception as error:  # any format library, any damage
                yield "", f"it cannot be read: {_brief(error)}"
                return
            try:
                structure = _clean(parse())
                outcome: Structure | str = objection(structure) or structure
            except Exception as error:
                outcome = f"it cannot be read: {_brief(error)}"
        yield name, outcome


def _clean(structure: Structure) -> Structure:
    """Keep lattice, elements and places; drop oxidation states, isotopes, site properties."""
    if not structure.is_ordered:
        return structure
    bare = structure.copy()
    bare.remove_oxidation_states()
    species = [ISOTOPES.get(_symbol(site.specie), site.specie) for site in bare]
    return Structure(bare.lattice, species, bare.frac_coords)


def _symbol(specie: Any) -> str:
    return str(getattr(specie, "symbol", specie))


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def _stem(file: Path) -> str:
    """Return a file's name without its endings; a POSCAR is named after its folder."""
    name = file.name.removesuffix(".gz")
    if name.upper() in {"POSCAR", "CONTCAR"}:
        return file.resolve().parent.name or name
    return re.sub(r"\.(cif|mcif|vasp|poscar|extxyz|xyz|json|csv|zip)$", "", name, flags=re.I)


def _text(file: Path) -> str:
    content = file.read_bytes()
    if file.suffix.lower() == ".gz":
        content = gzip.decompress(content)
    return content.decode("utf-8", errors="replace")


def _reader(file: Path) -> Callable[[Path], Iterator[_Record]] | None:
    name = file.name.lower().removesuffix(".gz")
    if name.startswith(("poscar", "contcar")) or name.endswith((".vasp", ".poscar")):
        return _poscar
    by_suffix: dict[str, Callable[[Path], Iterator[_Record]]] = {
        ".cif": _cif,
        ".mcif": _cif,
        ".xyz": _xyz,
        ".extxyz": _xyz,
        ".json": _json,
        ".csv": _csv,
        ".zip": _zip,
    }
    return by_suffix.get(Path(name).suffix)


def _poscar(file: Path) -> Iterator[_Record]:
    from pymatgen.io.vasp import Poscar

    text = _text(file)
    yield "", lambda: Poscar.from_str(text).structure


def _cif(file: Path) -> Iterator[_Record]:
    yield from _cif_blocks(_text(file))


def _cif_blocks(text: str) -> Iterator[_Record]:
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


def _xyz(file: Path) -> Iterator[_Record]:
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
            yield f"{count}", _raising(f"damaged from here on: {_brief(error)}")
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


def _json(file: Path) -> Iterator[_Record]:
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


def _csv(file: Path) -> Iterator[_Record]:
    import pandas as pd

    table = pd.read_csv(io.StringIO(_text(file)), keep_default_na=False, dtype=str)
    columns = {str(column).lower(): column for column in table.columns}
    if "cif" not in columns:
        raise ValueError(f"it has no column `cif`; its columns are {', '.join(columns)}")
    label = next(
        (columns[c] for c in ("material_id", "candidate_id", "id", "name") if c in columns), None
    )
    for index, text in enumerate(table[columns["cif"]]):
        name = str(table[label].iloc[index]) if label is not None else ""
        yield name or str(index), lambda text=text: _from_cif(text)  # type: ignore[misc]


def _zip(file: Path) -> Iterator[_Record]:
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
                yield stem, _raising(_brief(error))
                continue
            for block, parse in blocks:
                yield f"{stem}-{block}" if block else stem, parse
