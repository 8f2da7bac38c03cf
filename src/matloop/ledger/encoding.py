"""Documents as JSON text, exactly: every float comes back with the bits it had."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from maggma.core import StoreError
from monty.json import jsanitize

Json = dict[str, Any]
"""A document: string keys, any JSON value, and the few types of `encode`."""

_MARKS = ("$date", "$numberDouble", "$oid", "$binary")


def encode(document: Mapping[str, Any]) -> str:
    """Return a document as JSON text that any JSON parser reads.

    What JSON lacks is written in the manner of MongoDB's Extended JSON: dates, ``NaN`` and
    infinities, object ids, bytes. As in MongoDB a date is an instant: one with a time zone is
    converted to UTC, and comes back naive. Unlike there, microseconds are kept. Objects with an
    ``as_dict``, numpy values and enumerations are stored as their JSON form.

    Raises
    ------
    StoreError
        If the document holds an object without JSON form, or uses a mark such as ``$date`` as a
        key of its own.
    """
    marks: Counter[str] = Counter()

    def mark(kind: str, value: str) -> dict[str, str]:
        marks[kind] += 1
        return {kind: value}

    def default(value: object) -> object:
        match value:
            case datetime():
                return mark("$date", date_text(value))
            case ObjectId():
                return mark("$oid", str(value))
            case bytes():
                return mark("$binary", base64.b64encode(value).decode())
        return finite(_json_form(value))

    def finite(value: Any) -> Any:
        match value:
            case float() if not math.isfinite(value):
                return mark("$numberDouble", repr(float(value)))
            case dict():
                return {key: finite(item) for key, item in value.items()}
            case list() | tuple():
                return [finite(item) for item in value]
        return value

    try:
        text = json.dumps(document, default=default, allow_nan=False, separators=(",", ":"))
    except ValueError:  # a float that JSON lacks
        marks.clear()
        text = json.dumps(finite(document), default=default, allow_nan=False, separators=(",", ":"))
    except TypeError:  # a key that JSON lacks
        marks.clear()
        text = json.dumps(finite(_json_form(document)), default=default, separators=(",", ":"))
    if '"$' in text:
        for kind in _MARKS:
            if text.count(f'"{kind}":') != marks[kind]:
                raise StoreError(f"a document may not use {kind!r} as a key")
    return text


def decode(text: str) -> Json:
    """Return the document that `encode` wrote."""
    marks = text.count('"$')
    document: Json = json.loads(text, object_hook=_restore if marks > 1 else None)
    if marks != 1:
        return document
    for name, value in document.items():  # nearly always the one date of the document itself
        if isinstance(value, dict) and (restored := _restore(value)) is not value:
            document[name] = restored
            return document
    restored_all: Json = json.loads(text, object_hook=_restore)
    return restored_all


def checksum(text: str) -> int:
    """Return the CRC-32 of a document's text: every burst of up to 32 wrong bits changes it."""
    return zlib.crc32(text.encode())


def date_text(date: datetime) -> str:
    """Return a date as text of fixed width, which sorts as time does."""
    if date.tzinfo is not None:
        date = date.astimezone(UTC).replace(tzinfo=None)
    return date.isoformat(timespec="microseconds")


def _json_form(value: object) -> object:
    try:
        return jsanitize(value, strict=True, allow_bson=True, recursive_msonable=True)
    except AttributeError:
        raise StoreError(f"cannot store a {type(value).__name__}: {value!r:.80}") from None


def _restore(value: Json) -> Any:
    if len(value) != 1:
        return value
    ((kind, content),) = value.items()
    match kind:
        case "$date":
            return datetime.fromisoformat(content)
        case "$numberDouble":
            return float(content)
        case "$oid":
            return ObjectId(content)
        case "$binary":
            return base64.b64decode(content)
    return value
