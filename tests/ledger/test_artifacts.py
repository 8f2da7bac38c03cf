"""Artifacts are whole, or they are not there."""

from __future__ import annotations

import hashlib

import pytest

from matloop.errors import LedgerCorruptedError, LedgerError
from matloop.ledger.artifacts import FileArtifacts


def test_bytes_come_back_under_their_hash(tmp_path):
    """Files are named by their sha256 below two digits; writing again changes nothing."""
    artifacts = FileArtifacts(tmp_path / "artifacts")
    content = bytes(range(256)) * 500
    sha256 = artifacts.put(content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    path = artifacts.path(sha256)
    assert path == tmp_path / "artifacts" / sha256[:2] / sha256
    assert path.read_bytes() == content
    before = path.stat()
    assert artifacts.put(content) == sha256
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert list((tmp_path / "artifacts/partial").iterdir()) == []


def test_damage_is_named_and_can_be_repaired(tmp_path):
    """A changed file is reported and left alone; writing the right bytes again mends it."""
    artifacts = FileArtifacts(tmp_path)
    path = artifacts.path(artifacts.put(b"content"))
    path.write_bytes(b"contenX")
    with pytest.raises(LedgerCorruptedError, match=path.name):
        artifacts.path(path.name)
    assert path.read_bytes() == b"contenX"
    artifacts.put(b"content")
    assert artifacts.path(path.name).read_bytes() == b"content"


def test_unknown_and_impossible_names(tmp_path):
    """A missing artifact is an error; a name that is no hash never becomes a path."""
    artifacts = FileArtifacts(tmp_path)
    with pytest.raises(LedgerError, match="no artifact"):
        artifacts.path("0" * 64)
    with pytest.raises(LedgerError, match="no sha256"):
        artifacts.path("../../etc/passwd")
