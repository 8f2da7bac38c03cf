"""Opening a ledger: the embedded one in a folder, or MongoDB; damage is found before any write."""

from __future__ import annotations

import os
import sqlite3
import zlib
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from uuid import uuid4

from monty.json import MSONable

from matloop.errors import (
    ConfigurationError,
    LedgerCorruptedError,
    LedgerError,
    LedgerFullError,
    Mistake,
)
from matloop.ledger.artifacts import FileArtifacts
from matloop.ledger.connection import plain_errors, uri
from matloop.ledger.gridfs import GridFSArtifacts
from matloop.ledger.indexes import quoted
from matloop.ledger.leases import LeaseLocks
from matloop.ledger.locks import CampaignLocks
from matloop.ledger.server import Server
from matloop.ledger.server_store import ServerStore
from matloop.ledger.sqlite import SQLiteStore
from matloop.ledger.store_ledger import COLLECTIONS, StoreLedger

SCHEMA_VERSION = 1
FILE_NAME = "ledger.sqlite"
_APPLICATION_ID = 0x4D544C50  # "MTLP", in the header of every ledger file

Kind = Literal["embedded", "mongodb"]


def open_ledger(directory: Path, *, create: bool = False) -> StoreLedger:
    """Open the embedded ledger of a folder for reading and writing.

    The folder holds ``ledger.sqlite``, ``artifacts/`` and ``locks/``.

    Parameters
    ----------
    directory
        The folder.
    create
        Make folder and ledger where there is none.

    Raises
    ------
    LedgerError
        If there is no ledger and none may be made.
    LedgerCorruptedError
        If the file is damaged, or no ledger of a known version; it is left untouched.
    LedgerFullError
        If there is no room for it.
    """
    file = directory / FILE_NAME
    if not file.exists() and create:
        _refuse_orphaned_log(file)
        _create(file)
    return _open(directory, read_only=False)


def read_ledger(directory: Path) -> StoreLedger:
    """Open the embedded ledger of a folder for reading, also while a campaign is running there.

    Raises
    ------
    LedgerError
        If there is no ledger.
    LedgerCorruptedError
        If the file is damaged, or no ledger of a known version.
    """
    return _open(directory, read_only=True)


def check_ledger(file: Path) -> None:
    """Look for damage in a ledger file without changing it; reads all of it.

    SQLite finds what is wrong with the structure of the file and with its indexes; checksums find
    a document that is not what was written. It takes about 5 ms per MB.

    Raises
    ------
    LedgerCorruptedError
        Naming the file and what was found.
    """
    if file.stat().st_size == 0:
        raise LedgerCorruptedError(f"{file} is empty; it was left untouched")
    with plain_errors(file), closing(sqlite3.connect(uri(file, True), uri=True)) as raw:
        ((application,),) = raw.execute("PRAGMA application_id")
        ((version,),) = raw.execute("PRAGMA user_version")
        if application != _APPLICATION_ID:
            raise LedgerCorruptedError(
                f"{file} is an SQLite database, but no ledger of matloop; it was left untouched"
            )
        if version != SCHEMA_VERSION:
            raise LedgerCorruptedError(
                f"{file} has schema version {version}, this matloop reads {SCHEMA_VERSION}; it "
                "was left untouched"
            )
        damage = _damaged_document(raw) or _damaged_structure(raw)
        if damage:
            raise LedgerCorruptedError(f"{file} is damaged ({damage}); it was left untouched")


