"""The test server behaves as MongoDB does, as far as it goes, and keeps what it acknowledged."""

from __future__ import annotations

import datetime
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import bson
import gridfs
import pytest
from bson import Int64, ObjectId
from fireworks import Firework, FWAction, FWorker, LaunchPad, PyTask, ScriptTask, Workflow
from fireworks.core.rocket_launcher import launch_rocket, rapidfire
from jobflow import Flow, JobStore, job, run_locally
from maggma.stores import GridFSStore, MongoStore
from pymongo import (
    ASCENDING,
    DESCENDING,
    DeleteOne,
    InsertOne,
    MongoClient,
    ReplaceOne,
    ReturnDocument,
    UpdateMany,
    UpdateOne,
)
from pymongo.errors import (
    BulkWriteError,
    CursorNotFound,
    DuplicateKeyError,
    OperationFailure,
    WriteError,
)

from matloop.testing.mongodb.databases import Databases
from matloop.testing.mongodb.journal import Journal, JournalDamagedError
from matloop.testing.mongodb.ordering import key
from matloop.testing.mongodb.process import ServerProcess

pytestmark = pytest.mark.mongo
Client = MongoClient[dict[str, Any]]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    own = os.environ.get("MATLOOP_TEST_MONGODB_URI")  # the same tests hold for a real server
    if own:
        yield own
        return
    with ServerProcess(tmp_path_factory.mktemp("server") / "journal") as server:
        yield server.uri


@pytest.fixture
def database(uri):
    with Client(uri) as client:
        name = f"matloop_test_{uuid4().hex[:8]}"
        yield client[name]
        client.drop_database(name)


@pytest.fixture
def books(database):
    return database["books"]


# --- documents and queries ------------------------------------------------------------------


def test_what_is_written_comes_back(books):
    """Every kind of value that drivers send, with its type and the order of its fields."""
    document = {
        "z": 1,
        "a": [1.5, None, {"b": True}],
        "id": ObjectId(),
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5, 678000),
        "raw": b"\x00\xff",
        "large": Int64(2**40),
        "ä.ö": {"": "empty name"},
    }
    name = books.insert_one(dict(document)).inserted_id
    found = books.find_one()
    assert found == {**document, "_id": name}
    assert list(found) == ["_id", *document]
    assert isinstance(found["large"], Int64)


def test_queries_with_and_without_index_agree(books):
    """200 random filters, sorts and limits: an index changes the speed of an answer only."""
    rng = random.Random(1)
    values = [None, 0, 1, 1.0, 2.5, "a", "b", [1, "a"], [], {"x": 1}, True, float("nan")]
    documents = [
        {
            "_id": n,
            **{name: rng.choice(values) for name in "abc" if rng.random() < 0.8},
            "deep": [{"x": rng.randrange(4)} for _ in range(rng.randrange(3))],
            "day": datetime.datetime(2026, 1, 1 + rng.randrange(20)),
        }
        for n in range(400)
    ]
    books.insert_many(documents)
    scalars = [0, 1, 2.5, "a", None, True]

    def ask() -> tuple[dict[str, Any], list[tuple[str, int]]]:
        criteria: dict[str, Any] = {}
        for name in rng.sample(["a", "b", "c", "deep.x", "_id"], rng.randrange(1, 4)):
            operand = rng.choice(scalars) if name in "abc" else rng.randrange(4)
            criteria[name] = rng.choice(
                [operand, {"$in": [operand, 1, "b"]}, {"$eq": operand}, {"$gte": 1}, {"$ne": 0}]
            )
        if rng.random() < 0.3:
            criteria = {"$and": [criteria, {"day": {"$lt": datetime.datetime(2026, 1, 15)}}]}
        sort = [(rng.choice(["day", "a", "b"]), rng.choice([1, -1])), ("_id", 1)]
        return criteria, sort

    questions = [ask() for _ in range(200)]

    def answers() -> list[list[int]]:
        return [
            [found["_id"] for found in books.find(criteria, {"_id": 1}).sort(sort).limit(7)]
            for criteria, sort in questions
        ]

    plain = answers()
    for keys in (
        "a",
        "b",
        "day",
        [("a", 1), ("b", 1), ("day", -1)],
        "deep.x",
        [("c", 1), ("a", 1)],
    ):
        books.create_index(keys)
    for question, found, expected in zip(questions, answers(), plain, strict=True):
        assert found == expected, question
    assert sum(map(bool, plain)) > 100


