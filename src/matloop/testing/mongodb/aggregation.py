"""Aggregation: what indexes can answer is answered here, the rest by mongomock's stages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bson
from mongomock_ng.aggregate import process_pipeline

from matloop.testing.mongodb.collection import Collection
from matloop.testing.mongodb.databases import Databases
from matloop.testing.mongodb.errors import CommandError
from matloop.testing.mongodb.ordering import CODEC
from matloop.testing.mongodb.planning import refuse_code

Json = dict[str, Any]


def aggregate(
    databases: Databases, database: str, namespace: str, pipeline: list[Json]
) -> list[Any]:
    """Return the documents that a pipeline makes of a collection.

    Leading ``$match``, ``$sort``, ``$skip`` and ``$limit`` use the indexes, and so do the
    collections that ``$lookup`` reads. ``$out`` and ``$merge`` are refused.
    """
    refuse_code(pipeline)
    for stage in pipeline:
        if "$out" in stage or "$merge" in stage:
            raise CommandError(238, "the test server knows no $out and no $merge")
    collection = databases.collection(namespace)
    criteria: Json = {}
    sort: Json = {}
    skip = limit = 0
    position = 0
    for name in ("$match", "$sort", "$skip", "$limit"):
        if position < len(pipeline) and list(pipeline[position]) == [name]:
            value = pipeline[position][name]
            position += 1
            match name:
                case "$match":
                    criteria = value
                case "$sort":
                    sort = value
                case "$skip":
                    skip = int(value)
                case "$limit":
                    limit = int(value)
    rest = pipeline[position:]
    found = collection.find(criteria, sort, skip, limit)
    if rest and (counted := _count_field(rest[0])) and len(rest) == 1:
        name, group = counted
        count = sum(1 for _ in found)
        return [{**group, name: count}] if count else []
    if rest and _is_plain_projection(rest[0]):
        documents = [collection.view(stored, rest[0]["$project"], {}) for stored in found]
        rest = rest[1:]
    elif not rest:
        return [collection.view(stored, None, {}) for stored in found]
    else:
        documents = [bson.decode(stored.raw, CODEC) for stored in found]
    return list(process_pipeline(documents, _Reader(databases, database), rest, None))


def _count_field(stage: Json) -> tuple[str, Json] | None:
    match stage:
        case {"$count": str(name)}:
            return name, {}
        case {"$group": {"_id": (int() | None) as group, "n": {"$sum": 1}, **others}} if not others:
            return "n", {"_id": group}
    return None


def _is_plain_projection(stage: Json) -> bool:
    fields = stage.get("$project")
    return isinstance(fields, dict) and all(
        isinstance(value, int | bool) and "." not in name for name, value in fields.items()
    )


class _Reader:
    """The database as mongomock's stages see it."""

    def __init__(self, databases: Databases, name: str) -> None:
        self.name = name
        self._databases = databases

    def get_collection(self, name: str) -> _CollectionReader:
        return _CollectionReader(self._databases.collection(f"{self.name}.{name}"))


class _CollectionReader:
    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    def find(self, criteria: Json) -> Iterator[Json]:
        for stored in self._collection.find(criteria):
            yield bson.decode(stored.raw, CODEC)
