"""Artifacts in GridFS: whole or not there, once, and checked on this side."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from bson import ObjectId

from matloop.errors import LedgerCorruptedError, LedgerError
from matloop.ledger.gridfs import BUCKET, GridFSArtifacts

pytestmark = pytest.mark.mongo


@pytest.fixture
def store(on_server, tmp_path):
    artifacts = GridFSArtifacts(on_server.server(), tmp_path / "copies" / "artifacts")
    yield artifacts
    artifacts.close()


def test_bytes_come_back_to_another_machine(store, on_server, tmp_path):
    """A second cache, as on another machine, gets the bytes; several chunks of GridFS, too."""
    content = os.urandom(700_000)
    sha256 = store.put(content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert store.path(sha256).read_bytes() == content
    other = GridFSArtifacts(on_server.server(), tmp_path / "elsewhere")
    assert other.path(sha256).read_bytes() == content
    other.close()


def test_many_writers_of_one_artifact_leave_one(store, on_server, tmp_path):
    """Eight writers at the same instant: one file, and no chunk that belongs to none."""
    content = b"x" * 600_000
    others = [GridFSArtifacts(on_server.server(), tmp_path / str(n)) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda other: other.put(content), others))
    store.put(content)
    assert names == {hashlib.sha256(content).hexdigest()}
    assert store._files.count_documents({}) == 1
    assert store._chunks.count_documents({}) == 3
    for other in others:
        other.close()


def test_half_an_upload_is_not_there(store):
    """Chunks without their file, as a kill leaves them, are neither read nor in the way."""
    content = b"y" * 300_000
    sha256 = hashlib.sha256(content).hexdigest()
    stream = store._bucket().open_upload_stream(sha256)
    stream.write(content)
    with pytest.raises(LedgerError, match="there is no artifact"):
        store.path(sha256)
    store.put(content)
    assert store.path(sha256).read_bytes() == content


def test_what_killed_uploads_left_is_swept(store):
    """Old chunks without a file go; young ones may belong to an upload that goes on."""
    kept = store.put(b"z" * 300_000)
    store._chunks.insert_one({"files_id": ObjectId(), "n": 0, "data": b"young"})
    old = ObjectId.from_datetime(ObjectId().generation_time - timedelta(days=2))
    store._chunks.insert_many([{"files_id": old, "n": n, "data": b"old"} for n in range(2)])
    assert store.sweep() == 1
    assert store.sweep() == 0
    assert store._chunks.count_documents({"data": b"young"}) == 1
    assert store.path(kept).read_bytes() == b"z" * 300_000


def test_a_damaged_copy_is_fetched_again(store):
    """What lies in the local folder is only believed if its hash is right."""
    sha256 = store.put(b"content")
    path = store.path(sha256)
    path.write_bytes(b"contend")
    assert store.path(sha256).read_bytes() == b"content"


def test_damage_on_the_server_is_said(store):
    """Bytes that are not what was stored are refused, and not kept as a copy."""
    sha256 = store.put(b"content")
    store._chunks.update_one({}, {"$set": {"data": b"contend"}})
    for _ in range(2):
        with pytest.raises(LedgerCorruptedError, match=sha256[:12]):
            store.path(sha256)


def test_unknown_names_are_refused(store):
    """No such artifact, or no name of one: one clear line."""
    with pytest.raises(LedgerError, match="there is no artifact"):
        store.path("0" * 64)
    with pytest.raises(LedgerError, match="is no sha256"):
        store.path("../../etc/passwd")


def test_the_bucket_has_its_indexes(store):
    """A name is unique among files, and a chunk within its file."""
    store.put(b"content")
    database = store._database
    files = database[f"{BUCKET}.files"].index_information()
    chunks = database[f"{BUCKET}.chunks"].index_information()
    assert files["filename_1"]["unique"]
    assert [index["key"] for index in chunks.values() if index.get("unique")] == [
        [("files_id", 1), ("n", 1)]
    ]
