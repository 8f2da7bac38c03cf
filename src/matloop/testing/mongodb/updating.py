"""New documents from old ones: update operators, replacements and upserts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mongomock_ng
from bson import ObjectId
from mongomock_ng.aggregate import process_pipeline

from matloop.testing.mongodb.errors import CommandError

Json = dict[str, Any]

# mongomock's operators work on one document at a time; its own collection stays empty
_operators: Any = mongomock_ng.MongoClient()["none"]["none"]


def updated(document: Json, criteria: Json, update: Any, filters: Any, inserting: bool) -> Json:
    """Return a document after an update.

    Parameters
    ----------
    document
        The document, of which the caller keeps no use.
    criteria
        The filter it was found by, for positional operators.
    update
        Operators, a replacement, or a pipeline.
    filters
        ``arrayFilters`` of the update.
    inserting
        Whether the document is new (``$setOnInsert``).

    Raises
    ------
    CommandError
        If the update would change ``_id``.
    """
    before = document.get("_id")
    after: Json
    if isinstance(update, list):
        (after,) = process_pipeline([document], None, update, None)
    elif is_replacement(update):
        after = {"_id": before} if "_id" in document else {}
        after.update(update)
    elif _only_sets(update):
        after = document
        for operator, fields in update.items():
            if operator == "$set" or inserting:
                after.update(fields)
    else:
        _operators._current_array_filters = filters or []
        _operators._apply_update_document(document, criteria, update, inserting)
        after = document
    if before is not None and after.get("_id") != before:
        raise CommandError(
            66,
            "Performing an update on the path '_id' would modify the immutable field '_id'",
        )
    return after


def is_replacement(update: Any) -> bool:
    """Whether an update replaces the whole document."""
    return isinstance(update, Mapping) and not any(str(name).startswith("$") for name in update)


def upserted(criteria: Json, update: Any, filters: Any) -> Json:
    """Return the document that an upsert inserts: what the filter demands, then the update."""
    base: Json = {}
    if is_replacement(update):
        base = {"_id": criteria["_id"]} if _is_value(criteria.get("_id")) else {}
        if base and update.get("_id", base["_id"]) != base["_id"]:
            raise CommandError(66, "the _id of the replacement differs from the one asked for")
    else:
        _demand(base, criteria)
    document = updated(base, criteria, update, filters, inserting=True)
    name = document.pop("_id", None)
    return {"_id": ObjectId() if name is None else name, **document}


def project(document: Json, projection: Json, criteria: Json) -> Json:
    """Return the asked fields of a document, as a copy."""
    kept: Json = _operators._copy_only_fields(document, dict(projection), dict, filter=criteria)
    return kept


def _only_sets(update: Mapping[str, Any]) -> bool:
    return update.keys() <= {"$set", "$setOnInsert"} and not any(
        "." in name or name.startswith("$") for fields in update.values() for name in fields
    )


def _demand(base: Json, criteria: Mapping[str, Any]) -> None:
    for name, condition in criteria.items():
        if name == "$and":
            for part in condition:
                _demand(base, part)
        elif not name.startswith("$"):
            if isinstance(condition, Mapping) and "$eq" in condition:
                _put(base, name, condition["$eq"])
            elif _is_value(condition):
                _put(base, name, condition)


def _is_value(condition: Any) -> bool:
    if isinstance(condition, Mapping):
        return not any(str(name).startswith("$") for name in condition)
    return condition is not None


def _put(base: Json, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        base = base.setdefault(parent, {})
    base[last] = value
