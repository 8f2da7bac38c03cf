"""MongoDB's query language over documents in memory: filters, projections, sorting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from maggma.core import StoreError
from mongomock_ng import OperationFailure
from mongomock_ng.filtering import filter_applies, iter_key_candidates, resolve_sort_key

from matloop.ledger.encoding import Json


def check_criteria(criteria: Mapping[str, Any]) -> None:
    """Refuse operators that the matcher does not know, before any document is read.

    Raises
    ------
    StoreError
        Naming the operator. ``$where`` is refused because it would run code.
    """
    for name, condition in criteria.items():
        if name == "$where":
            raise StoreError("$where is not supported: it would run code")
        if name in ("$and", "$or", "$nor"):
            for part in condition:
                check_criteria(part)
        else:
            matches({name: condition}, {})


def in_utc(criteria: Any) -> Any:
    """Return a filter whose dates are naive and in UTC, as stored dates are."""
    match criteria:
        case datetime() if criteria.tzinfo is not None:
            return criteria.astimezone(UTC).replace(tzinfo=None)
        case Mapping():
            return {name: in_utc(part) for name, part in criteria.items()}
        case list() | tuple():
            return [in_utc(part) for part in criteria]
    return criteria


def matches(criteria: Mapping[str, Any], document: Json) -> bool:
    """Whether a document fulfils a MongoDB filter."""
    try:
        return bool(filter_applies(criteria, document))
    except (OperationFailure, NotImplementedError) as error:
        raise StoreError(f"cannot use this filter: {error}") from error


def values_at(field: str, document: Json) -> list[Any]:
    """Return the values under a dotted path, those inside lists included."""
    return [value for value in iter_key_candidates(field, document) if _is_value(value)]


def project(document: Json, properties: Mapping[str, Any] | Sequence[str] | None) -> Json:
    """Return the named parts of a document, or all but those mapped to 0.

    Raises
    ------
    StoreError
        If fields are both included and excluded, or a projection is no plain choice of fields.
    """
    if not properties:
        return document
    wanted = properties if isinstance(properties, Mapping) else dict.fromkeys(properties, 1)
    wanted = {field: value for field, value in wanted.items() if field != "_id"}
    if not all(value in (0, 1) for value in wanted.values()):
        raise StoreError("a projection maps fields to 1, or all of them to 0")
    if not wanted:
        return document if isinstance(properties, Mapping) and not properties["_id"] else {}
    if len(set(map(bool, wanted.values()))) > 1:
        raise StoreError("a projection cannot include some fields and exclude others")
    tree: Json = {}
    for field in wanted:
        branch = tree
        for part in field.split("."):
            branch = branch.setdefault(part, {})
    keep = bool(next(iter(wanted.values())))
    result: Json = _include(document, tree) if keep else _exclude(document, tree)
    return result


def sort_documents(documents: Iterable[Json], order: Sequence[tuple[str, int]]) -> list[Json]:
    """Return documents sorted by fields, each with 1 (ascending) or -1; ties keep their order."""
    result = list(documents)
    for field, direction in reversed(order):
        result.sort(key=lambda document: resolve_sort_key(field, document), reverse=direction < 0)
    return result


def _is_value(value: object) -> bool:
    return type(value).__name__ != "Sentinel"  # how the matcher marks a missing field


def _include(value: Any, tree: Json) -> Any:
    if not tree:
        return value
    if isinstance(value, list):
        return [_include(item, tree) for item in value if isinstance(item, dict | list)]
    return {
        key: _include(item, tree[key])
        for key, item in value.items()
        if key in tree and (not tree[key] or isinstance(item, dict | list))
    }


def _exclude(value: Any, tree: Json) -> Any:
    if isinstance(value, list):
        return [_exclude(item, tree) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _exclude(item, tree[key]) if key in tree else item
        for key, item in value.items()
        if tree.get(key) != {}
    }