def test_an_index_keeps_up_with_changes(books):
    """After updates and deletions an indexed query finds what is there now, and nothing else."""
    books.create_index("state")
    books.create_index([("kind", 1), ("state", 1)])
    rng = random.Random(2)
    truth: dict[int, tuple[str, str]] = {}
    for turn in range(600):
        name = rng.randrange(60)
        kind, state = rng.choice("xy"), rng.choice(["READY", "RUNNING", "DONE"])
        if rng.random() < 0.2:
            books.delete_one({"_id": name})
            truth.pop(name, None)
        else:
            change = {"$set": {"kind": kind, "state": state, "turn": turn}}
            books.update_one({"_id": name}, change, upsert=True)
            truth[name] = (kind, state)
    for kind, state in itertools.product("xy", ["READY", "RUNNING", "DONE"]):
        expected = {name for name, value in truth.items() if value == (kind, state)}
        found = books.find({"kind": kind, "state": state})
        assert {document["_id"] for document in found} == expected
        assert books.count_documents({"kind": kind, "state": {"$in": [state]}}) == len(expected)


def test_sorting_follows_mongodbs_order_of_types(books):
    """Null before numbers before texts before objects, arrays by their least or greatest member."""
    books.insert_many([{"v": value} for value in ("a", 2, None, {"x": 1}, [0, 9], True)])
    books.insert_one({})
    up = [document.get("v", "none") for document in books.find().sort("v", 1)]
    assert up[:2] in ([None, "none"], ["none", None])
    assert up[2:] == [[0, 9], 2, "a", {"x": 1}, True]
    down = [document.get("v") for document in books.find().sort("v", -1)]
    assert down[:5] == [True, {"x": 1}, "a", [0, 9], 2]


def test_equality_is_mongodbs():
    """1 is 1.0 but not true; text is not bytes; nested values count."""
    assert key(1) == key(1.0) == key(Int64(1))
    assert key(1) != key(True)
    assert key("a") != key(b"a")
    assert key({"a": 1, "b": 2}) != key({"b": 2, "a": 1})
    assert key([1, [2]]) == key([1.0, [2]])
    assert key(float("nan")) == key(float("nan")) < key(-1e300)


def test_batches_and_cursors(books):
    """Answers come in batches of the size asked for; a cursor that was killed is gone."""
    books.insert_many([{"_id": n, "text": "x" * 1000} for n in range(1000)])
    assert [d["_id"] for d in books.find(batch_size=7).sort("_id", -1)] == list(range(999, -1, -1))
    assert len(list(books.find().skip(990))) == 10
    assert [d["_id"] for d in books.find().sort("_id", 1).skip(5).limit(3)] == [5, 6, 7]
    cursor = books.find(batch_size=10)
    next(cursor)
    books.database.command("killCursors", "books", cursors=[cursor.cursor_id])
    with pytest.raises(CursorNotFound):
        list(cursor)


def test_answers_larger_than_a_message(books):
    """60 MB of documents come back, no batch longer than a message may be."""
    books.insert_many([{"_id": n, "data": b"x" * 5_000_000} for n in range(12)])
    assert [len(document["data"]) for document in books.find()] == [5_000_000] * 12


