"""BSON values as tuples that compare, sort and hash as MongoDB compares the values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import Binary, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS

Key = tuple[Any, ...]
"""Comparable form of a value; equal for values that MongoDB calls equal (1 and 1.0, not True)."""

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
"""How BSON is read: dates without time zone, those beyond Python's years as milliseconds."""

MISSING = object()
"""What a path leads to where the document has no such field."""

NULL: Key = (1,)
_EMPTY: Key = (0,)  # an empty array sorts before null
_EPOCH = datetime(1970, 1, 1)


def key(value: Any) -> Key:  # noqa: PLR0912
    """Return the comparable form of a value.

    The first member is the place of its type in MongoDB's order of types.
    """
    match value:
        case str():
            return (3, value)
        case bool():
            return (8, value)
        case int() | float():
            return (2, 0, 0) if value != value else (2, 1, value)  # noqa: PLR0124
        case None:
            return NULL
        case ObjectId():
            return (7, value.binary)
        case datetime():
            if value.tzinfo is not None:
                value = value.astimezone(UTC).replace(tzinfo=None)
            return (9, (value - _EPOCH).total_seconds())
        case Mapping():
            members = []
            for name, item in value.items():
                rank, *rest = key(item)
                members.append((rank, name, *rest))
            return (4, tuple(members))
        case bytes():
            subtype = value.subtype if isinstance(value, Binary) else 0
            return (6, len(value), subtype, bytes(value))
        case list() | tuple():
            return (5, tuple(key(item) for item in value))
        case DatetimeMS():
            return (9, int(value) / 1000)
        case Decimal128():
            number = value.to_decimal()
            return (2, 0, 0) if number.is_nan() else (2, 1, number)
        case Timestamp():
            return (10, value.time, value.inc)
        case Regex() | re.Pattern():
            return (11, str(value.pattern), value.flags)
        case MinKey():
            return (-1,)
        case MaxKey():
            return (99,)
    return NULL if value is MISSING else (12, repr(value))


def values_at(document: Any, path: Sequence[str]) -> list[Any]:
    """Return what a dotted path leads to, `MISSING` where it leads nowhere.

    Paths through an array lead to every member, and to one if a part of the path is its number.
    """
    value = document
    for depth, part in enumerate(path):
        if isinstance(value, Mapping):
            value = value.get(part, MISSING)
            if value is MISSING:
                return [MISSING]
        elif isinstance(value, list):
            found = [
                inner
                for item in value
                if isinstance(item, Mapping)
                for inner in values_at(item, path[depth:])
            ]
            if part.isdigit() and int(part) < len(value):
                found += values_at(value[int(part)], path[depth + 1 :])
            return found or [MISSING]
        else:
            return [MISSING]
    return [value]


def sort_key(document: Mapping[str, Any], path: Sequence[str], direction: int) -> Key:
    """Return where a document stands in an order: arrays by their least or greatest member."""
    keys: list[Key] = []
    for value in values_at(document, path):
        if isinstance(value, list):
            keys += [key(item) for item in value] or [_EMPTY]
        else:
            keys.append(key(value))
    return min(keys) if direction > 0 else max(keys)
