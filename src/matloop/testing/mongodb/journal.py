"""An append-only journal: acknowledged changes outlive the process, and on request the machine."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import bson

from matloop.testing.mongodb.ordering import CODEC

Record = dict[str, Any]
Policy = Literal["each", "interval", "never"]

_MAGIC = b"matloop test journal 1\n"
_HEADER = struct.Struct("<II")  # length and CRC-32 of the BSON that follows
_INTERVAL = 0.1  # as MongoDB's own journal


class JournalDamagedError(Exception):
    """The journal is damaged before its end, or is no journal; it was left untouched."""


class Journal:
    """Records of changes in one file.

    A record is handed to the operating system before its change is acknowledged, which is enough
    to survive the death of the process. When it is forced to the disk is the policy's affair.

    Parameters
    ----------
    path
        The file; only one process may have it open.
    policy
        ``each``: before every acknowledgement. ``interval``: every 0.1 s, and before the
        acknowledgement of writes with ``j: true``. ``never``: left to the system.

    Raises
    ------
    BlockingIOError
        If another process has the journal open.
    """

    def __init__(self, path: Path, policy: Policy = "interval") -> None:
        self._path = path
        self._policy = policy
        self._lock_file = path.with_name(f"{path.name}.lock").open("w")
        fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._pending: list[bytes] = []
        self._written = self._synced = 0
        self._sync_lock = threading.Lock()
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._stop = threading.Event()

    def replay(self) -> Iterator[Record]:
        """Yield all records, and cut off one that a killed process left unfinished.

        Raises
        ------
        JournalDamagedError
            If what is there is not what was written.
        """
        size = os.fstat(self._handle).st_size
        with self._path.open("rb") as file:
            start = file.read(len(_MAGIC))
            if start != _MAGIC and size >= len(_MAGIC):
                raise JournalDamagedError(f"{self._path} is no journal")
            end = file.tell() if start == _MAGIC else 0
            while header := file.read(_HEADER.size):
                if len(header) < _HEADER.size:
                    break
                length, crc = _HEADER.unpack(header)
                body = file.read(length)
                if len(body) < length:
                    break
                if zlib.crc32(body) != crc:
                    raise JournalDamagedError(f"{self._path} is damaged at byte {end}")
                yield bson.decode(body, CODEC)
                end = file.tell()
        if end < size:
            os.ftruncate(self._handle, end)

    def compact(self, records: Iterable[Record]) -> None:
        """Put a journal of these records in the place of the old one, and be ready to append."""
        draft = self._path.with_name(f"{self._path.name}.draft")
        with draft.open("wb") as file:
            file.write(_MAGIC)
            for record in records:
                file.write(_framed(record))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path)
        os.close(self._handle)
        self._handle = os.open(self._path, os.O_RDWR | os.O_APPEND)
        folder = os.open(self._path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        if self._policy == "interval":
            threading.Thread(target=self._sync_regularly, daemon=True).start()

    def append(self, record: Record) -> None:
        """Add a record, to be written by `flush`."""
        self._pending.append(_framed(record))

    def flush(self) -> int:
        """Hand what was added to the operating system; return how much there is to sync up to.

        Raises
        ------
        OSError
            If it cannot be written. What was written in part must not be followed by more.
        """
        if self._pending:
            content = memoryview(b"".join(self._pending))
            self._pending = []
            while content:
                content = content[os.write(self._handle, content) :]
            self._written += 1
        return self._written

    def settle(self, mark: int, force: bool) -> None:
        """Wait until what `flush` wrote is as durable as the policy says."""
        if force or self._policy == "each":
            self._sync(mark)

    def close(self) -> None:
        """Write and sync what is left."""
        self._stop.set()
        self.flush()
        self._sync(self._written)
        os.close(self._handle)
        self._lock_file.close()

    def _sync(self, mark: int) -> None:
        with self._sync_lock:  # one waits for the disk, and those behind find their work done
            if self._synced < mark:
                written = self._written
                os.fdatasync(self._handle)
                self._synced = written

    def _sync_regularly(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._sync(self._written)


def _framed(record: Record) -> bytes:
    body = bson.encode(record)
    return _HEADER.pack(len(body), zlib.crc32(body)) + body
