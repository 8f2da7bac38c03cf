"""The SQLite store is a maggma store, with transactions and indexes."""

from __future__ import annotations

import multiprocessing
import pickle
import sqlite3
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from jobflow import Flow, JobStore, job, run_locally
from maggma.core import StoreError
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder

from matloop.errors import LedgerError
from matloop.ledger.sqlite import SQLiteStore


@pytest.fixture
def store(tmp_path):
    store = SQLiteStore(tmp_path / "s.sqlite", "things", key="n")
    store.connect()
    yield store
    store.close()


def test_update_replaces_by_key(store):
    """One document per key; replacing keeps its place; several fields may form the key."""
    store.update([{"n": 1, "v": "a"}, {"n": 2, "v": "b"}])
    store.update({"n": 1, "v": "c"})
    assert list(store.query()) == [{"n": 1, "v": "c"}, {"n": 2, "v": "b"}]
    store.update([{"n": 1, "v": "d"}, {"n": 2, "v": "b", "w": 1}], key=["n", "v"])
    assert store.count() == 3
    assert store.query_one({"n": 2}) == {"n": 2, "v": "b", "w": 1}
    store.update([{"n": 3, "v": 1}, {"n": 3, "v": 2}])
    assert store.query_one({"n": 3})["v"] == 2
    with pytest.raises(StoreError, match="'n'"):
        store.update({"v": 1})


def test_insert_new_lets_the_first_writer_win(store):
    """Documents whose key is there are left alone, and only the new ones are counted."""
    assert store.insert_new([{"n": 1, "v": "first"}, {"n": 2}, {"n": 2, "v": "twice"}]) == 2
    assert store.insert_new([{"n": 1, "v": "second"}, {"n": 3}]) == 1
    assert list(store.query()) == [{"n": 1, "v": "first"}, {"n": 2}, {"n": 3}]
    with pytest.raises(StoreError, match="text or an integer"):
        store.insert_new([{"n": None}])
    store.update([{"n": 4, "v": "x"}, {"n": 5, "v": "x"}])
    with pytest.raises(StoreError, match="same v"):
        store.insert_new([{"v": "y"}], key="v")


def test_a_call_is_all_or_nothing(store, tmp_path):
    """If one document of a call cannot be stored, none of it is."""
    store.update({"n": 0})
    with pytest.raises(StoreError):
        store.update([{"n": 1}, {"n": 2, "v": object()}])
    with pytest.raises(StoreError):
        store.update([{"n": 1}, {"v": "no key"}])
    store.ensure_index("n", unique=True)
    with pytest.raises(sqlite3.IntegrityError):  # found out in the middle of writing
        store.update([{"n": 1, "v": 1}, {"n": 1, "v": 2}], key="v")
    assert list(store.query()) == [{"n": 0}]


@pytest.mark.parametrize("indexed", [True, False])
def test_sort_skip_limit(store, indexed):
    """Sorted and paged results are the same with and without indexes."""
    store.update([{"n": n, "a": n % 3, "t": datetime(2026, 1, 1 + n)} for n in range(9)])
    if indexed:
        store.ensure_index(["a", "t"])
    found = store.query({"n": {"$gt": 0}}, ["n"], sort={"a": 1, "t": -1}, skip=1, limit=4)
    assert [document["n"] for document in found] == [3, 7, 4, 1]
    assert [document["n"] for document in store.query(sort={"t": -1}, limit=2)] == [8, 7]
    assert [document["n"] for document in store.query(skip=7)] == [7, 8]
    assert [document["n"] for document in store.query({"a": 1}, skip=1, limit=1)] == [4]


def test_groups_and_distinct_values_agree_with_the_memory_store(store):
    """`groupby` and `distinct` find what maggma's memory store finds, lists unwound."""
    documents = [
        {"n": n, "el": {"name": name}, "tags": tags}
        for n, (name, tags) in enumerate([("O", ["a"]), ("Ti", ["b", "a"]), ("O", [])])
    ] + [{"n": 3}]
    reference = MemoryStore(key="n")
    reference.connect()
    for each in (store, reference):
        each.update([dict(document) for document in documents])
    for criteria in (None, {"n": {"$lt": 2}}):
        ours = {k["el"]["name"]: [d["n"] for d in v] for k, v in store.groupby("el.name", criteria)}
        theirs = {
            k["el"]["name"]: [d["n"] for d in v]
            for k, v in reference.groupby("el.name", criteria, properties=["n"])
        }
        assert ours == theirs
        for field in ("el.name", "tags", "n", "absent"):
            assert sorted(store.distinct(field, criteria)) == sorted(
                reference.distinct(field, criteria)
            )


