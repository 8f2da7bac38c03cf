"""Artifacts in MongoDB's GridFS, with a folder of local copies."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bson import ObjectId
from gridfs import GridFSBucket, NoFile
from gridfs.errors import CorruptGridFile, FileExists

from matloop.errors import LedgerCorruptedError, LedgerError
from matloop.ledger.artifacts import FileArtifacts, check_sha256
from matloop.ledger.server import DURABLE, Server, release

BUCKET = "artifact_files"
"""Start of the names of the two collections, ``.files`` and ``.chunks``."""


class GridFSArtifacts:
    """Artifacts as GridFS files whose name is the sha256 of their bytes.

    A file is there when its entry in ``artifact_files.files`` is, which GridFS writes last and
    under a unique index: half an upload is never read, and of several writers one is kept.

    Parameters
    ----------
    server
        The server and its database.
    cache
        Folder of local copies; a damaged copy is fetched again.
    """

    def __init__(self, server: Server, cache: Path) -> None:
        self._server = server
        self._cache = FileArtifacts(cache)
        self._database = server.connect().with_options(write_concern=DURABLE)
        self._files = self._database[f"{BUCKET}.files"]
        self._chunks = self._database[f"{BUCKET}.chunks"]
        try:
            server.patiently(lambda: self._files.create_index("filename", unique=True))
        except BaseException:
            self.close()
            raise

    def put(self, content: bytes) -> str:
        """Upload bytes, unless they are there already, and return their sha256.

        Raises
        ------
        LedgerError
            If the server stays away.
        """
        sha256 = hashlib.sha256(content).hexdigest()

        def upload() -> None:
            if self._files.find_one({"filename": sha256}, {"_id": 1}) is not None:
                return
            stream = self._bucket().open_upload_stream(sha256)
            try:
                stream.write(content)
                stream.close()
            except FileExists:  # another was first, with the same bytes
                stream.abort()

        self._server.patiently(upload)
        return sha256

    def path(self, sha256: str) -> Path:
        """Return the path of a local copy of the bytes that have that hash.

        Raises
        ------
        LedgerError
            If there is no such artifact.
        LedgerCorruptedError
            If the server's bytes have another hash.
        """
        check_sha256(sha256)
        with suppress(LedgerError):
            return self._cache.path(sha256)

        def download() -> bytes:
            with self._bucket().open_download_stream_by_name(sha256) as stream:
                return bytes(stream.read())

        try:
            content = self._server.patiently(download)
        except NoFile:
            raise LedgerError(f"there is no artifact {sha256} in the database") from None
        except CorruptGridFile:
            raise LedgerCorruptedError(f"artifact {sha256} is damaged in the database") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise LedgerCorruptedError(
                f"artifact {sha256} is damaged in the database: its content has another hash"
            )
        self._cache.put(content)
        return self._cache.path(sha256)

    def sweep(self, older_than: timedelta = timedelta(days=1)) -> int:
        """Delete what uploads left behind that were killed long ago; return how many.

        Parameters
        ----------
        older_than
            Younger uploads are left alone: they may be going on.
        """
        limit = datetime.now(UTC) - older_than

        def delete() -> int:
            begun = self._chunks.distinct("files_id", {"n": 0})
            old = [name for name in begun if _begun(name) < limit]
            whole = {file["_id"] for file in self._files.find({"_id": {"$in": old}}, {"_id": 1})}
            lost = [name for name in old if name not in whole]
            if lost:
                self._chunks.delete_many({"files_id": {"$in": lost}})
            return len(lost)

        return self._server.patiently(delete)

    def close(self) -> None:
        """Give the connection back."""
        release(self._database)

    def _bucket(self) -> GridFSBucket:
        return GridFSBucket(self._database, BUCKET)


def _begun(name: ObjectId) -> datetime:
    return name.generation_time
