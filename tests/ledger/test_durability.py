"""Kill anything, fill the disk: what was acknowledged is there, and nothing is half there."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from matloop.errors import LedgerFullError
from matloop.ledger.artifacts import FileArtifacts
from matloop.ledger.opening import check_ledger, open_ledger, read_ledger
from matloop.ledger.sqlite import SQLiteStore

TOGETHER = 5  # documents per transaction


def _append(say: Callable[[str], None], folder: Path, run: int) -> None:
    ledger = open_ledger(folder, create=True)
    store = SQLiteStore(folder / "ledger.sqlite", "numbers", key="n")
    store.connect()
    for i in count():
        name = f"{run}-{i}"
        store.update([{"n": f"{name}-{k}", "padding": "x" * 2000} for k in range(TOGETHER)])
        say(f"{name} {ledger.put_artifact('test', _content(name), 'text/plain').sha256}\n")


def _content(name: str) -> bytes:
    return name.encode() * 5000


def _begin(say: Callable[[str], None], folder: Path) -> None:
    say("ready\n")
    open_ledger(folder, create=True)


def _run_and_kill(
    action: Callable[..., None],
    *arguments: object,
    lines: int,
    seconds: float,
    seen: Callable[[], object] = lambda: True,
) -> list[str]:
    """Run an action in a process, kill it some time after so many lines; return what it said."""
    reading, writing = os.pipe()

    def act() -> None:
        action(lambda line: os.write(writing, line.encode()), *arguments)

    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    os.close(writing)
    with os.fdopen(reading) as said:
        begun = [said.readline() for _ in range(lines)]
        while not seen() and process.is_alive():
            time.sleep(0.001)
        time.sleep(seconds)
        process.kill()
        process.join()
        return [line.strip() for line in begun + said.readlines()]


def test_every_acknowledged_record_survives_kills(tmp_path):
    """After kills at random instants all acknowledged documents and artifacts are there, whole."""
    chance = random.Random(7)
    kills = 8
    acknowledged: dict[str, str] = {}
    for run in range(kills):
        said = _run_and_kill(_append, tmp_path, run, lines=4, seconds=chance.uniform(0, 0.05))
        acknowledged |= dict(line.split() for line in said)
    assert len(acknowledged) >= 4 * kills
    check_ledger(tmp_path / "ledger.sqlite")
    with SQLiteStore(tmp_path / "ledger.sqlite", "numbers", key="n") as store:
        assert store._database.rows("PRAGMA integrity_check") == [("ok",)]
        found = Counter(number.rsplit("-", 1)[0] for number in store.distinct("n"))
    assert set(found.values()) == {TOGETHER}, "half a transaction"
    assert acknowledged.keys() <= found.keys()
    assert len(found) - len(acknowledged) <= kills, "more than the one in flight per kill"
    ledger = read_ledger(tmp_path)
    for name, sha256 in acknowledged.items():
        assert ledger.artifact_path(sha256).read_bytes() == _content(name)
    for path in (tmp_path / "artifacts").glob("??/*"):
        assert ledger.artifact_path(path.name) == path  # every named file is whole
    ledger.close()


def test_a_kill_while_an_artifact_is_written_leaves_no_part_of_it(tmp_path):
    """Killed inside a large write, the file has no name yet; writing it again succeeds."""
    content = os.urandom(1_000_000) * 30
    unfinished = 0
    for step in range(6):
        folder = tmp_path / str(step)
        artifacts = FileArtifacts(folder)

        def begun(folder: Path = folder) -> bool:
            return any(folder.glob("partial/*"))

        _run_and_kill(_put, artifacts, content, lines=1, seconds=step * 0.002, seen=begun)
        named = list(folder.glob("??/*"))
        unfinished += begun() and not named
        for path in named:
            assert artifacts.path(path.name) == path
    assert unfinished, "no kill hit a write"
    assert artifacts.path(artifacts.put(content)).stat().st_size == len(content)


def _put(say: Callable[[str], None], artifacts: FileArtifacts, content: bytes) -> None:
    say("ready\n")
    artifacts.put(content)


def test_a_kill_while_the_ledger_is_made_leaves_a_good_one_or_none(tmp_path):
    """Killed at its very beginning, a campaign can simply be started again."""
    for step in range(12):
        folder = tmp_path / str(step)
        _run_and_kill(_begin, folder, lines=1, seconds=step * 0.002)
        ledger = open_ledger(folder, create=True)
        assert ledger.campaigns() == []
        ledger.close()


FILL = """
import pathlib, sys
from matloop.errors import LedgerFullError
from matloop.ledger.opening import open_ledger
from matloop.ledger.sqlite import SQLiteStore
folder = pathlib.Path(sys.argv[1])
ledger = open_ledger(folder, create=True)
store = SQLiteStore(folder / "ledger.sqlite", "numbers", key="n")
store.connect()
done = 0
try:
    while done < 5000:
        store.update([{"n": f"{done}-{part}", "padding": "x" * 3000} for part in range(2)])
        done += 1
except LedgerFullError as error:
    print(error)
    assert store.count() == 2 * done  # the connection still reads
try:
    ledger.put_artifact("test", b"x" * 20_000_000, "text/plain")
except LedgerFullError as error:
    print(error)
print(done)
"""


def _fill(folder: Path, limit: int | None) -> tuple[list[str], int]:
    def lower() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    result = subprocess.run(
        [sys.executable, "-c", FILL, str(folder)],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lower,
    )
    *messages, done = result.stdout.splitlines()
    return messages, int(done)


def _check_after_filling(folder: Path, messages: list[str], done: int) -> None:
    assert len(messages) == 2
    assert "ledger.sqlite" in messages[0]
    assert "artifact" in messages[1]
    assert all("free space" in message for message in messages)
    assert done > 10
    assert not list((folder / "artifacts").glob("??/*"))
    with SQLiteStore(folder / "ledger.sqlite", "numbers", key="n", read_only=True) as store:
        assert store.count() == 2 * done
        assert store._database.rows("PRAGMA integrity_check") == [("ok",)]


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    """On a real full file system: a clear error, everything recorded is there, and work resumes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        messages, done = _fill(disk, None)
        _check_after_filling(disk, messages, done)
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        with SQLiteStore(disk / "ledger.sqlite", "numbers", key="n") as store:
            store.update({"n": "after"})
            assert store.count() == 2 * done + 1
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_full_quota_is_said_and_loses_nothing(tmp_path):
    """A limit on the size of files has the same effect, without any right to mount."""
    messages, done = _fill(tmp_path, 2_000_000)
    _check_after_filling(tmp_path, messages, done)


def test_an_undone_transaction_leaves_the_ledger_usable(tmp_path, candidate):
    """When the database may not grow, the failed call is undone whole and smaller ones go on."""
    ledger = open_ledger(tmp_path, create=True)
    ledger.add_candidates([candidate(0)])
    raw = ledger._stores["candidates"]._database._raw
    raw.execute("PRAGMA max_page_count=80")
    with pytest.raises(LedgerFullError, match="everything recorded before is intact"):
        ledger.add_candidates([candidate(index) for index in range(1, 1000)])
    assert ledger.candidates("mgo") == [candidate(0)]
    raw.execute("PRAGMA max_page_count=100000")
    ledger.add_candidates([candidate(index) for index in range(1, 1000)])
    assert len(ledger.candidates("mgo")) == 1000
    ledger.close()