def test_newer_in_finds_what_changed(store, tmp_path):
    """Builders see the documents that are newer in the source."""
    target = SQLiteStore(tmp_path / "s.sqlite", "target", key="n")
    with target:
        assert target.last_updated == datetime.min
        old, new = datetime(2026, 1, 1), datetime(2026, 1, 1, 0, 0, 1)
        target.update([{"n": n, "last_updated": old} for n in range(3)])
        store.update([{"n": n, "last_updated": new if n > 1 else old} for n in range(4)])
        assert target.last_updated == old
        assert sorted(target.newer_in(store)) == [2, 3]
        assert sorted(target.newer_in(store, exhaustive=True)) == [2, 3]


def test_remove_docs(store):
    """Matching documents go, whether SQL or the matcher decides."""
    store.update([{"n": n, "tags": ["even"] if n % 2 == 0 else []} for n in range(6)])
    store.remove_docs({"n": {"$in": [0, 1]}})
    store.remove_docs({"tags": "even", "n": {"$gt": 2}})
    assert [document["n"] for document in store.query()] == [2, 3, 5]


def test_indexes_are_used(store):
    """A lookup by an indexed key searches the index and does not scan the collection."""
    store.update([{"n": n, "name": f"x{n}"} for n in range(50)])
    assert store.ensure_index("name", unique=True)
    assert store.ensure_index("name")
    statements: list[str] = []
    store._database._raw.set_trace_callback(statements.append)
    assert [d["n"] for d in store.query({"name": {"$in": ["x7", "x8"]}})] == [7, 8]
    store._database._raw.set_trace_callback(None)
    with sqlite3.connect(store.path) as raw:
        reads = [sql for sql in statements if "things" in sql and "SELECT" in sql]
        plans = [str(raw.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()) for sql in reads]
    assert any("SEARCH things USING INDEX" in plan for plan in plans)
    assert not any("SCAN things'" in plan for plan in plans)
    store.update([{"n": 51, "v": 1}, {"n": 52, "v": 1}])
    assert not store.ensure_index("v", unique=True)


def test_the_store_travels(store):
    """It survives MSON, pickling and a change of folder, and equals its copies."""
    store.update({"n": 1})
    for copy in (
        pickle.loads(pickle.dumps(store)),
        SQLiteStore.from_dict(store.as_dict()),
        MontyDecoder().decode(MontyEncoder().encode(store)),
    ):
        assert copy == store
        assert hash(copy) == hash(store)
        assert (copy.key, copy.path, copy.name) == ("n", store.path, store.name)
        with pytest.raises(StoreError, match="connect"):
            copy.count()
        with copy:
            assert copy.count() == 1
    assert store != SQLiteStore(store.path, "other")
    assert store != MemoryStore()


def test_collections_share_a_file_but_nothing_else(store):
    """Two collections of one file do not see each other; odd names are only names."""
    with SQLiteStore(store.path, 'the "other"; one', key="n") as other:
        other.update({"n": 1})
        store.update({"n": 2})
        assert other.distinct("n") == [1]
        assert store.distinct("n") == [2]


def test_reading_needs_no_write_access(store):
    """A reader sees what is committed, sees new collections, and is refused when it writes."""
    reader = SQLiteStore(store.path, "later", key="n", read_only=True)
    with reader:
        assert list(reader.query({"n": 1})) == []
        assert reader.count() == 0
        with SQLiteStore(store.path, "later", key="n") as writer:
            writer.update({"n": 1})
        assert list(reader.query({"n": 1})) == [{"n": 1}]
        assert not reader.ensure_index("v")
        with pytest.raises(LedgerError, match="reading only"):
            reader.remove_docs({})


@job(data="curve")
def _twice(x):
    return {"x": 2 * x, "curve": [x] * 10}


@job
def _total(xs):
    return sum(xs)


