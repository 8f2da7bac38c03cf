"""Training data: crystals from files, reduced, split, with what was left out and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matloop.documents.candidate import structure_digest
from matloop.errors import ConfigurationError
from matloop.generators.cells import plain_cell
from matloop.generators.neural.architecture import TrainingCrystal
from matloop.structures.reading import read_structures

VALIDATION_SHARE = 0.05
"""Share of the crystals that validate, where the data has no split of its own."""

_NOT_PROPERTIES = {"n_sites", "index", "unnamed: 0"}


@dataclass(frozen=True)
class TrainingData:
    """What a model learns from.

    Attributes
    ----------
    train, validation
        The crystals.
    source
        Names of the files.
    sha256
        Hash of the files' bytes.
    left_out
        How many crystals were not used, by reason.
    """

    train: tuple[TrainingCrystal, ...]
    validation: tuple[TrainingCrystal, ...]
    source: str
    sha256: str
    left_out: dict[str, int]


def read_training_data(
    paths: Sequence[Path], max_atoms: int = 20, properties: Sequence[str] = ()
) -> TrainingData:
    """Return crystals to learn from.

    A CSV table with a ``cif`` column may have a column ``split`` (``train``, ``val``, ``test``; the
    last is never read) and columns of properties. Elsewhere a twentieth of the crystals validate,
    chosen by the hash of their formula, so that no formula is on both sides.

    Parameters
    ----------
    paths
        Structure files and folders, as for `read_structures`.
    max_atoms
        Most atoms in a primitive cell; larger crystals are left out.
    properties
        Columns to keep as properties.

    Raises
    ------
    ConfigurationError
        If a file is missing, a property is not there, or nothing is left.
    """
    found = read_structures(paths)
    table = _table(paths, properties)
    left_out: Counter[str] = Counter({"not readable": len(found.set_aside)})
    train: list[TrainingCrystal] = []
    validation: list[TrainingCrystal] = []
    seen: set[str] = set()
    declared = False
    for known in found.crystals:
        row = table.get(known.known_id, {})
        split = str(row.get("split", "")).lower()
        if split.startswith("test"):
            left_out["of the test split"] += 1
            continue
        cell = plain_cell(known.structure)
        if cell is None:
            left_out["not reducible"] += 1
            continue
        if len(cell) > max_atoms:
            left_out[f"more than {max_atoms} atoms"] += 1
            continue
        digest = structure_digest(cell)
        if digest in seen:
            left_out["repeated"] += 1
            continue
        seen.add(digest)
        crystal = TrainingCrystal(cell, _numbers(row, properties), known.known_id)
        declared |= bool(split)
        validates = split.startswith("val") if split else _validates(cell.reduced_formula)
        (validation if validates else train).append(crystal)
    if not declared:
        train, validation = _without_strangers(train, validation)
    if not train:
        raise ConfigurationError(
            f"{', '.join(map(str, paths))}: no crystal to learn from is left; "
            + ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        )
    if not validation and len(train) > 1:
        train, validation = train[:-1], train[-1:]
    return TrainingData(
        tuple(train),
        tuple(validation),
        ", ".join(path.name for path in paths),
        _digest(paths),
        {reason: count for reason, count in left_out.items() if count},
    )


def _without_strangers(
    train: list[TrainingCrystal], validation: list[TrainingCrystal]
) -> tuple[list[TrainingCrystal], list[TrainingCrystal]]:
    """Move crystals with elements that nobody could learn of from the validation to the others."""
    learned = {symbol for one in train for symbol in one.structure.symbol_set}
    strangers = [one for one in validation if not set(one.structure.symbol_set) <= learned]
    kept = [one for one in validation if set(one.structure.symbol_set) <= learned]
    return [*train, *strangers], kept


def _validates(formula: str) -> bool:
    fraction = int(hashlib.sha256(formula.encode()).hexdigest()[:8], 16) / 16**8
    return fraction < VALIDATION_SHARE


def _table(paths: Sequence[Path], properties: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the columns of CSV files beside ``cif``, by the name `read_structures` gives a row."""
    import pandas as pd

    rows: dict[str, dict[str, Any]] = {}
    known: set[str] = set()
    for path in paths:
        if not path.name.lower().removesuffix(".gz").endswith(".csv"):
            continue
        table = pd.read_csv(path, dtype={"material_id": str}, low_memory=False)
        columns = {str(name).lower(): name for name in table.columns}
        known |= set(map(str, table.columns))
        label = next(
            (columns[c] for c in ("material_id", "candidate_id", "id", "name") if c in columns),
            None,
        )
        stem = path.name.removesuffix(".gz").removesuffix(".csv")
        kept = [name for name in table.columns if str(name).lower() != "cif"]
        for index, values in enumerate(table[kept].itertuples(index=False, name=None)):
            record = dict(zip(map(str, kept), values, strict=True))
            name = str(record[label]) if label is not None else str(index)
            rows.setdefault(f"{stem}-{name}", record)
    missing = [name for name in properties if name not in known]
    if missing:
        there = ", ".join(sorted(name for name in known if name.lower() not in _NOT_PROPERTIES))
        raise ConfigurationError(
            f"the data has no property {missing[0]!r}; its columns are: {there or 'none'}"
        )
    return rows


def _numbers(row: dict[str, Any], properties: Sequence[str]) -> dict[str, float]:
    found = {}
    for name in properties:
        try:
            value = float(row.get(name, np.nan))
        except (TypeError, ValueError):
            continue
        if np.isfinite(value):
            found[name] = value
    return found


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                digest.update(file.read_bytes())
    return digest.hexdigest()
