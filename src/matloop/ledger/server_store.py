"""maggma stores on a MongoDB server that carry no secret and outlast the server's absence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from bson import ObjectId
from gridfs import GridFS
from maggma.core import StoreError
from maggma.stores import GridFSStore, MongoStore
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from matloop.errors import LedgerError
from matloop.ledger.matching import values_at
from matloop.ledger.server import DURABLE, Json, Server, release

_DUPLICATE_KEY = 11000


class ServerStore(MongoStore):
    """A MongoStore that is told where the URI is, and not the URI.

    Every operation waits for a server that is away (`Server.patience_seconds`) and reads its
    answer whole, so that it can be repeated; every write is repeatable.

    Parameters
    ----------
    server
        The server and its database.
    collection_name
        The collection.
    key
        Field that identifies a document.
    """

    _coll: Any

    def __init__(self, server: Server, collection_name: str, key: str = "uuid") -> None:
        super().__init__(server.database, collection_name, key=key)
        self.server = server
        self._owner = 0

    @property
    def name(self) -> str:
        """Name of the source, without its secret."""
        return f"mongodb:{self.server.source}/{self.database}/{self.collection_name}"

    def __repr__(self) -> str:
        return f"ServerStore({self.name!r})"

    def __hash__(self) -> int:
        return hash((self.server, self.collection_name))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ServerStore)
            and self.server == other.server
            and self.collection_name == other.collection_name
        )

    def connect(self, force_reset: bool = False) -> None:
        """Prepare a connection; nothing is sent yet."""
        if self._coll is not None and (force_reset or self._owner != os.getpid()):
            self.close()
        if self._coll is None:
            collections = self.server.connect()
            self._coll = collections.get_collection(self.collection_name, write_concern=DURABLE)
            self._owner = os.getpid()

    def close(self) -> None:
        """Give the connection back."""
        if self._coll is not None and self._owner == os.getpid():
            release(self._coll.database)
        self._coll = None

    @property
    def _collection(self) -> Collection[Json]:
        if self._coll is None:
            raise StoreError("connect the store before using it")
        if self._owner != os.getpid():
            self.connect()
        collection: Collection[Json] = self._coll
        return collection

    def query(self, *args: Any, **kwargs: Any) -> Iterator[Json]:
        """Return documents; see `MongoStore.query`."""
        read = super().query
        yield from self.server.patiently(lambda: list(read(*args, **kwargs)))

    def query_one(
        self,
        criteria: Json | None = None,
        properties: Any = None,
        sort: dict[str, Any] | None = None,
    ) -> Json | None:
        """Return the first document, and read no more than that."""
        return next(self.query(criteria, properties, sort=sort, limit=1), None)

    def count(self, *args: Any, **kwargs: Any) -> int:
        """Count documents; see `MongoStore.count`."""
        count = super().count
        return int(self.server.patiently(lambda: count(*args, **kwargs)))

    def distinct(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the values of a field; see `MongoStore.distinct`."""
        distinct = super().distinct
        return list(self.server.patiently(lambda: distinct(*args, **kwargs)))

    def groupby(self, *args: Any, **kwargs: Any) -> Iterator[tuple[Json, list[Json]]]:
        """Group documents; see `MongoStore.groupby`."""
        group = super().groupby
        yield from self.server.patiently(lambda: list(group(*args, **kwargs)))

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Replace documents or add them; see `MongoStore.update`."""
        update = super().update
        self.server.patiently(lambda: update(*args, **kwargs))

    def remove_docs(self, *args: Any, **kwargs: Any) -> None:
        """Delete documents; see `MongoStore.remove_docs`."""
        remove = super().remove_docs
        self.server.patiently(lambda: remove(*args, **kwargs))

    def ensure_index(self, key: str, unique: bool | None = False) -> bool:
        """Index one field; see `MongoStore.ensure_index`."""
        self.index([key], unique=bool(unique))
        return True

    def index(self, fields: Sequence[str], unique: bool = False) -> None:
        """Index fields together.

        Raises
        ------
        LedgerError
            If `unique`, and two documents agree in all of them.
        """
        keys = [(field, 1) for field in fields]
        self.server.patiently(lambda: self._collection.create_index(keys, unique=unique))

    def insert_new(self, documents: Sequence[Json], key: Sequence[str]) -> int:
        """Add the documents whose key is not there yet, under a unique index; count them.

        Each document is added or not as a whole. Documents have their ``_id`` before they are
        sent: so it is known which of them are there, even if the server died before it answered.

        Raises
        ------
        LedgerError
            If a document is refused for another reason than its key.
        """
        named = [{"_id": ObjectId(), **document} for document in documents]
        requests = [
            UpdateOne(
                {field: values_at(field, document)[0] for field in key},
                {"$setOnInsert": document},
                upsert=True,
            )
            for document in named
        ]
        attempts = 0

        def write() -> int:
            nonlocal attempts
            attempts += 1
            try:
                return int(self._collection.bulk_write(requests, ordered=False).upserted_count)
            except BulkWriteError as error:
                # two writers raced for one key: the unique index let one of them in
                failures = error.details["writeErrors"]
                if error.details["writeConcernErrors"] or any(
                    failure["code"] != _DUPLICATE_KEY for failure in failures
                ):
                    raise
                return int(error.details["nUpserted"])

        try:
            added = self.server.patiently(write)
        except BulkWriteError as error:
            failures = error.details["writeErrors"] or error.details["writeConcernErrors"]
            message = f"{self.collection_name}: {failures[0]['errmsg']}"
            raise LedgerError(message) from None
        if attempts == 1:
            return added
        ids = [document["_id"] for document in named]
        return self.count({"_id": {"$in": ids}})


class ServerFileStore(GridFSStore):
    """A GridFSStore that is told where the URI is, and not the URI.

    Parameters
    ----------
    server
        The server and its database.
    collection_name
        Start of the names of its two collections, ``.files`` and ``.chunks``.
    key
        Field that identifies a document.
    """

    _coll: Any
    _fs: Any

    def __init__(self, server: Server, collection_name: str, key: str = "blob_uuid") -> None:
        super().__init__(server.database, collection_name, compression=True, key=key)
        self.server = server

    @property
    def name(self) -> str:
        """Name of the source, without its secret."""
        return f"gridfs:{self.server.source}/{self.database}/{self.collection_name}"

    def __repr__(self) -> str:
        return f"ServerFileStore({self.name!r})"

    def __hash__(self) -> int:
        return hash((self.server, self.collection_name))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ServerFileStore)
            and self.server == other.server
            and self.collection_name == other.collection_name
        )

    def connect(self, force_reset: bool = False) -> None:
        """Prepare a connection; nothing is sent yet."""
        if self._coll is not None and force_reset:
            self.close()
        if self._coll is None:
            database = self.server.connect().with_options(write_concern=DURABLE)
            self._coll = GridFS(database, self.collection_name)
            self._files_collection = database[f"{self.collection_name}.files"]
            self._chunks_collection = database[f"{self.collection_name}.chunks"]
            self._fs = MongoStore.from_collection(self._files_collection)
            self._fs.last_updated_field = f"metadata.{self.last_updated_field}"
            self._fs.key = self.key

    def close(self) -> None:
        """Give the connection back."""
        if self._coll is not None:
            release(self._files_collection.database)
        self._coll = self._fs = None

    def query(self, *args: Any, **kwargs: Any) -> Iterator[Json]:
        """Return documents; see `GridFSStore.query`."""
        read = super().query
        yield from self.server.patiently(lambda: list(read(*args, **kwargs)))

    def count(self, *args: Any, **kwargs: Any) -> int:
        """Count documents; see `GridFSStore.count`."""
        count = super().count
        return int(self.server.patiently(lambda: count(*args, **kwargs)))

    def distinct(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the values of a field; see `GridFSStore.distinct`."""
        distinct = super().distinct
        return list(self.server.patiently(lambda: distinct(*args, **kwargs)))

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Replace documents or add them; see `GridFSStore.update`."""
        update = super().update
        self.server.patiently(lambda: update(*args, **kwargs))

    def remove_docs(self, *args: Any, **kwargs: Any) -> None:
        """Delete documents; see `GridFSStore.remove_docs`."""
        remove = super().remove_docs
        self.server.patiently(lambda: remove(*args, **kwargs))

    def ensure_index(self, key: str, unique: bool | None = False) -> bool:
        """Index one field of the files' metadata; see `GridFSStore.ensure_index`."""
        ensure = super().ensure_index
        return bool(self.server.patiently(lambda: ensure(key, unique=unique)))
