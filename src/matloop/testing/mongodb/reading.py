"""Commands that read."""

from __future__ import annotations

from typing import Any

from bson import Int64

from matloop.testing.mongodb.aggregation import aggregate
from matloop.testing.mongodb.cursors import FIRST_BATCH, Cursors
from matloop.testing.mongodb.databases import Databases
from matloop.testing.mongodb.requests import Handler, handlers, namespace_of, refuse

Json = dict[str, Any]


class Reading:
    """``find``, ``aggregate``, ``getMore``, ``killCursors``, ``count`` and ``distinct``."""

    def __init__(self, databases: Databases, cursors: Cursors) -> None:
        self._databases = databases
        self._cursors = cursors

    def handlers(self) -> dict[str, Handler]:
        """Return what answers each command."""
        return handlers(self)

    def _do_find(self, command: Json) -> Json:
        refuse(command, "collation", "tailable", "min", "max", "returnKey", "showRecordId")
        collection = self._databases.collection(namespace_of(command, "find"))
        criteria, fields = command.get("filter") or {}, command.get("projection")
        limit = int(command.get("limit") or 0)
        found = list(
            collection.find(
                criteria, command.get("sort"), int(command.get("skip") or 0), abs(limit)
            )
        )
        views = (collection.view(stored, fields, criteria) for stored in found)
        size = command.get("batchSize", FIRST_BATCH)
        single = bool(command.get("singleBatch")) or limit < 0
        return self._cursors.open(collection.namespace, views, int(size), single)

    def _do_aggregate(self, command: Json) -> Json:
        refuse(command, "collation")
        database = command["$db"]
        source = command["aggregate"]
        namespace = f"{database}.$cmd.aggregate" if source == 1 else f"{database}.{source}"
        result = aggregate(self._databases, database, namespace, command["pipeline"])
        size = (command.get("cursor") or {}).get("batchSize", FIRST_BATCH)
        return self._cursors.open(namespace, iter(result), int(size))

    def _do_getMore(self, command: Json) -> Json:  # noqa: N802
        return self._cursors.more(
            int(command["getMore"]), int(command.get("batchSize") or 0) or None
        )

    def _do_killCursors(self, command: Json) -> Json:  # noqa: N802
        asked = [int(number) for number in command["cursors"]]
        killed = [number for number in asked if self._cursors.kill(number)]
        return {
            "cursorsKilled": [Int64(number) for number in killed],
            "cursorsNotFound": [Int64(number) for number in asked if number not in killed],
            "cursorsAlive": [],
            "cursorsUnknown": [],
        }

    def _do_count(self, command: Json) -> Json:
        collection = self._databases.collection(namespace_of(command, "count"))
        skip, limit = int(command.get("skip") or 0), abs(int(command.get("limit") or 0))
        count = max(0, collection.count(command.get("query") or {}) - skip)
        return {"n": min(count, limit) if limit else count}

    def _do_distinct(self, command: Json) -> Json:
        collection = self._databases.collection(namespace_of(command, "distinct"))
        return {"values": collection.distinct(command["key"], command.get("query") or {})}
