"""One connection to one SQLite file: durable settings, transactions, and errors in plain words."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matloop.errors import LedgerCorruptedError, LedgerError, LedgerFullError

Row = tuple[Any, ...]

# SQLite connections must not be used, or even closed, on the other side of a fork.
_left_by_fork: list[sqlite3.Connection] = []


class Connection:
    """A connection that threads share, and that a forked process replaces with its own.

    Write-ahead logging lets readers work beside one writer; ``synchronous=FULL`` means that a
    transaction that returned is on the disk. Write-ahead logging needs shared memory, so all
    processes that use a file must run on one machine.

    Parameters
    ----------
    path
        The database file, created if absent unless `read_only`.
    read_only
        Refuse writes. Reading works while another process writes, and on a read-only file system.
    busy_seconds
        How long to wait for another writer.
    """

    def __init__(self, path: Path, read_only: bool = False, busy_seconds: float = 60.0) -> None:
        self.path = path
        self.read_only = read_only
        self._busy_seconds = busy_seconds
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._raw = self._open()

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return all rows of a statement, read at one instant."""
        self._renew_after_fork()
        with self._lock, plain_errors(self.path):
            return self._raw.execute(sql, parameters).fetchall()

    def numbers(self, sql: str, parameters: Sequence[object] = ()) -> array[int]:
        """Return the integers of a statement with one column, eight bytes each."""
        self._renew_after_fork()
        with self._lock, plain_errors(self.path):
            return array("q", (row[0] for row in self._raw.execute(sql, parameters)))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing; on return it is on the disk."""
        if self.read_only:
            raise LedgerError(f"{self.path} is opened for reading only")
        self._renew_after_fork()
        with self._lock, plain_errors(self.path):
            raw = self._raw
            raw.execute("BEGIN IMMEDIATE")
            try:
                yield raw
                raw.execute("COMMIT")
            except BaseException:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file, unless it belongs to the process this one was forked from."""
        if self._owner == os.getpid():
            with self._lock:
                self._raw.close()
        else:
            _left_by_fork.append(self._raw)

    def _renew_after_fork(self) -> None:
        if self._owner != os.getpid():
            _left_by_fork.append(self._raw)
            self._lock = threading.RLock()  # another thread of the parent may have held it
            self._raw = self._open()
            self._owner = os.getpid()

    def _open(self) -> sqlite3.Connection:
        with plain_errors(self.path):
            raw = sqlite3.connect(
                uri(self.path, self.read_only),
                uri=True,
                timeout=self._busy_seconds,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                if not self.read_only:
                    self._make_durable(raw)
            except BaseException:
                raw.close()
                raise
            return raw

    def _make_durable(self, raw: sqlite3.Connection) -> None:
        # Several processes may turn logging on at once; SQLite then does not wait by itself.
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                (mode,) = raw.execute("PRAGMA journal_mode").fetchone()
                if mode != "wal":
                    (mode,) = raw.execute("PRAGMA journal_mode=WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        if mode != "wal":
            raise LedgerError(
                f"{self.path}: this file system cannot hold the embedded database; "
                "use a local disk, or MongoDB"
            )
        raw.execute("PRAGMA synchronous=FULL")


def uri(path: Path, read_only: bool) -> str:
    """Return the address under which SQLite opens a file."""
    address = path.absolute().as_uri()
    if not read_only:
        return f"{address}?mode=rwc"
    log = path.with_name(f"{path.name}-wal")
    frozen = not log.exists() and not _writable(path.parent)
    return f"{address}?mode=ro" + ("&immutable=1" if frozen else "")


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into the project's own, with the file's name.

    Raises
    ------
    LedgerFullError
        If the disk or the quota is full, or a write failed otherwise; the transaction is undone.
    LedgerCorruptedError
        If the file is damaged or no SQLite database.
    LedgerError
        On any other failure of the database.
    """
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        match code & 0xFF:
            case sqlite3.SQLITE_FULL:
                raise _full(path, error) from error
            case sqlite3.SQLITE_IOERR if code in _WRITE_ERRORS:
                raise _full(path, error) from error
            case sqlite3.SQLITE_NOTADB:
                raise LedgerCorruptedError(
                    f"{path} is not an SQLite database; it was left untouched"
                ) from error
            case sqlite3.SQLITE_CORRUPT:
                raise LedgerCorruptedError(
                    f"{path} is damaged ({error}); it was left untouched"
                ) from error
            case sqlite3.SQLITE_BUSY:
                raise LedgerError(f"{path}: other processes kept it busy too long") from error
        if any(sign in str(error) for sign in _SIGNS_OF_DAMAGE):
            raise LedgerCorruptedError(
                f"{path} is damaged (a document is no JSON text); it was left untouched"
            ) from error
        raise LedgerError(f"{path}: {error}") from error


# Documents are written as JSON in ASCII, so these never concern what was written.
_SIGNS_OF_DAMAGE = ("malformed JSON", "Could not decode to UTF-8")

_WRITE_ERRORS = (
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
)


def _full(path: Path, error: sqlite3.Error) -> LedgerFullError:
    return LedgerFullError(
        f"cannot write to {path} ({error}): free space on the disk, or raise the quota, and run "
        "again; everything recorded before is intact"
    )


def _writable(directory: Path) -> bool:
    # `os.access` answers for the file system too: a read-only mount is not writable, even for root
    return os.access(directory, os.W_OK)
