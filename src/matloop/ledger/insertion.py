"""Insert if absent, over any store that can do it in one step."""

from __future__ import annotations

from collections.abc import Sequence

from maggma.core import Store
from maggma.stores import MemoryStore, MongoStore
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from matloop.errors import LedgerError
from matloop.ledger.encoding import Json
from matloop.ledger.matching import values_at
from matloop.ledger.server_store import ServerStore
from matloop.ledger.sqlite import SQLiteStore

_DUPLICATE_KEY = 11000


def insert_new(store: Store, documents: Sequence[Json], key: Sequence[str]) -> int:
    """Add the documents whose key is not there yet; the first writer wins.

    In SQLite it is one transaction. In MongoDB each document is added or not as a whole, under a
    unique index, so that repeating the call completes it.

    Parameters
    ----------
    store
        A connected `SQLiteStore`, `ServerStore`, `MongoStore` or `MemoryStore`.
    documents
        The documents.
    key
        Dotted fields that identify a document.

    Returns
    -------
    int
        How many were new.

    Raises
    ------
    LedgerError
        If the store cannot insert in one step only what is absent.
    """
    if not documents:
        return 0
    if isinstance(store, SQLiteStore | ServerStore):
        return store.insert_new(list(documents), list(key))
    _check(store)
    requests = [
        UpdateOne(
            {field: values_at(field, document)[0] for field in key},
            {"$setOnInsert": document},
            upsert=True,
        )
        for document in documents
    ]
    try:
        return int(store._collection.bulk_write(requests, ordered=False).upserted_count)
    except BulkWriteError as error:
        # two writers raced for one key: the unique index let one of them in, which is enough
        failures = error.details["writeErrors"]
        if any(failure["code"] != _DUPLICATE_KEY for failure in failures):
            raise LedgerError(f"{store.collection_name}: {failures[0]['errmsg']}") from error
        return int(error.details["nUpserted"])


def ensure_index(store: Store, fields: Sequence[str], unique: bool = False) -> None:
    """Index several fields of a store together, if it may be written.

    Raises
    ------
    LedgerError
        If the store can hold no such index.
    """
    if isinstance(store, SQLiteStore):
        if not store.ensure_index(fields, unique=unique) and not store.read_only:
            raise LedgerError(f"{store.name}: two documents agree in {', '.join(fields)}")
        return
    if isinstance(store, ServerStore):
        store.index(fields, unique=unique)
        return
    _check(store)
    store._collection.create_index([(field, 1) for field in fields], unique=unique)


def _check(store: Store) -> None:
    # Other stores with a pymongo collection keep a copy in files, which would miss the insertion.
    in_files = isinstance(store, MemoryStore) and type(store) is not MemoryStore
    if in_files or not isinstance(store, MongoStore):
        raise LedgerError(
            f"a ledger cannot use a {type(store).__name__}: use an SQLiteStore, a ServerStore, a "
            "MongoStore or a MemoryStore"
        )
