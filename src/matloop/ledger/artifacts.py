"""Artifacts: files named by the sha256 of what is in them."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from matloop.errors import LedgerCorruptedError, LedgerError, LedgerFullError


class ArtifactStore(Protocol):
    """Where artifacts are kept."""

    def put(self, content: bytes) -> str:
        """Keep bytes and return their sha256; keeping them again changes nothing."""
        ...

    def path(self, sha256: str) -> Path:
        """Return a local path to the bytes, checked against their hash."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class FileArtifacts:
    """Artifacts as files: ``ab/abcdef...`` below one folder.

    A file appears under its name only when all of it is on the disk. What a killed process leaves
    behind lies in ``partial`` and is never read.

    Parameters
    ----------
    directory
        The folder; made when the first artifact is kept.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, content: bytes) -> str:
        """Write a file, wait until it is on the disk, and give it its name.

        Raises
        ------
        LedgerFullError
            If the disk or the quota is full.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        target = self._place(sha256)
        if _holds(target, sha256):
            return sha256
        partial = self._directory / "partial" / f"{sha256[:16]}-{os.getpid()}-{uuid4().hex[:8]}"
        try:
            for folder in (partial.parent, target.parent):
                folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
            for folder in (target.parent, self._directory):
                _sync_folder(folder)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise LedgerFullError(
                    f"cannot write the artifact {target} ({error.strerror}): free space on the "
                    "disk, or raise the quota, and run again"
                ) from error
            raise LedgerError(f"cannot write the artifact {target}: {error.strerror}") from error
        return sha256

    def path(self, sha256: str) -> Path:
        """Return the path of a file whose bytes have that hash.

        Raises
        ------
        LedgerError
            If there is no such artifact.
        LedgerCorruptedError
            If the file's bytes have another hash.
        """
        target = self._place(sha256)
        if _holds(target, sha256):
            return target
        if not target.exists():
            raise LedgerError(f"there is no artifact {sha256} in {self._directory}")
        raise LedgerCorruptedError(
            f"{target} is damaged: its content does not have the hash it is named by; it was left "
            "untouched"
        )

    def close(self) -> None:
        """Release nothing: files are opened when they are needed."""

    def _place(self, sha256: str) -> Path:
        check_sha256(sha256)
        return self._directory / sha256[:2] / sha256


def check_sha256(sha256: str) -> None:
    """Refuse what is no sha256.

    Raises
    ------
    LedgerError
        If it is none.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise LedgerError(f"{sha256!r} is no sha256: it has 64 hexadecimal digits")


def _holds(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
