"""A maggma store in one SQLite file: no server, transactions, indexes, safe against kills."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from maggma.core import DateTimeFormat, Sort, Store, StoreError

from matloop.ledger.connection import Connection, Row
from matloop.ledger.encoding import Json, checksum, decode, encode
from matloop.ledger.indexes import Indexes, quoted
from matloop.ledger.matching import (
    check_criteria,
    in_utc,
    matches,
    project,
    sort_documents,
    values_at,
)
from matloop.ledger.translation import Plan, extract, translate

Criteria = Mapping[str, Any] | None
Properties = Mapping[str, Any] | Sequence[str] | None
Order = Mapping[str, Sort | int] | None

_PAGE = 1000


class SQLiteStore(Store):
    """One collection of documents in an SQLite file; a file holds any number of them.

    It serves wherever a maggma store does, as jobflow's ``docs_store`` too. Every `update`,
    `insert_new` and `remove_docs` is one transaction: all of it is on the disk when the call
    returns, or none of it. Any number of processes on one machine may read and write at once.

    Filters on indexed fields (equality, ``$in``, ranges, ``$and``) and sorting by them run in
    SQLite; everything else is decided document by document. `update` indexes the key it is given.
    Documents come in the order in which they were first written, unless sorted, and have no
    ``_id``.

    Parameters
    ----------
    path
        The database file, created if absent; a relative path is taken from the current folder.
    collection_name
        Name of the collection.
    key
        Field that identifies a document.
    last_updated_field, last_updated_type
        Field with the time of a document's last change, and how it is written.
    read_only
        Refuse writes; works while another process writes.
    busy_seconds
        How long to wait for another writer (s).

    Raises
    ------
    StoreError
        From every method, if the store is not connected or the request makes no sense.
    LedgerError
        From every method, if the database fails; see `LedgerFullError`, `LedgerCorruptedError`.
    """

    def __init__(
        self,
        path: str | Path,
        collection_name: str,
        key: str = "task_id",
        last_updated_field: str = "last_updated",
        last_updated_type: DateTimeFormat = DateTimeFormat.DateTime,
        read_only: bool = False,
        busy_seconds: float = 60.0,
    ) -> None:
        if not collection_name or collection_name.startswith(("sqlite_", "matloop_")):
            raise StoreError(f"a collection cannot be called {collection_name!r}")
        self.path = str(Path(path).absolute())
        self.collection_name = collection_name
        self.read_only = read_only
        self.busy_seconds = busy_seconds
        self._opened: Connection | None = None
        self._found: Indexes | None = None
        self._table = quoted(collection_name)
        super().__init__(
            key=key, last_updated_field=last_updated_field, last_updated_type=last_updated_type
        )

    @property
    def name(self) -> str:
        """File and collection."""
        return f"sqlite://{self.path}/{self.collection_name}"

    @property
    def _collection(self) -> Any:
        raise StoreError(f"{self.name} has no pymongo collection; use the methods of the store")

    def connect(self, force_reset: bool = False) -> None:
        """Open the file, and create the collection unless the store only reads."""
        if self._opened is not None:
            if not force_reset:
                return
            self.close()
        self._opened = Connection(Path(self.path), self.read_only, self.busy_seconds)
        self._found = Indexes(self._opened, self.collection_name)
        try:
            self._found.refresh()
            ready = self._found.table_exists and self._found.has_checksums
            if not ready and not self.read_only:
                self._found.create_table()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = self._found = None

    def count(self, criteria: Criteria = None) -> int:
        """Return the number of documents that match."""
        plan = self._plan(criteria)
        if not self._indexes.table_exists:
            return 0
        if plan.rest:
            return sum(1 for _ in self._documents(plan))
        sql = f"SELECT COUNT(*) FROM {self._table}{plan.where}"
        ((count,),) = self._database.rows(sql, plan.parameters)
        return int(count)

    def query(
        self,
        criteria: Criteria = None,
        properties: Properties = None,
        sort: Order = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[Json]:
        """Return matching documents.

        Parameters
        ----------
        criteria
            MongoDB filter.
        properties
            Fields to return.
        sort
            Fields with 1 or -1. Sorted by SQLite where all are indexed: then numbers that agree
            in 15 digits count as equal.
        skip, limit
            Leave out the first documents; return at most so many, 0 for all.
        """
        plan = self._plan(criteria)
        order = [(field, Sort(direction).value) for field, direction in (sort or {}).items()]
        if not self._indexes.table_exists:
            return iter(())
        sorted_by_sql = bool(order) and all(self._indexes.usable(field) for field, _ in order)
        paged_by_sql = not plan.rest and (sorted_by_sql or not order)
        documents = self._documents(
            plan,
            order if sorted_by_sql else [],
            (skip, limit) if paged_by_sql else (0, 0),
        )
        if order and not sorted_by_sql:
            documents = iter(sort_documents(documents, order))
        if not paged_by_sql:
            documents = islice(documents, skip, skip + limit if limit else None)
        return (project(document, properties) for document in documents)

    def texts(self, criteria: Criteria = None, sort: Order = None) -> Iterator[str]:
        """Return matching documents as text, for who reads it faster than `query` does.

        Parameters
        ----------
        criteria, sort
            As for `query`.
        """
        plan = self._plan(criteria)
        order = [(field, Sort(direction).value) for field, direction in (sort or {}).items()]
        if not self._indexes.table_exists:
            return iter(())
        if plan.rest or not all(self._indexes.usable(field) for field, _ in order):
            return map(encode, self.query(criteria, sort=sort))
        return (row[0] for row in self._rows(plan, order, (0, 0)))

    def scalars(
        self, criteria: Criteria, fields: Sequence[str], sort: Order = None
    ) -> Iterator[tuple[Any, ...]]:
        """Return a few fields of matching documents, of which nothing else is read.

        Parameters
        ----------
        criteria, sort
            As for `query`.
        fields
            Dotted fields that hold texts, numbers, booleans (1 and 0 here) or nothing.
        """
        plan = self._plan(criteria)
        order = [(field, Sort(direction).value) for field, direction in (sort or {}).items()]
        if not self._indexes.table_exists:
            return iter(())
        if plan.rest or not all(self._indexes.usable(field) for field, _ in order):
            found = self.query(criteria, fields, sort)
            return (tuple(values_at(field, one)[0] for field in fields) for one in found)
        return self._rows(plan, order, (0, 0), ", ".join(map(extract, fields)))

    def distinct(self, field: str, criteria: Criteria = None, all_exist: bool = False) -> list[Any]:
        """Return the different values of a field, those inside lists one by one, as MongoDB does.

        Parameters
        ----------
        field
            Dotted path.
        criteria
            Filter of the documents.
        all_exist
            Leave out documents that lack the field; those never have a value here.
        """
        seen: dict[str, Any] = {}
        for document in self.query(criteria, [field]):
            for value in values_at(field, document):
                for item in value if isinstance(value, list) else [value]:
                    seen.setdefault(encode({"value": item}), item)
        return list(seen.values())

    def groupby(
        self,
        keys: list[str] | str,
        criteria: Criteria = None,
        properties: Properties = None,
        sort: Order = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[tuple[Json, list[Json]]]:
        """Return documents grouped by fields, in the order of each group's first document.

        Documents that lack one of the fields are left out. `sort`, `skip` and `limit` apply to the
        documents before they are grouped.
        """
        fields = [keys] if isinstance(keys, str) else list(keys)
        wanted = [*fields, *properties] if properties else None
        groups: dict[str, tuple[Json, list[Json]]] = {}
        for document in self.query(criteria, wanted, sort, skip, limit):
            values = [values_at(field, document) for field in fields]
            if not all(values):
                continue
            group: Json = {}
            for field, value in zip(fields, values, strict=True):
                _set(group, field, value[0])
            groups.setdefault(encode(group), (group, []))[1].append(document)
        return iter(groups.values())

    def update(self, docs: list[Json] | Json, key: list[str] | str | None = None) -> None:
        """Replace the documents with the same key, or add them, in one transaction.

        Parameters
        ----------
        docs
            One document or many; of two with the same key the last one stays.
        key
            Fields that identify a document; by default the store's.
        """
        fields = self._key_fields(key)
        documents = [(document, _stored(document)) for document in _many(docs)]
        if not documents:
            return
        self.ensure_index(fields)
        with self._database.transaction() as raw:
            for document, text in documents:
                row = self._find(raw, {field: _value(document, field) for field in fields})
                values = (text, checksum(text))
                if row is None:
                    raw.execute(f"INSERT INTO {self._table} (doc, crc) VALUES (?, ?)", values)
                else:
                    raw.execute(f"UPDATE {self._table} SET doc=?, crc=? WHERE id=?", (*values, row))

    def insert_new(self, docs: list[Json] | Json, key: list[str] | str | None = None) -> int:
        """Add the documents whose key is not there yet, in one transaction; the first writer wins.

        Parameters
        ----------
        docs
            One document or many.
        key
            Fields that identify a document, holding texts or integers; by default the store's.

        Returns
        -------
        int
            How many were new.
        """
        fields = self._key_fields(key)
        rows = []
        for document in _many(docs):
            for field in fields:
                if not isinstance(_value(document, field), str | int):
                    raise StoreError(f"the key field {field!r} must hold a text or an integer")
            rows.append(_stored(document))
        return self.insert_texts(rows, fields)

    def insert_texts(self, texts: Sequence[str], fields: Sequence[str]) -> int:
        """Do the same with documents that are text already, as `encode` writes it.

        Parameters
        ----------
        texts
            The documents.
        fields
            Those that identify a document; each holds a text or an integer.
        """
        if not texts:
            return 0
        rows = ((text, checksum(text)) for text in texts)
        if not self.ensure_index(fields, unique=True):
            raise StoreError(f"{self.name} holds two documents with the same {', '.join(fields)}")
        with self._database.transaction() as raw:
            before = raw.total_changes
            raw.executemany(
                f"INSERT INTO {self._table} (doc, crc) VALUES (?, ?) ON CONFLICT DO NOTHING", rows
            )
            return raw.total_changes - before

    def remove_docs(self, criteria: Criteria) -> None:
        """Remove the documents that match."""
        plan = self._plan(criteria)
        with self._database.transaction() as raw:
            if not plan.rest:
                raw.execute(f"DELETE FROM {self._table}{plan.where}", plan.parameters)
                return
            rows = raw.execute(f"SELECT id, doc FROM {self._table}{plan.where}", plan.parameters)
            doomed = [(row,) for row, text in rows if matches(plan.rest, decode(text))]
            raw.executemany(f"DELETE FROM {self._table} WHERE id=?", doomed)

    def ensure_index(self, key: str | Sequence[str], unique: bool = False) -> bool:
        """Index one field, or several together.

        Parameters
        ----------
        key
            Field or fields.
        unique
            No two documents may agree in all of them.

        Returns
        -------
        bool
            False if there is no such index and none can be made: documents that are there already
            are not unique, or the store only reads.
        """
        fields = (key,) if isinstance(key, str) else tuple(key)
        self._indexes.refresh()
        if self._indexes.has(fields, unique):
            return True
        if self.read_only:
            return False
        try:
            self._indexes.create(fields, unique)
        except sqlite3.IntegrityError:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SQLiteStore):
            return False
        return self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, str, str]:
        return self.path, self.collection_name, self.last_updated_field

    @property
    def _database(self) -> Connection:
        if self._opened is None:
            raise StoreError(f"{self.name} is not connected; call connect() first")
        return self._opened

    @property
    def _indexes(self) -> Indexes:
        if self._found is None:
            raise StoreError(f"{self.name} is not connected; call connect() first")
        return self._found

    def _plan(self, criteria: Criteria) -> Plan:
        normal = in_utc(criteria or {})
        check_criteria(normal)
        self._indexes.refresh()
        return translate(normal, self._indexes.usable)

    def _documents(
        self,
        plan: Plan,
        order: Sequence[tuple[str, int]] = (),
        window: tuple[int, int] = (0, 0),
    ) -> Iterator[Json]:
        for row in self._rows(plan, order, window):
            document = decode(row[0])
            if not plan.rest or matches(plan.rest, document):
                yield document

    def _rows(
        self,
        plan: Plan,
        order: Sequence[tuple[str, int]],
        window: tuple[int, int],
        columns: str = "doc",
    ) -> Iterator[Row]:
        """Yield rows, a page of them at a time: which ones is settled at one instant."""
        skip, limit = window
        if not (plan.conditions or order or skip or limit):
            last = -1
            sql = f"SELECT {columns}, id FROM {self._table} WHERE id>? ORDER BY id LIMIT {_PAGE}"
            while page := self._database.rows(sql, (last,)):
                yield from (row[:-1] for row in page)
                last = page[-1][-1]
            return
        # `+id` keeps SQLite from walking the whole table for the sake of the order
        by = ", ".join(
            [f"{extract(field)} {'ASC' if way > 0 else 'DESC'}" for field, way in order]
            + ["+id" if plan.conditions else "id"]
        )
        tail = f" FROM {self._table}{plan.where} ORDER BY {by} LIMIT ? OFFSET ?"
        most = limit if 0 < limit <= _PAGE else _PAGE + 1
        found = self._database.rows(f"SELECT {columns}{tail}", [*plan.parameters, most, skip])
        if len(found) <= _PAGE:
            yield from found
            return
        del found
        numbers = self._database.numbers(f"SELECT id{tail}", [*plan.parameters, limit or -1, skip])
        sql = (
            f"SELECT id, {columns} FROM {self._table} WHERE id IN (SELECT value FROM json_each(?))"
        )
        for start in range(0, len(numbers), _PAGE):
            some = numbers[start : start + _PAGE].tolist()
            there = {row[0]: row[1:] for row in self._database.rows(sql, (json.dumps(some),))}
            yield from (there[number] for number in some if number in there)

    def _find(self, raw: sqlite3.Connection, criteria: Json) -> int | None:
        plan = translate(in_utc(criteria), self._indexes.usable)
        sql = f"SELECT id, doc FROM {self._table}{plan.where}"
        for row, text in raw.execute(sql, plan.parameters):
            if not plan.rest or matches(plan.rest, decode(text)):
                return int(row)
        return None

    def _key_fields(self, key: list[str] | str | None) -> list[str]:
        fields = key or self.key
        return [fields] if isinstance(fields, str) else list(fields)


def _many(docs: list[Json] | Json) -> list[Json]:
    return docs if isinstance(docs, list) else [docs]


def _stored(document: Json) -> str:
    return encode({name: value for name, value in document.items() if name != "_id"})


def _value(document: Json, field: str) -> Any:
    values = values_at(field, document)
    if not values:
        raise StoreError(f"a document has no key field {field!r}")
    return values[0]


def _set(document: Json, field: str, value: Any) -> None:
    *parents, last = field.split(".")
    for part in parents:
        document = document.setdefault(part, {})
    document[last] = value
