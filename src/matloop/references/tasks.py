"""Task documents of atomate2 (emmet's `TaskDoc`) as reference phases.

The documents are read as they lie in the database and never changed.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pymatgen.core import Composition

from matloop.errors import ConfigurationError, Mistake
from matloop.references.entries import Imported, reference_entries
from matloop.structures.entries import Entry
from matloop.structures.reading import SetAside, unique_name
from matloop.structures.theories import theory_of

TASK_TYPES = ("Static", "Structure Optimization")
"""Task types whose energies are those of a crystal; band structures and dielectric runs are not."""

_TIMEOUT_MS = 10_000
_FIELDS = (
    "task_id",
    "state",
    "task_type",
    "entry",
    "structure",
    "vasp_version",
    "calcs_reversed.vasp_version",
    "calcs_reversed.input.incar",
)


class Store(Protocol):
    """What is used of a maggma `Store`."""

    def query(self, criteria: Any = None, properties: Any = None) -> Iterable[dict[str, Any]]:
        """Return documents."""
        ...


def tasks_from_mongodb(
    database: str,
    collection: str,
    *,
    uri_variable: str = "MATLOOP_MONGODB_URI",
    criteria: Mapping[str, Any] | None = None,
    task_types: Sequence[str] = TASK_TYPES,
    mixing: str | None = None,
) -> Imported:
    """Return the phases of a MongoDB collection of task documents.

    The collection may hold task documents themselves, or the outputs of a jobflow `JobStore`.

    Parameters
    ----------
    database, collection
        Where they are.
    uri_variable
        Name of the environment variable that holds the server's URI; the URI itself, with its
        password, is never stored or shown.
    criteria
        MongoDB query that chooses documents.
    task_types
        Task types to take.
    mixing
        Name of the scheme that puts all energies on one scale, or None.

    Raises
    ------
    ConfigurationError
        If the variable is not set, the server cannot be read, or there is no document.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", uri_variable):
        raise ConfigurationError(
            "uri_variable must be the name of an environment variable, not the URI itself"
        )
    address = os.environ.get(uri_variable)
    if not address:
        raise ConfigurationError(
            f"the environment variable {uri_variable} is not set; it must hold the URI of the "
            "MongoDB server"
        )
    from maggma.stores import MongoStore
    from pymongo.errors import PyMongoError

    try:
        store = MongoStore(
            database=database,
            collection_name=collection,
            uri=address,
            mongoclient_kwargs={"serverSelectionTimeoutMS": _TIMEOUT_MS},
        )
        store.connect()
        try:
            return tasks_from_store(
                store,
                source=f"{database}.{collection}",
                criteria=criteria,
                task_types=task_types,
                mixing=mixing,
            )
        finally:
            store.close()
    except (PyMongoError, ValueError) as error:  # their text may hold the address
        raise ConfigurationError(
            f"cannot read {database}.{collection} on the MongoDB server named by {uri_variable}: "
            f"{type(error).__name__}"
        ) from None


def tasks_from_store(
    store: Store,
    *,
    source: str,
    criteria: Mapping[str, Any] | None = None,
    task_types: Sequence[str] = TASK_TYPES,
    mixing: str | None = None,
) -> Imported:
    """Return the phases of a connected maggma store of task documents.

    Parameters
    ----------
    store
        The store, or a jobflow `JobStore`'s ``docs_store``.
    source
        What to call it.
    criteria, task_types, mixing
        As for `tasks_from_mongodb`.

    Raises
    ------
    ConfigurationError
        If there is no document.
    """
    wanted = ["uuid", "index", *_FIELDS, *(f"output.{field}" for field in _FIELDS)]
    documents = list(store.query(dict(criteria or {}), properties=wanted))
    return task_entries(documents, source=source, task_types=task_types, mixing=mixing)


def tasks_from_file(
    path: Path, *, task_types: Sequence[str] = TASK_TYPES, mixing: str | None = None
) -> Imported:
    """Return the phases of a JSON file (``.json``, ``.json.gz``) of task documents.

    Raises
    ------
    ConfigurationError
        If the file cannot be read or holds no task document.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        documents = json.loads(content)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"{path} cannot be read: {reason}") from None
    except (EOFError, zlib.error, ValueError):
        raise ConfigurationError([Mistake("", "it is no JSON")], path) from None
    if isinstance(documents, Mapping):
        documents = [documents]
    return task_entries(documents, source=str(path), task_types=task_types, mixing=mixing)


def task_entries(
    documents: Iterable[Any],
    *,
    source: str,
    task_types: Sequence[str] = TASK_TYPES,
    mixing: str | None = None,
) -> Imported:
    """Return the phases of task documents, ordered by id.

    Of the outputs of one job, only the last (highest ``index``) counts.

    Parameters
    ----------
    documents
        Task documents as JSON has them, or job outputs that hold one.
    source
        What to call the collection.
    task_types, mixing
        As for `tasks_from_mongodb`.

    Raises
    ------
    ConfigurationError
        If there is no document.
    """
    tasks = _last_outputs(documents)
    if not tasks:
        raise ConfigurationError(f"{source} holds no task document")
    entries: list[Entry] = []
    set_aside: list[SetAside] = []
    taken: set[str] = set()
    for name, task in tasks:
        found = _entry(unique_name(name, taken), task, task_types)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            set_aside.append(SetAside(f"{source}: {name}", found))
    imported = reference_entries(entries, source=source, mixing=mixing)
    return Imported(imported.entries, set_aside + imported.set_aside)


def _last_outputs(documents: Iterable[Any]) -> list[tuple[str, Mapping[str, Any]]]:
    best: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for place, document in enumerate(documents, start=1):
        if not isinstance(document, Mapping):
            continue
        output = document.get("output")
        task, wrapped = document, False
        if "uuid" in document and isinstance(output, Mapping) and "entry" in output:
            task, wrapped = output, True
        name = str(task.get("task_id") or document.get("uuid") or f"task-{place}")
        index = int(document.get("index") or 1)
        if wrapped and name in best and best[name][0] >= index:
            continue
        if not wrapped and name in best:
            name = f"{name}-{place}"
        best[name] = index, task
    return [(name, best[name][1]) for name in sorted(best)]


def _entry(name: str, task: Mapping[str, Any], task_types: Sequence[str]) -> Entry | str:
    # The entry of a task, or why it has none.
    if task.get("state") not in ("successful", None):
        return f"its state is {task['state']}"
    if task.get("task_type") is not None and task["task_type"] not in task_types:
        return f"it is a {task['task_type']}, none of {', '.join(task_types)}"
    entry, structure = task.get("entry"), task.get("structure")
    if not isinstance(entry, Mapping) or not isinstance(structure, Mapping):
        return "it has no entry, or no structure"
    last = (task.get("calcs_reversed") or [{}])[0]
    try:
        composition = Composition(entry["composition"])
        energy = float(entry["energy"])
        theory = theory_of(
            composition,
            entry.get("parameters") or {},
            entry.get("energy_adjustments") or [],
            version=str(last.get("vasp_version") or task.get("vasp_version") or ""),
            incar=(last.get("input") or {}).get("incar"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"its entry cannot be read ({type(error).__name__})"
    if not math.isfinite(energy):
        return "its energy is no finite number"
    corrected = energy + float(entry.get("correction") or 0.0)
    return Entry(
        name,
        composition,
        corrected / composition.num_atoms,
        theory,
        {**entry, "structure": structure},
    )