def test_projections(books):
    """Fields are included, excluded, and reached by dotted names."""
    books.insert_one({"_id": 1, "a": 1, "b": {"c": 2, "d": 3}})
    assert books.find_one({}, {"a": 1}) == {"_id": 1, "a": 1}
    assert books.find_one({}, {"a": 0}) == {"_id": 1, "b": {"c": 2, "d": 3}}
    assert books.find_one({}, {"b.d": 1, "_id": 0}) == {"b": {"d": 3}}


def test_aggregation(database, books):
    """Stages of FireWorks and maggma: match, sort, group, unwind, lookup, count."""
    books.insert_many([{"n": n, "kind": "ab"[n % 2], "parts": [n, n + 1]} for n in range(10)])
    database["names"].insert_many([{"kind": "a", "name": "Anna"}, {"kind": "b", "name": "Bo"}])
    grouped = books.aggregate(
        [{"$match": {"n": {"$gte": 4}}}, {"$group": {"_id": "$kind", "sum": {"$sum": "$n"}}}]
    )
    assert {group["_id"]: group["sum"] for group in grouped} == {"a": 18, "b": 21}
    assert list(books.aggregate([{"$match": {"kind": "a"}}, {"$count": "c"}])) == [{"c": 5}]
    assert books.count_documents({"kind": "b"}, skip=1, limit=3) == 3
    joined = books.aggregate(
        [
            {"$match": {"n": 3}},
            {
                "$lookup": {
                    "from": "names",
                    "localField": "kind",
                    "foreignField": "kind",
                    "as": "who",
                }
            },
            {"$unwind": "$who"},
            {"$project": {"_id": 0, "name": "$who.name"}},
        ]
    )
    assert list(joined) == [{"name": "Bo"}]
    latest = books.aggregate(
        [{"$sort": {"n": -1}}, {"$limit": 2}, {"$project": {"n": True, "_id": False}}]
    )
    assert list(latest) == [{"n": 9}, {"n": 8}]
    assert sorted(books.distinct("parts", {"n": {"$lt": 2}})) == [0, 1, 2]


# --- writing --------------------------------------------------------------------------------


def test_update_operators(books):
    """Set, unset, increment, push, pull, rename, array filters, positional, set on insert."""
    books.insert_one({"_id": 1, "n": 1, "list": [1, 2], "rows": [{"k": 1, "v": 0}, {"k": 2}]})
    books.update_one({"_id": 1}, {"$inc": {"n": 2}, "$push": {"list": 3}, "$set": {"a.b": 5}})
    books.update_one({"_id": 1}, {"$pull": {"list": 1}, "$rename": {"n": "m"}})
    books.update_one({"_id": 1, "rows.k": 2}, {"$set": {"rows.$.v": 9}})
    books.update_one({"_id": 1}, {"$set": {"rows.$[r].w": 7}}, array_filters=[{"r.k": 1}])
    books.update_one({"_id": 1}, {"$unset": {"a.b": ""}, "$setOnInsert": {"never": 1}})
    assert books.find_one() == {
        "_id": 1,
        "list": [2, 3],
        "rows": [{"k": 1, "v": 0, "w": 7}, {"k": 2, "v": 9}],
        "a": {},
        "m": 3,
    }
    assert books.update_one({"_id": 1}, {"$set": {"m": 3}}).modified_count == 0
    with pytest.raises(WriteError, match="_id"):
        books.update_one({"_id": 1}, {"$set": {"_id": 2}})


def test_upserts(books):
    """What the filter demands and what the update sets; the second time nothing is inserted."""
    change = {"$setOnInsert": {"b": 2, "c": {"d": 1}}, "$set": {"e": 3}}
    first = books.update_one(
        {"key": "k", "c.d": 1, "$and": [{"f": {"$eq": 4}}]}, change, upsert=True
    )
    assert books.find_one({}, {"_id": 0}) == {"key": "k", "c": {"d": 1}, "f": 4, "b": 2, "e": 3}
    assert first.upserted_id == books.find_one()["_id"]
    again = books.update_one({"key": "k"}, {"$setOnInsert": {"b": 9}}, upsert=True)
    assert (again.matched_count, again.modified_count, again.upserted_id) == (1, 0, None)
    books.replace_one({"_id": "new"}, {"x": 1}, upsert=True)
    assert books.find_one("new") == {"_id": "new", "x": 1}


