"""All databases of the server, and how they come back from the journal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from bson.raw_bson import RawBSONDocument

from matloop.testing.mongodb.collection import Collection
from matloop.testing.mongodb.errors import CommandError
from matloop.testing.mongodb.journal import Journal

Json = dict[str, Any]


class Databases:
    """Collections by namespace, behind one lock.

    Parameters
    ----------
    journal
        Where changes are recorded; None keeps everything in memory only.
    """

    def __init__(self, journal: Journal | None) -> None:
        self.lock = threading.RLock()
        self.collections: dict[str, Collection] = {}
        self._journal = journal
        if journal is not None:
            for record in journal.replay():
                self._restore(record)
            for collection in self.collections.values():
                for options in [index.options for index in collection.indexes.values()]:
                    collection.build(options)
            journal.compact(self._records())

    def collection(self, namespace: str, create: bool = False) -> Collection:
        """Return a collection; one that does not exist is empty, and kept only if `create`."""
        found = self.collections.get(namespace)
        if found is None:
            found = Collection(namespace, self)
            if create:
                self.create(namespace)
                return self.collections[namespace]
        return found

    def create(self, namespace: str) -> None:
        """Make a collection."""
        if not namespace.partition(".")[2]:
            raise CommandError(73, f"Invalid namespace specified '{namespace}'")
        self.collections[namespace] = Collection(namespace, self)
        self._record({"o": "create", "n": namespace})

    def drop(self, namespace: str) -> bool:
        """Remove a collection; False if there was none."""
        found = self.collections.pop(namespace, None)
        if found is not None:
            self._record({"o": "drop", "n": namespace})
        return found is not None

    def rename(self, old: str, new: str) -> None:
        """Give a collection another name."""
        collection = self.collections.pop(old)
        collection.namespace = new
        self.collections[new] = collection
        self._record({"o": "rename", "n": old, "to": new})

    def build_index(self, namespace: str, options: Json) -> None:
        """Add an index to a collection."""
        self.collection(namespace, create=True).build(options)
        self._record({"o": "index", "n": namespace, "v": options})

    def drop_index(self, namespace: str, name: str) -> None:
        """Remove an index."""
        del self.collection(namespace).indexes[name]
        self._record({"o": "unindex", "n": namespace, "k": name})

    def put(self, namespace: str, raw: bytes) -> None:
        """Record that a document is now this."""
        self._record({"o": "put", "n": namespace, "v": RawBSONDocument(raw)})

    def delete(self, namespace: str, name: Any) -> None:
        """Record that a document is gone."""
        self._record({"o": "delete", "n": namespace, "k": name})

    def flush(self) -> int:
        """Write what was recorded to the journal."""
        return self._journal.flush() if self._journal is not None else 0

    def settle(self, mark: int, force: bool) -> None:
        """Wait until what was written is durable."""
        if self._journal is not None:
            self._journal.settle(mark, force)

    def expire(self) -> None:
        """Delete what time-to-live indexes say is too old."""
        now = datetime.now(UTC).replace(tzinfo=None)
        with self.lock:
            for collection in list(self.collections.values()):
                collection.expire(now)
            self.flush()

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            with self.lock:
                self._journal.close()

    def _record(self, record: Json) -> None:
        if self._journal is not None:
            self._journal.append(record)

    def _restore(self, record: Json) -> None:
        namespace = record["n"]
        match record["o"]:
            case "create":
                self.collections[namespace] = Collection(namespace, self)
            case "drop":
                del self.collections[namespace]
            case "rename":
                collection = self.collections.pop(namespace)
                collection.namespace = record["to"]
                self.collections[record["to"]] = collection
            case "index":
                self.collections[namespace].declare(record["v"])
            case "unindex":
                del self.collections[namespace].indexes[record["k"]]
            case "put":
                self.collections[namespace].restore(record["v"])
            case "delete":
                self.collections[namespace].forget(record["k"])

    def _records(self) -> Iterator[Json]:
        for namespace, collection in self.collections.items():
            yield {"o": "create", "n": namespace}
            for index in collection.indexes.values():
                yield {"o": "index", "n": namespace, "v": index.options}
            for stored in collection:
                yield {"o": "put", "n": namespace, "v": RawBSONDocument(stored.raw)}