@dataclass(frozen=True)
class LedgerConfig(MSONable):
    """Where a ledger is: small enough for jobs to carry, and free of secrets.

    Attributes
    ----------
    directory
        Folder of the embedded database with its artifacts and locks; with MongoDB, of local
        copies of artifacts.
    kind
        ``embedded`` for a file in `directory`, ``mongodb`` for a server.
    uri_variable
        Name of the environment variable that holds the server's URI.
    database
        Name of the database on the server.
    uri_file
        File that holds the URI instead; it must be the user's own, and closed to all others.
    patience_seconds
        How long an operation waits for a server that is away (s).

    Raises
    ------
    ConfigurationError
        If a field cannot be right.
    """

    directory: str
    kind: Kind = "embedded"
    uri_variable: str = "MATLOOP_MONGODB_URI"
    database: str = "matloop"
    uri_file: str = ""
    patience_seconds: float = 300.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigurationError([Mistake("kind", "must be embedded or mongodb")])
        self.server()

    def server(self) -> Server:
        """Return the server of the database, whether or not one is used."""
        return Server(self.uri_variable, self.uri_file, self.database, self.patience_seconds)

    def uri(self) -> str:
        """Return the URI of the server: a secret, for the driver and for nobody else.

        Raises
        ------
        ConfigurationError
            If the variable is not set, or the file is not there or open to others.
        """
        return self.server().uri()

    def open(self, *, create: bool = False) -> StoreLedger:
        """Open the ledger for reading and writing.

        Parameters
        ----------
        create
            Make an embedded ledger where there is none; MongoDB needs no such permission.

        Raises
        ------
        ConfigurationError
            If the URI of the server cannot be had.
        LedgerError
            If the database cannot be opened, or its server stays away.
        """
        directory = Path(self.directory)
        if self.kind == "embedded":
            return open_ledger(directory, create=create)
        server = self.server()
        stores = {
            name: ServerStore(server, name, key=fields[0]) for name, fields in COLLECTIONS.items()
        }
        artifacts = GridFSArtifacts(server, directory / "artifacts")
        try:
            return StoreLedger(stores, artifacts, LeaseLocks(server))
        except BaseException:
            artifacts.close()
            raise


def _damaged_document(raw: sqlite3.Connection) -> str:
    tables = raw.execute(
        "SELECT name FROM sqlite_master WHERE type='table' AND EXISTS"
        " (SELECT 1 FROM pragma_table_info(sqlite_master.name) AS c WHERE c.name='crc')"
    ).fetchall()
    for (table,) in tables:
        for row, text, crc in raw.execute(
            f"SELECT id, CAST(doc AS BLOB), crc FROM {quoted(table)} WHERE crc IS NOT NULL"
        ):
            if zlib.crc32(text) != crc:
                return f"document {row} of its {table} is not what was written"
    return ""


def _damaged_structure(raw: sqlite3.Connection) -> str:
    ((finding,),) = raw.execute("PRAGMA integrity_check(1)")
    if finding == "ok":
        return ""
    return "; ".join(line for line in finding.splitlines() if not line.startswith("***"))


def _open(directory: Path, read_only: bool) -> StoreLedger:
    file = directory / FILE_NAME
    if not file.exists():
        _refuse_orphaned_log(file)
        raise LedgerError(
            f"there is no campaign in {directory}; start one with "
            f"`matloop run CAMPAIGN.yaml --dir {directory}`"
        )
    check_ledger(file)
    stores = {
        name: SQLiteStore(file, name, key=fields[0], read_only=read_only)
        for name, fields in COLLECTIONS.items()
    }
    locks = CampaignLocks(directory / "locks")
    return StoreLedger(stores, FileArtifacts(directory / "artifacts"), locks)


def _refuse_orphaned_log(file: Path) -> None:
    # SQLite would play a lost file's log into the new one
    log = file.with_name(f"{file.name}-wal")
    if log.exists() and log.stat().st_size:
        raise LedgerCorruptedError(
            f"{file} is missing, but its log {log.name} is there; restore the file, or move the "
            "log away to start anew"
        )


def _create(file: Path) -> None:
    # Made whole under another name: an empty `ledger.sqlite` is always damage, never a beginning.
    draft = file.with_name(f".{file.name}-{os.getpid()}-{uuid4().hex[:8]}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with plain_errors(draft), closing(sqlite3.connect(draft, isolation_level=None)) as raw:
            raw.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            raw.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            raw.execute("PRAGMA journal_mode=WAL")
        with suppress(FileExistsError):  # another process was first, with the same content
            os.link(draft, file)
    except LedgerFullError:
        raise LedgerFullError(f"cannot create {file}: the disk or the quota is full") from None
    except OSError as error:
        raise LedgerError(f"cannot create {file}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