def test_bulk_writes_report_each_document(books):
    """Unordered: what fails is reported by its number, and the rest is done; ordered: it ends."""
    books.create_index("key", unique=True)
    requests = [
        InsertOne({"key": 1}),
        InsertOne({"key": 1}),
        UpdateOne({"key": 2}, {"$setOnInsert": {"x": 1}}, upsert=True),
        UpdateOne({"key": 1}, {"$set": {"x": 5}}),
        UpdateMany({}, {"$set": {"seen": True}}),
        ReplaceOne({"key": 3}, {"key": 2}, upsert=True),
        DeleteOne({"key": 1}),
        InsertOne({"key": 4}),
    ]
    with pytest.raises(BulkWriteError) as caught:
        books.bulk_write(requests, ordered=False)
    details = caught.value.details
    assert [(error["index"], error["code"]) for error in details["writeErrors"]] == [
        (1, 11000),
        (5, 11000),
    ]
    assert details["writeErrors"][0]["keyValue"] == {"key": 1}
    assert [item["index"] for item in details["upserted"]] == [2]
    assert (details["nInserted"], details["nModified"], details["nRemoved"]) == (2, 4, 1)
    assert sorted(books.distinct("key")) == [2, 4]
    with pytest.raises(BulkWriteError) as caught:
        books.insert_many([{"key": 5}, {"key": 4}, {"key": 6}], ordered=True)
    assert caught.value.details["nInserted"] == 1
    assert sorted(books.distinct("key")) == [2, 4, 5]


def test_unique_indexes(books):
    """Compound, sparse, over members of arrays, and refused where documents disagree already."""
    books.insert_many([{"a": 1, "b": 1}, {"a": 1, "b": 2}])
    with pytest.raises(DuplicateKeyError):
        books.create_index("a", unique=True)
    assert "a_1" not in books.index_information()
    books.create_index([("a", ASCENDING), ("b", DESCENDING)], unique=True)
    with pytest.raises(DuplicateKeyError):
        books.insert_one({"a": 1.0, "b": 2})
    with pytest.raises(DuplicateKeyError):
        books.update_one({"b": 1}, {"$set": {"b": 2}})
    assert books.count_documents({"b": 1}) == 1  # a refused update leaves all as it was
    books.create_index("tags", unique=True, sparse=True)
    books.insert_many([{"a": 2, "tags": ["x", "y"]}, {"a": 3}, {"a": 4}])
    with pytest.raises(DuplicateKeyError):
        books.insert_one({"a": 5, "tags": ["z", "y"]})
    books.drop_index("a_1_b_-1")
    books.insert_one({"a": 1, "b": 2})
    with pytest.raises(OperationFailure):
        books.drop_index("a_1_b_-1")


def test_index_options_must_agree(books):
    """Making an index again changes nothing; with other options it is refused."""
    assert books.create_index("a") == books.create_index("a") == "a_1"
    with pytest.raises(OperationFailure) as caught:
        books.create_index("a", unique=True)
    assert caught.value.code in (85, 86)
    assert books.index_information()["a_1"]["key"] == [("a", 1)]


def test_documents_beyond_16_mb_are_refused(books):
    """Also where an update makes one too large; it stays as it was."""
    large = "x" * (16 * 1024 * 1024)
    try:  # a server refuses the command, or reports it within its answer
        said = str(books.database.command("insert", "books", documents=[{"_id": 1, "x": large}]))
    except OperationFailure as error:
        said = str(error)
    assert "too large" in said or "larger" in said
    assert books.count_documents({}) == 0
    books.insert_one({"_id": 1, "x": large[: 9 * 1024 * 1024]})
    with pytest.raises(WriteError, match="larger"):
        books.update_one({"_id": 1}, {"$set": {"y": large[: 9 * 1024 * 1024]}})
    assert list(books.find_one()) == ["_id", "x"]