def test_jobflow_runs_on_it(tmp_path):
    """A flow with references and an additional store runs with the store behind its JobStore."""
    path = tmp_path / "jobs.sqlite"
    stores = JobStore(
        SQLiteStore(path, "outputs"), additional_stores={"data": SQLiteStore(path, "data")}
    )
    parts = [_twice(x) for x in range(4)]
    total = _total([part.output["x"] for part in parts])
    responses = run_locally(Flow([*parts, total]), store=stores, log=False)
    assert responses[total.uuid][1].output == 12
    assert stores.get_output(total.uuid) == 12
    assert stores.get_output(parts[3].uuid, load=True) == {"x": 6, "curve": [3] * 10}
    assert stores.count({"output.x": {"$gt": 2}}) == 2
    assert len(list(stores.groupby("name"))) == 2


def _write(path, writer, number):
    with SQLiteStore(path, "things", key="n") as store:
        for i in range(number):
            store.update([{"n": f"{writer}-{i}-{part}"} for part in "ab"])
            store.insert_new([{"key": f"shared-{i}", "writer": writer}], key="key")


def test_four_processes_write_at_once(tmp_path):
    """Nothing of four simultaneous writers is lost, and each shared key has one winner."""
    path, count = tmp_path / "s.sqlite", 40
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_write, args=(path, w, count)) for w in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    with SQLiteStore(path, "things", key="n") as store:
        expected = {f"{w}-{i}-{part}" for w in range(4) for i in range(count) for part in "ab"}
        assert store.count({"n": {"$exists": True}}) == len(expected)
        assert set(store.distinct("n")) == expected
        assert sorted(store.distinct("key")) == sorted(f"shared-{i}" for i in range(count))
        assert store.count({"key": {"$exists": True}}) == count
        assert store._database.rows("PRAGMA integrity_check") == [("ok",)]


def _write_one(store):
    store.update({"n": "child"})


def _is_refused(store):
    with pytest.raises(LedgerError, match="busy"):
        store.update({"n": "child"})


def test_a_forked_child_uses_a_connection_of_its_own(tmp_path):
    """A store used on both sides of a fork is sound; transactions are not inherited."""
    fork = multiprocessing.get_context("fork")
    with SQLiteStore(tmp_path / "s.sqlite", "things", key="n", busy_seconds=0.1) as store:
        store.update({"n": "before"})
        child = fork.Process(target=_write_one, args=(store,))
        child.start()
        child.join()
        assert child.exitcode == 0
        with store._database.transaction() as raw:
            raw.execute("DELETE FROM things")
            child = fork.Process(target=_is_refused, args=(store,))
            child.start()
            child.join()
            assert child.exitcode == 0
        store.update({"n": "after"})
        assert list(store.query()) == [{"n": "after"}]
        assert store._database.rows("PRAGMA integrity_check") == [("ok",)]


def test_threads_share_a_store(store):
    """Many threads may write through one store."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.update({"n": n}), range(100)))
    assert store.count() == 100


def test_every_document_has_a_checksum(tmp_path: Path) -> None:
    """Inserted and replaced documents carry the CRC-32 of what is stored."""
    file = tmp_path / "store.sqlite"
    store = SQLiteStore(file, "things", key="name")
    store.connect()
    store.insert_new([{"name": "a", "value": 1}, {"name": "b", "value": 2}])
    store.update({"name": "a", "value": 3})
    store.update({"name": "c", "value": 4})
    store.close()
    with closing(sqlite3.connect(file)) as raw:
        rows = raw.execute("SELECT doc, crc FROM things").fetchall()
    assert len(rows) == 3
    assert all(zlib.crc32(text.encode()) == crc for text, crc in rows)


def test_a_collection_made_before_checksums_gets_them(tmp_path: Path) -> None:
    """Its documents stay as they are; new ones are written with a checksum."""
    file = tmp_path / "store.sqlite"
    store = SQLiteStore(file, "things", key="name")
    store.connect()
    store.insert_new([{"name": "a"}])
    store.close()
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("ALTER TABLE things DROP COLUMN crc")
        raw.commit()
    reader = SQLiteStore(file, "things", key="name", read_only=True)
    reader.connect()
    assert [item["name"] for item in reader.query()] == ["a"]
    reader.close()
    store.connect()
    store.insert_new([{"name": "b"}])
    assert [item["name"] for item in store.query()] == ["a", "b"]
    store.close()
    with closing(sqlite3.connect(file)) as raw:
        checks = [crc for (crc,) in raw.execute("SELECT crc FROM things ORDER BY id")]
    assert checks[0] is None
    assert checks[1] is not None
