"""Plans of queries: which documents an index leaves to be looked at, and what is left to ask."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId, Regex
from mongomock_ng.filtering import filter_applies

from matloop.testing.mongodb.errors import CommandError
from matloop.testing.mongodb.indexing import Ids, Index
from matloop.testing.mongodb.ordering import Key, key, values_at

Json = dict[str, Any]
_CODE = ("$where", "$function", "$accumulator")
_MOST_ENTRIES = 100_000
_EXACT = (str, int, float, ObjectId, datetime)


@dataclass(frozen=True)
class Plan:
    """What to look at.

    Attributes
    ----------
    ids
        Documents among which all matches are; None for all documents.
    equal
        Fields that equal one of some values; the index has not decided it.
    rest
        The part of the filter that is no such condition.
    """

    ids: Collection[Key] | None
    equal: tuple[tuple[tuple[str, ...], frozenset[Key]], ...]
    rest: Json

    def fits(self, fields: Json) -> bool:
        """Whether a document fulfils what the index has not decided."""
        for path, keys in self.equal:
            if not any(
                key(value) in keys
                or (isinstance(value, list) and any(key(item) in keys for item in value))
                for value in values_at(fields, path)
            ):
                return False
        return not self.rest or bool(filter_applies(self.rest, fields))


@dataclass(frozen=True)
class _Condition:
    """A condition of a filter that an index can answer: the field equals one of some values."""

    part: Json
    keys: list[Key]
    is_exact: bool


def plan(criteria: Json, indexes: Collection[Index], present: Collection[Key]) -> Plan:
    """Return the cheapest plan for a filter.

    Parameters
    ----------
    criteria
        A MongoDB filter.
    indexes
        Indexes of the collection, but the one of ``_id``.
    present
        The ``_id`` of every document.
    """
    parts = list(_parts(criteria))
    for part in parts:
        refuse_code(part)
    conditions = _conditions(parts)
    best: Ids | None = None
    used: list[_Condition] = []
    if "_id" in conditions:
        best = {name: None for name in conditions["_id"].keys if name in present}
        used = [conditions["_id"]]
    for index in indexes:
        if not index.holds_all:
            continue
        chosen, entries = _entries(index, conditions)
        if not chosen:
            continue
        found = [ids for entry in entries if (ids := index.find(entry))]
        if best is not None and sum(map(len, found)) >= len(best):
            continue
        best = found[0] if len(found) == 1 else {name: None for ids in found for name in ids}
        used = chosen
    decided = {id(condition.part) for condition in used if condition.is_exact}
    left = [part for part in parts if id(part) not in decided]
    equal = []
    rest = []
    for part in left:
        condition = _condition(part)
        if condition is not None and condition.is_exact:
            equal.append((tuple(next(iter(part)).split(".")), frozenset(condition.keys)))
        else:
            rest.append(part)
    return Plan(best, tuple(equal), {"$and": rest} if len(rest) > 1 else rest[0] if rest else {})


def ordered(
    criteria: Json, sort: Mapping[str, int], indexes: Collection[Index]
) -> Iterator[Key] | None:
    """Return an index's own order, if it has the one that is asked for.

    It holds all matches of the filter and more; None if no index has that order.
    """
    conditions = _conditions(list(_parts(criteria)))
    fields = tuple(sort)
    for index in indexes:
        if not index.holds_all or index.is_multikey:
            continue
        entry: list[Key] = []
        for field in index.fields:
            rest = index.fields[len(entry) :]
            if rest[: len(fields)] == fields:
                return index.in_order(tuple(entry), tuple(sort.values()))
            if field not in conditions or len(conditions[field].keys) != 1:
                break
            entry.append(conditions[field].keys[0])
    return None


def refuse_code(value: Any) -> None:
    """Refuse JavaScript, which mongomock would try to run as Python.

    Raises
    ------
    CommandError
        If there is any at any depth.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in _CODE:
                raise CommandError(238, f"the test server runs no code: {name}")
            refuse_code(inner)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, Mapping | list):
                refuse_code(inner)


def _parts(criteria: Mapping[str, Any]) -> Iterator[Json]:
    for name, condition in criteria.items():
        if name == "$and" and isinstance(condition, list):
            for inner in condition:
                yield from _parts(inner)
        else:
            yield {name: condition}


def _conditions(parts: Sequence[Json]) -> dict[str, _Condition]:
    found: dict[str, _Condition] = {}
    for part in parts:
        condition = _condition(part)
        if condition is not None:
            name = next(iter(part))
            if name not in found or len(condition.keys) < len(found[name].keys):
                found[name] = condition
    return found


def _condition(part: Json) -> _Condition | None:
    ((name, asked),) = part.items()
    if name.startswith("$"):
        return None
    values: list[Any] = [asked]
    is_exact = True
    if isinstance(asked, Mapping) and any(operator.startswith("$") for operator in asked):
        if "$eq" in asked:
            values = [asked["$eq"]]
        elif isinstance(asked.get("$in"), list):
            values = asked["$in"]
        else:
            return None
        is_exact = len(asked) == 1
    if any(isinstance(value, Regex) for value in values):
        return None
    is_exact = is_exact and all(
        isinstance(value, _EXACT) or (value is None and "." not in name) for value in values
    )
    return _Condition(part, list(dict.fromkeys(map(key, values))), is_exact)


def _entries(
    index: Index, conditions: Mapping[str, _Condition]
) -> tuple[list[_Condition], Iterator[tuple[Key, ...]]]:
    chosen: list[_Condition] = []
    count = 1
    for field in index.fields:
        condition = conditions.get(field)
        if condition is None or count * len(condition.keys) > _MOST_ENTRIES:
            break
        count *= len(condition.keys)
        chosen.append(condition)
    return chosen, itertools.product(*(condition.keys for condition in chosen))
