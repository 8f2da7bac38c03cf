"""Files of entries: CSV of formation energies, JSON of computed entries, every mistake named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pymatgen.core import Composition, Element

from matloop.documents.theory import LevelOfTheory
from matloop.errors import ConfigurationError, Mistake
from matloop.structures.entries import Entry, EntryTable
from matloop.structures.reading import unique_name
from matloop.structures.theories import theory_of

FORMULA, ENERGY = "formula", "formation_energy_per_atom"
"""Columns a CSV table must have."""

ID_COLUMNS = ("id", "entry_id", "material_id")
"""Columns that name a row; without one, its formula does."""

THEORY_COLUMN = "theory"
"""Column that names each row's level of theory, in the words of the table's owner."""

FORMATS = (".csv", ".csv.gz", ".json", ".json.gz")

_MOST_MISTAKES = 10
_ZERO = 1e-6  # eV/atom, as far as tables are written


def read_entries(path: Path) -> EntryTable:
    """Read a table of entries.

    CSV has the columns ``formula`` and ``formation_energy_per_atom`` (eV/atom), and optionally one
    of ``id``, ``entry_id`` and ``material_id``, and ``theory``. JSON is a list, or a mapping of
    names, of `ComputedEntry` or `ComputedStructureEntry` dictionaries. Both may be compressed with
    gzip.

    Parameters
    ----------
    path
        The file: ``.csv``, ``.csv.gz``, ``.json`` or ``.json.gz``.

    Raises
    ------
    ConfigurationError
        If the file or a row cannot be read, naming file and row; at most ten mistakes.
    """
    name = path.name.lower()
    if not name.endswith(FORMATS):
        raise ConfigurationError(f"{path} is no table of entries; give {', '.join(FORMATS)}")
    text = _text(path)
    formation = ".csv" in name[-7:]
    rows = _csv_rows(text, path) if formation else _json_rows(_json(text, path), path)
    return EntryTable(path, tuple(_collected(rows, path)), formation)


def computed_entries(content: Any, source: Path) -> list[Entry]:
    """Return the entries of a list, or a mapping of names, of computed-entry dictionaries.

    Parameters
    ----------
    content
        What a JSON file holds.
    source
        The file, for errors.

    Raises
    ------
    ConfigurationError
        If an entry cannot be read, or there is none.
    """
    return _collected(_json_rows(content, source), source)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist; give a table of entries") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ConfigurationError([Mistake("", "it is no whole gzip file")], path) from None
    except UnicodeDecodeError:
        raise ConfigurationError([Mistake("", "it is no UTF-8 text")], path) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"{path} cannot be read: {reason}") from None


def _collected(rows: Iterable[Entry | Mistake], path: Path) -> list[Entry]:
    entries: list[Entry] = []
    mistakes: list[Mistake] = []
    taken: set[str] = set()
    for row in rows:
        if isinstance(row, Entry):
            entries.append(replace(row, entry_id=unique_name(row.entry_id, taken)))
            continue
        mistakes.append(row)
        if len(mistakes) == _MOST_MISTAKES:
            break
    if mistakes:
        raise ConfigurationError(mistakes, path)
    if not entries:
        raise ConfigurationError([Mistake("", "it holds no entry")], path)
    return entries


def _csv_rows(text: str, path: Path) -> Iterator[Entry | Mistake]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = reader.fieldnames or []
    lacking = [column for column in (FORMULA, ENERGY) if column not in columns]
    if lacking:
        there = ", ".join(columns) if columns else "none"
        message = f"the column {lacking[0]} is missing; there are: {there}"
        raise ConfigurationError([Mistake("", message, 1)], path)
    identity = next((column for column in ID_COLUMNS if column in columns), FORMULA)
    for row in reader:
        line = reader.line_num
        formula = (row[FORMULA] or "").strip()
        composition = _composition(formula)
        energy = _number(row[ENERGY])
        if isinstance(composition, str):
            yield Mistake(FORMULA, composition, line)
        elif energy is None:
            yield Mistake(ENERGY, f"{row[ENERGY]!r} is no finite number (eV/atom)", line)
        elif len(composition) == 1 and energy < -_ZERO:
            message = f"{formula} has {energy:g} eV/atom, but elements are 0 by definition"
            yield Mistake(ENERGY, message, line)
        else:
            label = (row.get(THEORY_COLUMN) or "").strip()
            yield Entry(
                (row[identity] or "").strip() or formula,
                composition,
                energy,
                _labelled(label),
            )


@cache
def _labelled(label: str) -> LevelOfTheory:
    if not label:
        return _FORMATION
    return LevelOfTheory(kind="stated", code="table", version="", model=label)


_FORMATION = LevelOfTheory(
    kind="stated", code="table", version="", model="formation energies of unstated origin"
)


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message = f"it is no JSON: {error.msg}"
        raise ConfigurationError([Mistake("", message, error.lineno)], path) from None
    except RecursionError:
        raise ConfigurationError([Mistake("", "it is nested too deeply")], path) from None


def _json_rows(content: Any, path: Path) -> Iterator[Entry | Mistake]:
    if isinstance(content, dict) and isinstance(content.get("entries"), list):
        content = content["entries"]
    if isinstance(content, dict) and "energy" in content:
        content = [content]
    if isinstance(content, dict):
        rows = [(f"entry {name}", name, raw) for name, raw in content.items()]
    elif isinstance(content, list):
        rows = [(f"entry {place}", "", raw) for place, raw in enumerate(content, start=1)]
    else:
        raise ConfigurationError([Mistake("", "it holds no list of computed entries")], path)
    theories: dict[str, LevelOfTheory] = {}
    for place, name, raw in rows:
        yield _computed(place, name, raw, theories)


def _computed(
    place: str, name: str, raw: Any, theories: dict[str, LevelOfTheory]
) -> Entry | Mistake:
    if not isinstance(raw, Mapping):
        return Mistake(place, "it is no ComputedEntry dictionary")
    named = raw.get("entry_id")
    if named is not None:
        place = f"{place} ({named})"
    composition = _composition(raw.get("composition") or _crystal_content(raw.get("structure")))
    if isinstance(composition, str):
        return Mistake(place, composition)
    total = _number(raw.get("energy"))
    correction = _correction(raw)
    if total is None:
        return Mistake(place, f"its energy is {raw.get('energy')!r}, no finite number (eV)")
    if correction is None:
        return Mistake(place, "its correction or energy adjustments cannot be read")
    parameters, adjustments = raw.get("parameters") or {}, raw.get("energy_adjustments") or []
    if not isinstance(parameters, Mapping) or not isinstance(raw.get("data") or {}, Mapping):
        return Mistake(place, "its parameters and data must be mappings")
    if not adjustments and abs(correction) > _ZERO:
        adjustments = [{"name": "unnamed correction"}]
    try:
        theory = theory_of(composition, parameters, adjustments)
    except (AttributeError, TypeError, ValueError):
        return Mistake(place, "its parameters cannot be read")
    return Entry(
        str(named if named is not None else name or composition.reduced_formula),
        composition,
        (total + correction) / composition.num_atoms,
        theories.setdefault(theory.key, theory),
        raw,
    )


def _composition(content: Any) -> Composition | str:
    # A composition, or what is wrong with it.
    text = content if isinstance(content, str) else json.dumps(content, default=str)
    if not content:
        return "there is no formula"
    try:
        composition = Composition(content)
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{text} is no formula; write one such as SrTiO3"
    if not all(
        isinstance(e.symbol, str) and Element.is_valid_symbol(e.symbol) for e in composition
    ):
        return f"{text} names what is no chemical element"
    if not math.isfinite(composition.num_atoms) or composition.num_atoms <= 0:
        return f"{text} holds no atoms"
    return composition


def _crystal_content(structure: Any) -> dict[str, float] | None:
    amounts: dict[str, float] = {}
    try:
        for site in structure["sites"]:
            for species in site["species"]:
                amounts[species["element"]] = amounts.get(species["element"], 0) + species["occu"]
    except (KeyError, TypeError, AttributeError):
        return None
    return amounts


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _correction(raw: Mapping[str, Any]) -> float | None:
    # The sum of the adjustments (eV); old files have a bare sum. Read without reviving classes.
    adjustments = raw.get("energy_adjustments") or []
    if not adjustments:
        return _number(raw.get("correction") or 0.0)
    try:
        return _number(sum(_adjustment(adjustment) for adjustment in adjustments))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _adjustment(content: Mapping[str, Any]) -> float:
    # Constant, per atom, and per atom and kelvin: the kinds of pymatgen.
    if "value" in content:
        return float(content["value"])
    if "adj_per_deg" in content:
        return float(content["adj_per_deg"] * content["temp"] * content["n_atoms"])
    return float(content["adj_per_atom"] * content["n_atoms"])
