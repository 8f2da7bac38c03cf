"""A ledger opens where there is one, and damage is found before anything is written."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import subprocess
from functools import partial
from pathlib import Path

import pytest
from monty.json import MontyDecoder, MontyEncoder

from matloop.errors import ConfigurationError, LedgerCorruptedError, LedgerError
from matloop.ledger.opening import LedgerConfig, check_ledger, open_ledger, read_ledger
from matloop.ledger.sqlite import SQLiteStore


@pytest.fixture
def folder(tmp_path, candidate) -> Path:
    folder = tmp_path / "run"
    ledger = open_ledger(folder, create=True)
    ledger.add_candidates([candidate(index) for index in range(100)])
    ledger.close()
    return folder


def test_no_ledger_is_said_with_what_to_do(tmp_path):
    """Opening an empty folder names the command that starts a campaign, and makes nothing."""
    for opener in (open_ledger, read_ledger):
        with pytest.raises(LedgerError, match=r"no campaign in .* `matloop run CAMPAIGN"):
            opener(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_layout(folder):
    """A closed ledger is one file and the crystals beside it; no drafts are left."""
    assert sorted(path.name for path in folder.iterdir()) == ["artifacts", "ledger.sqlite"]


def _truncate_to_nothing(file):
    file.write_bytes(b"")


def _truncate(file):
    os.truncate(file, file.stat().st_size * 2 // 3)


def _overwrite_header(file):
    file.write_bytes(b"not a database at all\n" * 400)


def _overwrite_pages(file):
    with file.open("r+b") as raw:
        raw.seek(4096)
        raw.write(b"\xa5" * 4096 * 8)


def _another_database(file):
    file.unlink()
    with SQLiteStore(file, "outputs") as store:
        store.update({"task_id": 1})


def _another_version(file):
    with sqlite3.connect(file) as raw:
        raw.execute("PRAGMA user_version=99")
    raw.close()


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (_truncate_to_nothing, "is empty"),
        (_truncate, "damaged"),
        (_overwrite_header, "not an SQLite database"),
        (_overwrite_pages, "damaged"),
        (_another_database, "no ledger of matloop"),
        (_another_version, "schema version 99"),
    ],
)
@pytest.mark.parametrize("opener", [open_ledger, partial(open_ledger, create=True), read_ledger])
def test_damage_is_named_and_left_untouched(folder, damage, finding, opener):
    """Whoever opens a damaged file is told which and what; not a byte of it changes."""
    file = folder / "ledger.sqlite"
    damage(file)
    before = file.read_bytes(), file.stat().st_mtime_ns
    with pytest.raises(LedgerCorruptedError, match=finding) as caught:
        opener(folder)
    assert str(file) in str(caught.value)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_a_lost_file_with_a_log_is_not_started_anew(folder, candidate):
    """If only the write-ahead log is left, a new ledger would swallow it: refused."""
    ledger = open_ledger(folder)
    ledger.add_candidates([candidate(200)])
    (folder / "ledger.sqlite").rename(folder / "elsewhere")
    with pytest.raises(LedgerCorruptedError, match="missing"):
        open_ledger(folder, create=True)
    ledger.close()


def test_status_reads_while_a_run_writes(folder, candidate):
    """A reader sees each committed record of an open writer, and cannot write itself."""
    writer = open_ledger(folder)
    reader = read_ledger(folder)
    for index in range(100, 103):
        writer.add_candidates([candidate(index)])
        assert len(reader.candidates("mgo")) == index + 1
    with pytest.raises(LedgerError, match="reading only"):
        reader.add_candidates([candidate(500)])
    reader.close()
    writer.close()


def test_a_read_only_copy_can_be_read(folder):
    """An archived campaign on a read-only file system can still be reported."""
    mounted = folder.parent / "mounted"
    mounted.mkdir()
    mount = ["mount", "--bind", folder, mounted]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", mounted], check=True)
        ledger = read_ledger(mounted)
        assert len(ledger.candidates("mgo")) == 100
        ledger.close()
        with pytest.raises(LedgerError):
            open_ledger(mounted)
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_reading_a_killed_run_changes_nothing(folder, candidate):
    """The log that a killed run left is read by a reader, and kept for the next run."""
    ledger = open_ledger(folder)
    ledger.add_candidates([candidate(200)])
    copy = folder.parent / "copy"
    copy.mkdir()
    for name in ("ledger.sqlite", "ledger.sqlite-wal"):  # as a kill would leave them
        (copy / name).write_bytes((folder / name).read_bytes())
    shutil.copytree(folder / "artifacts", copy / "artifacts")
    ledger.close()
    before = (copy / "ledger.sqlite").read_bytes(), (copy / "ledger.sqlite-wal").read_bytes()
    reader = read_ledger(copy)
    assert len(reader.candidates("mgo")) == 101
    reader.close()
    assert ((copy / "ledger.sqlite").read_bytes(), (copy / "ledger.sqlite-wal").read_bytes()) == (
        before
    )


def test_configuration_travels_without_secrets(folder, candidate, monkeypatch):
    """Jobs carry it through MSON and pickling; it opens the ledger, and never holds the URI."""
    config = LedgerConfig(directory=str(folder))
    for copy in (
        MontyDecoder().decode(MontyEncoder().encode(config)),
        pickle.loads(pickle.dumps(config)),
    ):
        assert copy == config
    ledger = config.open()
    assert ledger.candidates("mgo", candidate_ids=["c0-7"]) == [candidate(7)]
    ledger.close()
    with pytest.raises(ConfigurationError, match="embedded or mongodb"):
        LedgerConfig(directory=".", kind="postgres")
    with pytest.raises(ConfigurationError, match="not the URI itself") as caught:
        LedgerConfig(directory=".", uri_variable="mongodb://me:secret@host")
    assert "secret" not in str(caught.value)
    mongo = LedgerConfig(directory=str(folder), kind="mongodb", uri_variable="NO_SUCH_URI")
    monkeypatch.delenv("NO_SUCH_URI", raising=False)
    with pytest.raises(ConfigurationError, match="NO_SUCH_URI is not set"):
        mongo.open()
    assert "secret" not in str(mongo.as_dict())


def test_an_unreachable_server_is_named_by_its_variable(tmp_path, monkeypatch):
    """No server: an error that names the variable, and not the password in it."""
    monkeypatch.setenv("MY_URI", "mongodb://me:secret@localhost:9/?serverSelectionTimeoutMS=100")
    config = LedgerConfig(
        directory=str(tmp_path), kind="mongodb", uri_variable="MY_URI", patience_seconds=0
    )
    with pytest.raises(LedgerError, match="MY_URI") as caught:
        config.open()
    assert "secret" not in str(caught.value)


def test_a_check_of_an_open_ledger_does_not_disturb_it(folder, candidate):
    """Checking beside an open transaction neither blocks nor breaks its locks."""
    ledger = open_ledger(folder)
    database = ledger._stores["candidates"]._database
    with database.transaction() as raw:
        raw.execute("DELETE FROM candidates")
        check_ledger(folder / "ledger.sqlite")
        other = sqlite3.connect(folder / "ledger.sqlite", timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
    assert ledger.candidates("mgo") == []
    ledger.close()