def test_find_and_modify(books):
    """Before and after, sorted, upserted, removed."""
    books.insert_many([{"n": n, "state": "READY"} for n in (1, 3, 2)])
    taken = books.find_one_and_update(
        {"state": "READY"}, {"$set": {"state": "RUNNING"}}, sort=[("n", -1)]
    )
    assert (taken["n"], taken["state"]) == (3, "READY")
    after = books.find_one_and_update(
        {"n": 3}, {"$inc": {"count": 1}}, return_document=ReturnDocument.AFTER
    )
    assert (after["state"], after["count"]) == ("RUNNING", 1)
    assert books.find_one_and_update({"n": 9}, {"$set": {"x": 1}}) is None
    assert books.find_one_and_update({"n": 9}, {"$set": {"x": 1}}, upsert=True) is None
    assert books.find_one_and_delete({"n": 9})["x"] == 1
    replaced = books.find_one_and_replace({"n": 1}, {"new": 1}, return_document=True)
    assert replaced["new"] == 1
    assert "n" not in replaced


def test_collections_and_databases(database):
    """Made by their first document, listed, renamed, dropped."""
    client = database.client
    assert database.name not in client.list_database_names()
    assert list(database["none"].find()) == []
    assert database.list_collection_names() == []
    database["a"].insert_one({"_id": 1})
    database["a"].create_index("x")
    database["a"].rename("b")
    assert database.list_collection_names() == ["b"]
    assert "x_1" in database["b"].index_information()
    assert database["b"].estimated_document_count() == 1
    assert database.name in client.list_database_names()
    database.drop_collection("b")
    assert database.list_collection_names() == []


def test_unknown_things_are_refused(database, books):
    """An unknown command, operator or stage is an error of its own code, and the server lives."""
    for command, code in (("noSuchCommand", 59), ("hello", None)):
        if code:
            with pytest.raises(OperationFailure) as caught:
                database.command(command)
            assert caught.value.code == code
        else:
            assert database.command(command)["isWritablePrimary"]
    books.insert_one({"a": 1})
    with pytest.raises(OperationFailure):
        list(books.find({"a": {"$noSuch": 1}}))
    with pytest.raises(OperationFailure):
        books.update_one({}, {"$noSuch": {"a": 1}})
    with pytest.raises(OperationFailure):
        list(books.aggregate([{"$noSuch": {}}]))
    assert books.count_documents({}) == 1


def test_code_in_queries_is_not_run(uri, books):
    """The test server evaluates nobody's code."""
    if os.environ.get("MATLOOP_TEST_MONGODB_URI"):
        pytest.skip("MongoDB runs JavaScript, if it is configured to")
    books.insert_one({"a": 1})
    for criteria in ({"$where": "this.a == 1"}, {"$or": [{"a": 2}, {"$where": "1"}]}):
        with pytest.raises(OperationFailure, match="where"):
            list(books.find(criteria))
        with pytest.raises(OperationFailure, match="where"):
            list(books.aggregate([{"$match": criteria}]))


def test_sessions(database, books):
    """Explicit sessions are accepted; transactions are not, as on any single server."""
    with database.client.start_session() as session:
        books.insert_one({"a": 1}, session=session)
        assert books.find_one({}, session=session)["a"] == 1


# --- many clients ---------------------------------------------------------------------------


