"""Cursors: answers that clients fetch in batches."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import bson
from bson import Int64

from matloop.testing.mongodb.collection import MAX_DOCUMENT
from matloop.testing.mongodb.errors import CommandError

Json = dict[str, Any]
FIRST_BATCH = 101
_SECONDS = 600  # after which one that nobody asks for is forgotten


class Cursors:
    """All cursors that have more to give."""

    def __init__(self) -> None:
        self._cursors: dict[int, tuple[str, Iterator[Any], float]] = {}
        self._numbers = itertools.count(1)

    def open(self, namespace: str, views: Iterator[Any], size: int, single: bool = False) -> Json:
        """Return the reply with the first batch; what is left waits, unless `single`."""
        number = 0 if single else next(self._numbers)
        return self._batch(number, namespace, views, size, "firstBatch")

    def more(self, number: int, size: int | None) -> Json:
        """Return the reply with the next batch.

        Raises
        ------
        CommandError
            If there is no such cursor.
        """
        if number not in self._cursors:
            raise CommandError(43, f"cursor id {number} not found")
        namespace, views, _ = self._cursors.pop(number)
        return self._batch(number, namespace, views, size, "nextBatch")

    def kill(self, number: int) -> bool:
        """Forget a cursor; False if there was none."""
        return self._cursors.pop(number, None) is not None

    def _batch(
        self, number: int, namespace: str, views: Iterator[Any], size: int | None, name: str
    ) -> Json:
        batch: list[Any] = []
        length = 0
        rest: Iterator[Any] | None = None
        while size is None or len(batch) < size:
            view = next(views, None)
            if view is None:
                views = iter(())
                break
            batch.append(view)
            length += len(view.raw) if hasattr(view, "raw") else len(bson.encode(view))
            if length > MAX_DOCUMENT and len(batch) > 1:
                rest = itertools.chain([batch.pop()], views)
                break
        following = next(views, None) if rest is None else None
        if following is not None:
            rest = itertools.chain([following], views)
        alive = number if rest is not None else 0
        if rest is not None and number:
            now = time.monotonic()
            for old in [n for n, c in self._cursors.items() if now - c[2] > _SECONDS]:
                del self._cursors[old]
            self._cursors[number] = (namespace, rest, now)
        return {"cursor": {name: batch, "id": Int64(alive), "ns": namespace}}
