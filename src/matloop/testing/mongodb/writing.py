"""Commands that write documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bson

from matloop.testing.mongodb.collection import Collection
from matloop.testing.mongodb.databases import Databases
from matloop.testing.mongodb.errors import refusal
from matloop.testing.mongodb.requests import Handler, handlers, namespace_of, refuse

Json = dict[str, Any]


class Writing:
    """``insert``, ``update``, ``delete`` and ``findAndModify``."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    def handlers(self) -> dict[str, Handler]:
        """Return what answers each command."""
        return handlers(self)

    def _do_insert(self, command: Json) -> Json:
        collection = self._target(command, "insert")

        def insert(raw: Any) -> int:
            collection.insert(raw if isinstance(raw, bytes) else bson.encode(raw))
            return 1

        counts, errors = _batch(command, "documents", insert)
        return _written({"n": sum(counts.values())}, errors)

    def _do_update(self, command: Json) -> Json:
        collection = self._target(command, "update")
        modified = 0
        added: list[Json] = []

        def update(request: Json) -> int:
            nonlocal modified
            refuse(request, "collation")
            change = collection.update(
                request["q"],
                request["u"],
                multi=bool(request.get("multi")),
                upsert=bool(request.get("upsert")),
                sort=request.get("sort"),
                filters=request.get("arrayFilters"),
            )
            modified += change.modified
            if change.after is not None and not change.matched:
                added.append({"_id": change.upserted})
                return 1
            return change.matched

        counts, errors = _batch(command, "updates", update, lambda index: _number(added, index))
        reply: Json = {"n": sum(counts.values()), "nModified": modified}
        if added:
            reply["upserted"] = added
        return _written(reply, errors)

    def _do_delete(self, command: Json) -> Json:
        collection = self._target(command, "delete", create=False)

        def delete(request: Json) -> int:
            refuse(request, "collation")
            return len(collection.delete(request["q"], limit=int(request.get("limit", 0))))

        counts, errors = _batch(command, "deletes", delete)
        return _written({"n": sum(counts.values())}, errors)

    def _do_findAndModify(self, command: Json) -> Json:  # noqa: N802
        refuse(command, "collation")
        collection = self._target(command, "findAndModify")
        criteria, fields = command.get("query") or {}, command.get("fields")
        sort = command.get("sort")
        if command.get("remove"):
            gone = collection.delete(criteria, limit=1, sort=sort)
            value = collection.view(gone[0], fields, criteria) if gone else None
            return {"value": value, "lastErrorObject": {"n": len(gone)}}
        change = collection.update(
            criteria,
            command["update"],
            upsert=bool(command.get("upsert")),
            sort=sort,
            filters=command.get("arrayFilters"),
        )
        stored = change.after if command.get("new") else change.before
        last: Json = {
            "n": 1 if change.after is not None else 0,
            "updatedExisting": change.before is not None,
        }
        if change.after is not None and change.before is None:
            last["upserted"] = change.upserted
        value = collection.view(stored, fields, criteria) if stored else None
        return {"value": value, "lastErrorObject": last}

    def _target(self, command: Json, name: str, create: bool = True) -> Collection:
        return self._databases.collection(namespace_of(command, name), create=create)


def _batch(
    command: Json,
    field: str,
    action: Callable[[Any], int],
    done: Callable[[int], None] = lambda index: None,
) -> tuple[dict[int, int], list[Json]]:
    counts: dict[int, int] = {}
    errors: list[Json] = []
    for index, request in enumerate(command[field]):
        try:
            counts[index] = action(request)
            done(index)
        except Exception as error:
            errors.append(refusal(error).write_error(index))
            if command.get("ordered", True):
                break
    return counts, errors


def _number(added: list[Json], index: int) -> None:
    if added and "index" not in added[-1]:
        added[-1] = {"index": index, **added[-1]}


def _written(reply: Json, errors: list[Json]) -> Json:
    return {**reply, "writeErrors": errors} if errors else reply