def test_writers_of_one_key(uri, database):
    """Sixteen clients insert the same 100 keys, counters are raised: nothing twice, none lost."""
    books = database["books"]
    books.create_index("key", unique=True)
    won: list[int] = []

    def write() -> None:
        with Client(uri) as client:
            mine = client[database.name]["books"]
            count = 0
            for n in range(100):
                try:
                    mine.insert_one({"key": n})
                    count += 1
                except DuplicateKeyError:
                    pass
                mine.update_one({"_id": "counter"}, {"$inc": {"n": 1}}, upsert=True)
            won.append(count)

    threads = [threading.Thread(target=write) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == 100
    assert books.count_documents({"key": {"$type": "number"}}) == 100
    assert books.find_one("counter")["n"] == 1600


def test_finding_by_key_does_not_slow_down(books):
    """500 keys among 40,000 documents take milliseconds, about as long as among 1,000."""
    books.create_index("key", unique=True)

    def seconds(count: int) -> float:
        asked = [f"key{n * (count // 500)}" for n in range(500)]
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            assert len(list(books.find({"key": {"$in": asked}}, {"key": 1}))) == 500
            best = min(best, time.perf_counter() - start)
        return best

    books.insert_many([{"key": f"key{n}", "n": n} for n in range(1000)])
    few = seconds(1000)
    books.insert_many([{"key": f"key{n}", "n": n} for n in range(1000, 40_000)])
    many = seconds(40_000)
    assert many < 0.2
    assert many < 5 * few + 0.01


def test_what_has_lived_its_time_is_deleted():
    """A time-to-live index deletes documents whose date is past by its seconds, and no others."""
    databases = Databases(None)
    collection = databases.collection("d.c", create=True)
    databases.build_index("d.c", {"key": {"at": 1}, "name": "at_1", "expireAfterSeconds": 60})
    now = datetime.datetime(2026, 1, 1)
    for n, at in enumerate([now, now - datetime.timedelta(seconds=61), None, "yesterday"]):
        collection.insert(bson.encode({"_id": n, "at": at}))
    assert collection.expire(now) == 1
    assert [stored.fields["_id"] for stored in collection] == [0, 2, 3]


# --- the journal ----------------------------------------------------------------------------

WRITE = """
import sys
from pymongo import MongoClient
books = MongoClient(sys.argv[1])["d"]["books"]
for n in range(10**9):
    books.insert_one({"_id": f"{sys.argv[2]}-{n}"})
    if n % 3 == 0:
        books.update_one({"_id": f"{sys.argv[2]}-{n}"}, {"$set": {"n": n}})
    if n % 5 == 0:
        books.delete_one({"_id": f"{sys.argv[2]}-{n}"})
    print(n, flush=True)
"""


@pytest.mark.parametrize("fsync", ["interval", "each"])
def test_acknowledged_writes_survive_kill_9(tmp_path, fsync):
    """Three processes write, the server is killed, twice: what was acknowledged is there."""
    server = ServerProcess(tmp_path / "journal", fsync=fsync)
    for turn in range(2):
        server.start()
        command = [sys.executable, "-c", WRITE, server.uri]
        names = [f"{turn}.{writer}" for writer in range(3)]
        writers = [
            subprocess.Popen(
                [*command, name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            for name in names
        ]
        for writer in writers:
            writer.stdout.readline()
        time.sleep(0.3)
        server.kill()
        for writer in writers:
            writer.kill()
        counts = [len(writer.communicate()[0].splitlines()) for writer in writers]
        server.start()
        with Client(server.uri) as client:
            books = client["d"]["books"]
            for name, count in zip(names, counts, strict=True):
                assert count > 3
                for n in range(count + 1):
                    found = books.find_one(f"{name}-{n}")
                    assert (found is None) == (n % 5 == 0)
                    assert found is None or found.get("n", 0) == (n if n % 3 == 0 else 0)
        server.stop()


def test_indexes_and_drops_survive_too(tmp_path):
    """Unique indexes, dropped indexes and collections, new names, GridFS; over two restarts."""
    server = ServerProcess(tmp_path / "journal")
    server.start()
    with Client(server.uri) as client:
        d = client["d"]
        d["a"].create_index("key", unique=True)
        d["a"].create_index("other")
        d["a"].drop_index("other_1")
        d["a"].insert_one({"key": 1})
        d["gone"].insert_one({})
        d["gone"].drop()
        d["a"].rename("b")
        file = gridfs.GridFS(d).put(b"x" * 600_000)
    for _ in range(2):
        server.kill()
        server.start()
    with Client(server.uri) as client:
        d = client["d"]
        assert sorted(d.list_collection_names()) == ["b", "fs.chunks", "fs.files"]
        assert sorted(d["b"].index_information()) == ["_id_", "key_1"]
        with pytest.raises(DuplicateKeyError):
            d["b"].insert_one({"key": 1})
        assert len(gridfs.GridFS(d).get(file).read()) == 600_000
    server.stop()


def test_the_journal_shrinks_on_start(tmp_path):
    """What was overwritten is not kept for ever."""
    server = ServerProcess(tmp_path / "journal")
    server.start()
    with Client(server.uri) as client:
        for n in range(200):
            client["d"]["a"].replace_one({"_id": 1}, {"n": n, "text": "x" * 1000}, upsert=True)
    before = (tmp_path / "journal").stat().st_size
    server.kill()
    server.start()
    assert (tmp_path / "journal").stat().st_size < before / 50
    with Client(server.uri) as client:
        assert client["d"]["a"].find_one()["n"] == 199
    server.stop()


def test_half_a_record_is_cut_off_and_damage_is_refused(tmp_path):
    """A torn end is what a kill leaves; wrong bytes before it are damage, and left untouched."""
    path = tmp_path / "journal"
    journal = Journal(path)
    assert list(journal.replay()) == []
    journal.compact([{"o": "create", "n": f"d.c{n}"} for n in range(3)])
    journal.close()
    whole = path.read_bytes()
    for cut in range(1, 30):
        path.write_bytes(whole[:-cut])
        journal = Journal(path)
        assert [record["n"] for record in journal.replay()] == ["d.c0", "d.c1"]
        journal.close()
    path.write_bytes(whole[:40] + b"?" + whole[41:])
    journal = Journal(path)
    with pytest.raises(JournalDamagedError, match="damaged at byte"):
        list(journal.replay())
    path.write_bytes(b"something else altogether")
    with pytest.raises(JournalDamagedError, match="no journal"):
        list(journal.replay())


def test_one_server_per_journal(tmp_path):
    """A second server on the same journal says so and ends."""
    with ServerProcess(tmp_path / "journal"):
        command = [sys.executable, "-m", "matloop.testing.mongodb_server"]
        done = subprocess.run(
            [*command, "--journal", str(tmp_path / "journal")],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "another server uses" in done.stderr


# --- the programs it is for -----------------------------------------------------------------


@pytest.fixture
def pad(uri, database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    launchpad = LaunchPad(uri, name=database.name, uri_mode=True, strm_lvl="CRITICAL")
    launchpad.reset("", require_password=False)
    return launchpad


def detour() -> FWAction:
    return FWAction(detours=[Firework(PyTask(func="time.time"), name="detour")])


def test_fireworks_runs_workflows(pad):
    """Dependencies, a detour, a failure, and rerunning it."""
    first = Firework(PyTask(func="time.time"), name="first")
    second = Firework(PyTask(func=f"{__name__}.detour"), name="second")
    third = Firework(ScriptTask.from_str("test -e go"), name="third")
    pad.add_wf(Workflow([first, second, third], {first: [second], second: [third]}))
    assert pad.get_fw_ids({"state": "WAITING"}, count_only=True) == 2
    rapidfire(pad, strm_lvl="CRITICAL")
    assert pad.get_fw_ids({"state": "COMPLETED"}, count_only=True) == 3
    (failed,) = pad.get_fw_ids({"name": "third", "state": "FIZZLED"})
    Path("go").touch()
    pad.update_spec([failed], {"_tasks": [ScriptTask.from_str("true").to_dict()]})
    pad.rerun_fw(failed)
    rapidfire(pad, strm_lvl="CRITICAL")
    assert pad.get_wf_by_fw_id(failed).state == "COMPLETED"
    assert pad.get_fw_ids_in_wfs({"state": "COMPLETED"}, {"name": "third"}) == [failed]


def test_fireworks_finds_lost_runs_and_reservations(pad):
    """A run without heartbeat and a reservation without job are found and made ready again."""
    pad.add_wf(Workflow([Firework(PyTask(func="time.time"))]))
    pad.add_wf(Workflow([Firework(PyTask(func="time.time"))]))
    reserved, _ = pad.reserve_fw(FWorker(), ".")
    running, launch = pad.checkout_fw(FWorker(), ".")
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    pad.ping_launch(launch, ptime=long_ago)
    pad.launches.update_many({}, {"$set": {"state_history.0.updated_on": long_ago.isoformat()}})
    _, lost, _ = pad.detect_lostruns(expiration_secs=60, rerun=True)
    assert lost == [running.fw_id]
    assert pad.detect_unreserved(expiration_secs=60, rerun=True)
    states = {fw["state"] for fw in pad.fireworks.find({}, {"state": 1})}
    assert states == {"READY"}
    assert reserved.fw_id != running.fw_id
    rapidfire(pad, strm_lvl="CRITICAL")
    assert pad.get_fw_ids({"state": "COMPLETED"}, count_only=True) == 2


def test_checkout_stays_fast_with_many_fireworks(pad):
    """10,000 fireworks wait: a checkout by category and an update by id take milliseconds."""
    pad.bulk_add_wfs(
        [
            Workflow([Firework(PyTask(func="time.time"), spec={"_category": "ab"[n % 2]})])
            for n in range(10_000)
        ]
    )
    worker = FWorker("b", category="b")
    start = time.perf_counter()
    for n in range(20):
        assert pad._get_a_fw_to_run(query=worker.query).fw_id is not None
        pad.fireworks.update_one({"fw_id": n}, {"$set": {"spec.seen": True}})
    assert (time.perf_counter() - start) / 20 < 0.1
    pad.set_priority(9_998, 5)
    assert pad._get_a_fw_to_run(query=worker.query, checkout=False).fw_id in (9_998, 10_000, 2)
    assert launch_rocket(pad, worker, strm_lvl="CRITICAL")


def test_maggma_stores(uri, database):
    """Documents, groups, and blobs that come back whole."""
    with MongoStore.from_uri(uri, "things", database=database.name, key="k") as store:
        store.ensure_index("k", unique=True)
        store.update([{"k": n, "kind": n % 2, "last_updated": n} for n in range(10)])
        store.update([{"k": 1, "kind": 5}])
        assert store.count() == 10
        assert {group["kind"]: len(some) for group, some in store.groupby("kind")} == {
            0: 5,
            1: 4,
            5: 1,
        }
        assert sorted(store.distinct("kind")) == [0, 1, 5]
        assert store.query_one({"k": 1}, ["kind"])["kind"] == 5
    with GridFSStore.from_uri(uri, "blobs", database=database.name, key="k") as store:
        blob = {"k": 1, "data": list(range(100_000))}
        store.update([blob])
        store.update([blob])
        assert store.query_one({"k": 1})["data"] == blob["data"]
        assert store.count() == 1


@job(data="blob")
def work(n: int) -> dict[str, object]:
    return {"n": n, "blob": ["x"] * 100_000}


@job
def take(previous: dict[str, Any]) -> int:
    return len(previous["blob"])


def test_jobflow(uri, database):
    """A flow with a blob runs on it, and the blob is resolved for the job that asks."""
    store = JobStore(
        MongoStore.from_uri(uri, "outputs", database=database.name),
        {"data": GridFSStore.from_uri(uri, "blobs", database=database.name)},
    )
    first = work(3)
    second = take(first.output)
    outputs = run_locally(Flow([first, second]), store=store, ensure_success=True, log=False)
    assert outputs[second.uuid][1].output == 100_000
    store.close()
