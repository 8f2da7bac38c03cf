"""Structure files of every common format: what can be read is read, the rest is named."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pymatgen.core import Element, Structure

from matloop.documents.phase import Known
from matloop.documents.space import ISOTOPES
from matloop.errors import ConfigurationError, Mistake
from matloop.structures import geometry
from matloop.structures.formats import brief, reader_of

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


class Record(NamedTuple):
    """One record of a structure file, whatever its state.

    Attributes
    ----------
    name
        Unique name, made of the file's and the record's own.
    label
        The record's own name; the file's, without its ending, where it holds only one.
    source
        The file, with the record's name behind a colon.
    structure
        What could be parsed, damaged or not; None where nothing could.
    problem
        Why it is no ordered crystal that can be computed; empty if it is one.
    """

    name: str
    label: str
    source: str
    structure: Structure | None
    problem: str


def read_structures(paths: Sequence[Path]) -> ReadResult:
    """Read structure files, and folders with all their subfolders.

    Known are CIF, POSCAR (``POSCAR*``, ``CONTCAR*``, ``.vasp``, ``.poscar``), ``.xyz`` and
    ``.extxyz`` with any number of frames, ``.json`` (a structure, a computed entry, a record with a
    ``structure``, lists and named mappings of them), ``.csv`` with a column of CIFs (``cif``, or
    the only one that holds any), ``.zip`` archives of CIFs, and ``.npz`` with the arrays of CDVAE
    and its kin; all but the last two also compressed with gzip (``.gz``). Files with other names
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
    crystals: list[Known] = []
    set_aside: list[SetAside] = []
    taken: set[str] = set()
    for file, found in _found(paths, set_aside):
        for record, structure, problem in found:
            if structure is None or problem:
                set_aside.append(SetAside(_source(file, record), problem))
                continue
            known_id = unique_name(f"{_stem(file)}-{record}" if record else _stem(file), taken)
            crystals.append(Known(known_id=known_id, structure=structure, source=str(file)))
    return ReadResult(tuple(crystals), tuple(set_aside))


def read_records(paths: Sequence[Path]) -> list[Record]:
    """Read everything that structure files hold, what is damaged too, in order.

    Where samples are counted, one that cannot be read counts as much as any other. A file that
    cannot be read at all, or a frame from which on a file is damaged, counts as one.

    Parameters
    ----------
    paths
        Files and folders, as for `read_structures`.

    Raises
    ------
    ConfigurationError
        If a path does not exist, or a folder holds no structure file.
    """
    set_aside: list[SetAside] = []
    taken: set[str] = set()
    records = [
        Record(
            name=unique_name(f"{_stem(file)}-{record}" if record else _stem(file), taken),
            label=record or _stem(file),
            source=_source(file, record),
            structure=structure,
            problem=problem,
        )
        for file, found in _found(paths, set_aside)
        for record, structure, problem in found
    ]
    if set_aside:
        raise ConfigurationError([Mistake("", f"{name}: {reason}") for name, reason in set_aside])
    return records


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


def _found(
    paths: Sequence[Path], set_aside: list[SetAside]
) -> Iterator[tuple[Path, Iterator[tuple[str, Structure | None, str]]]]:
    """Yield each file with its records; folders without any are set aside."""
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise ConfigurationError(
            [
                Mistake("", f"{path} does not exist; give a structure file or folder")
                for path in missing
            ]
        )
    for file in _files(paths, set_aside):
        yield file, _parsed(file)


def _source(file: Path, record: str) -> str:
    return f"{file}:{record}" if record else str(file)


def _files(paths: Sequence[Path], set_aside: list[SetAside]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.is_file() and not file.name.startswith(".") and reader_of(file)
            )
            if not inside:
                set_aside.append(SetAside(str(path), "the folder holds no structure file"))
        else:
            inside = [path]
        for file in inside:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _parsed(file: Path) -> Iterator[tuple[str, Structure | None, str]]:
    """Yield the name of each record, its structure if it has one, and what is wrong with it."""
    reader = reader_of(file)
    if reader is None:
        yield "", None, "its name is that of no structure format read here"
        return
    records = reader(file)
    while True:
        structure: Structure | None = None
        # Libraries warn about rounding and missing symmetry; a reason is given where it matters.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                name, parse = next(records)
            except StopIteration:
                return
            except Exception as error:  # any format library, any damage
                yield "", None, f"it cannot be read: {brief(error)}"
                return
            try:
                structure = _clean(parse())
                problem = objection(structure) or ""
            except Exception as error:
                problem = f"it cannot be read: {brief(error)}"
        yield name, structure, problem


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


def _stem(file: Path) -> str:
    """Return a file's name without its endings; a POSCAR is named after its folder."""
    name = file.name.removesuffix(".gz")
    if name.upper() in {"POSCAR", "CONTCAR"}:
        return file.resolve().parent.name or name
    return re.sub(r"\.(cif|mcif|vasp|poscar|extxyz|xyz|json|csv|zip|npz)$", "", name, flags=re.I)
