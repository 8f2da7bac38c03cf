"""Indexes of one collection in an SQLite file, and which fields they let SQL decide on."""

from __future__ import annotations

import json
from collections.abc import Sequence

from matloop.ledger.connection import Connection
from matloop.ledger.translation import extract, odd

_NAMES = "matloop_indexes"


class Indexes:
    """The table of a collection and its indexes, as any process may have made them.

    Every indexed field has a second index, of the documents whose field defies comparison in SQL.
    It is nearly always empty, so that asking it costs nothing; and SQLite itself keeps it right.

    Parameters
    ----------
    database
        The file.
    collection
        Name of the collection.
    """

    def __init__(self, database: Connection, collection: str) -> None:
        self._database = database
        self._collection = collection
        self._table = quoted(collection)
        self._schema = -1
        self._known: dict[tuple[str, ...], bool] = {}
        self.table_exists = False
        self.has_checksums = False

    def refresh(self) -> None:
        """Look again, if any process has changed the schema since the last look."""
        ((schema,),) = self._database.rows("PRAGMA schema_version")
        if schema == self._schema:
            return
        tables = self._database.rows(
            "SELECT name FROM sqlite_master WHERE type='table' AND name IN (?, ?)",
            (self._collection, _NAMES),
        )
        self.table_exists = len(tables) == 2
        self._known = {}
        if self.table_exists:
            columns = self._database.rows(f"PRAGMA table_info({self._table})")
            self.has_checksums = any(name == "crc" for _, name, *_ in columns)
            sql = f"SELECT fields, is_unique FROM {_NAMES} WHERE collection=? ORDER BY is_unique"
            for fields, unique in self._database.rows(sql, (self._collection,)):
                self._known[tuple(json.loads(fields))] = bool(unique)
        self._schema = schema

    def has(self, fields: tuple[str, ...], unique: bool) -> bool:
        """Whether exactly these fields are indexed together."""
        return fields in self._known and (self._known[fields] or not unique)

    def usable(self, field: str) -> bool:
        """Whether a field is indexed and holds nothing but texts, numbers, dates and nulls."""
        if not any(field in fields for fields in self._known):
            return False
        sql = (
            f"SELECT EXISTS (SELECT 1 FROM {self._table}"
            f" INDEXED BY {self._name([field], 'odd')} WHERE {odd(field)})"
        )
        ((is_odd,),) = self._database.rows(sql)
        return not is_odd

    def create_table(self) -> None:
        """Make the collection, unless another process was first.

        Documents have a checksum; in collections made before there were any, new ones get one.
        """
        with self._database.transaction() as raw:
            raw.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table}"
                " (id INTEGER PRIMARY KEY, doc TEXT NOT NULL, crc INTEGER)"
            )
            columns = raw.execute(f"PRAGMA table_info({self._table})").fetchall()
            if all(name != "crc" for _, name, *_ in columns):
                raw.execute(f"ALTER TABLE {self._table} ADD COLUMN crc INTEGER")
            raw.execute(
                f"CREATE TABLE IF NOT EXISTS {_NAMES} (collection TEXT, fields TEXT,"
                " is_unique INTEGER, PRIMARY KEY (collection, fields, is_unique))"
            )

    def create(self, fields: Sequence[str], unique: bool) -> None:
        """Index fields together.

        Raises
        ------
        sqlite3.IntegrityError
            If `unique`, and two documents agree in all fields.
        """
        columns = ", ".join(extract(field) for field in fields)
        name = self._name(fields, "unique" if unique else "plain")
        with self._database.transaction() as raw:
            raw.execute(
                f"CREATE {'UNIQUE ' if unique else ''}INDEX IF NOT EXISTS {name}"
                f" ON {self._table} ({columns})"
            )
            for field in fields:
                raw.execute(
                    f"CREATE INDEX IF NOT EXISTS {self._name([field], 'odd')}"
                    f" ON {self._table} (id) WHERE {odd(field)}"
                )
            raw.execute(
                f"INSERT OR IGNORE INTO {_NAMES} VALUES (?, ?, ?)",
                (self._collection, json.dumps(list(fields)), unique),
            )

    def _name(self, fields: Sequence[str], kind: str) -> str:
        return quoted(f"{self._collection}/{','.join(fields)}/{kind}")


def quoted(name: str) -> str:
    """Return a name as SQL writes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
