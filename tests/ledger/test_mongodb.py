"""The ledger on a MongoDB server: many writers, a server that dies, and no secret anywhere."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import uuid4

import bson
import pytest
from fireworks import LaunchPad, Workflow
from fireworks.core.rocket_launcher import rapidfire
from jobflow import Flow, JobStore, Response, job
from jobflow.managers.fireworks import flow_to_workflow
from pymongo import MongoClient

from matloop.errors import ConfigurationError, LedgerError
from matloop.ledger.job_store import index_job_store, job_store
from matloop.ledger.opening import LedgerConfig
from matloop.ledger.server import Server
from matloop.ledger.server_store import ServerStore
from matloop.ledger.store_ledger import COLLECTIONS
from matloop.testing.mongodb.process import ServerProcess

pytestmark = pytest.mark.mongo

# Writes for a while, and says what was acknowledged; its energies tell who wrote a document.
WRITER = """
import json, sys
from datetime import UTC, datetime
from matloop.documents.campaign import IterationState
from matloop.documents.evaluation import Cost, Evaluation, EvaluationRecord
from matloop.documents.candidate import Quantity
from matloop.ledger.opening import LedgerConfig

config, me, first, count = json.loads(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:])
ledger = LedgerConfig.from_dict(config).open()
now = datetime.now(UTC)
print("ready", flush=True)
sys.stdin.readline()
for i in range(first, first + count):
    ledger.add_evaluations([
        EvaluationRecord(
            key=f"k{key}", structure_digest="0" * 64, evaluator="e", method="m", recorded_at=now,
            evaluation=Evaluation(candidate_id=f"c{me}", verdict="pass", reason="fine",
                quantities={"energy": Quantity(value=me, unit="eV/atom")}, cost=Cost(seconds=1)),
        )
        for key in range(4 * i, 4 * i + 4)
    ])
    won = ledger.add_state(IterationState(
        campaign_id="mgo", iteration=i, status="running", reason=str(me), created_at=now))
    print(json.dumps({"i": i, "won": won}), flush=True)
"""


def writer(config: LedgerConfig, me: int, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, json.dumps(config.as_dict()), str(me)]
    process = subprocess.Popen(
        [*command, str(first), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> list[dict[str, object]]:
    out, _ = process.communicate("go\n", timeout=120)
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


def together(processes: list[subprocess.Popen[str]]) -> list[list[dict[str, object]]]:
    found: dict[int, list[dict[str, object]]] = {}
    threads = [
        threading.Thread(target=lambda n=n, p=p: found.update({n: go(p)}))
        for n, p in enumerate(processes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[n] for n in range(len(processes))]


def test_the_first_of_several_processes_wins(on_server):
    """Three processes write the same keys: each is there once, and one alone was told it won."""
    on_server.open().close()
    said = together([writer(on_server, me, 0, 40) for me in range(3)])
    ledger = on_server.open()
    results = ledger.evaluations(f"k{n}" for n in range(160))
    assert len(results) == 160
    states = ledger.states("mgo")
    assert [state.iteration for state in states] == list(range(40))
    for state in states:
        winners = [me for me, lines in enumerate(said) if lines[state.iteration]["won"]]
        assert [str(me) for me in winners] == [state.reason]
    for collection, key in COLLECTIONS.items():
        store = ledger._stores[collection]
        total = store.count()
        groups = [{"$group": {"_id": {f"k{n}": f"${field}" for n, field in enumerate(key)}}}]
        assert len(list(store._collection.aggregate(groups))) == total
    ledger.close()


def test_two_campaigns_find_the_same_crystal(on_server, candidate, evaluation):
    """At the same instant: one result, which both read, and a candidate each."""
    barrier = threading.Barrier(8)
    ledgers = [on_server.open() for _ in range(8)]

    def find(number: int) -> None:
        barrier.wait()
        ledgers[number].add_candidates([candidate(0, campaign_id=f"campaign{number}")])
        ledgers[number].add_evaluations([evaluation("same", energy=float(number))])

    threads = [threading.Thread(target=find, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = {ledger.evaluations(["same"])["same"].model_dump_json() for ledger in ledgers}
    assert len(read) == 1
    for number, ledger in enumerate(ledgers):
        assert len(ledger.candidates(f"campaign{number}")) == 1
        ledger.close()


def test_the_death_of_the_server_loses_nothing(tmp_path, monkeypatch):
    """Killed four times in the middle of writes: what was acknowledged is there, the rest follows.

    Also a state is won by exactly one writer, though answers were lost on the way.
    """
    with ServerProcess(tmp_path / "journal") as server:
        monkeypatch.setenv("MATLOOP_MONGODB_URI", server.uri + "?serverSelectionTimeoutMS=500")
        config = LedgerConfig(directory=str(tmp_path), kind="mongodb", patience_seconds=60)
        processes = [writer(config, 0, 0, 250), writer(config, 1, 0, 250)]
        over = threading.Event()

        def disturb() -> None:
            for _ in range(4):
                if over.wait(0.4):
                    return
                server.kill()
                time.sleep(0.2)
                server.start()

        disturbance = threading.Thread(target=disturb)
        disturbance.start()
        said = together(processes)
        over.set()
        disturbance.join()
        server.kill()
        server.start()
        ledger = config.open()
        assert len(ledger.evaluations(f"k{n}" for n in range(1000))) == 1000
        states = {state.iteration: state.reason for state in ledger.states("mgo")}
        assert len(states) == 250
        for i, (zero, one) in enumerate(zip(*said, strict=True)):
            assert (zero["won"], one["won"]) == (states[i] == "0", states[i] == "1")
        ledger.close()


def test_patience_ends(tmp_path, monkeypatch, caplog, state):
    """A server that stays away is waited for, said once, and named without its secret."""
    with ServerProcess(tmp_path / "journal") as server:
        uri = server.uri + "?serverSelectionTimeoutMS=100&appName=s3cret"
        monkeypatch.setenv("MY_URI", uri)
        config = LedgerConfig(
            directory=str(tmp_path), kind="mongodb", uri_variable="MY_URI", patience_seconds=1.0
        )
        ledger = config.open()
        server.kill()
        started = time.monotonic()
        with caplog.at_level(logging.WARNING), pytest.raises(LedgerError) as caught:
            ledger.add_state(state(0))
        assert 0.5 < time.monotonic() - started < 5
        assert "the MongoDB server named by the environment variable MY_URI" in str(caught.value)
        assert caplog.text.count("does not answer") == 1
        assert "s3cret" not in str(caught.value) + caplog.text
        assert caught.value.__suppress_context__
        server.start()
        assert ledger.add_state(state(0))
        ledger.close()


def test_a_cut_reading_is_begun_again(tmp_path, monkeypatch, candidate):
    """A server that dies between two batches of one answer: the answer is complete all the same."""
    with ServerProcess(tmp_path / "journal") as server:
        monkeypatch.setenv("MATLOOP_MONGODB_URI", server.uri)
        config = LedgerConfig(directory=str(tmp_path), kind="mongodb", patience_seconds=20)
        ledger = config.open()
        ledger.add_candidates([candidate(index) for index in range(300)])
        store = ledger._stores["candidates"]
        read = store._collection.find
        calls = []

        def find(*args, **kwargs):
            cursor = read(*args, **kwargs)
            calls.append(1)
            if len(calls) == 1:
                yield next(cursor)
                server.kill()
                server.start()
            yield from cursor

        monkeypatch.setattr(store._coll, "find", find)
        assert len(ledger.candidates("mgo")) == 300
        assert len(calls) == 2
        ledger.close()


def test_a_uri_file_must_be_closed_to_others(tmp_path, monkeypatch, mongodb_uri):
    """It goes before the variable; open to others, empty or no URI: one line without the secret."""
    file = tmp_path / "uri"
    monkeypatch.setenv("MATLOOP_MONGODB_URI", "mongodb://wrong:1/")
    config = LedgerConfig(
        directory=str(tmp_path), kind="mongodb", uri_file=str(file), database="matloop_test_uri"
    )
    with pytest.raises(ConfigurationError, match="No such file"):
        config.open()
    file.write_text(f"{mongodb_uri}\n")
    for mode in (0o640, 0o604, 0o620, 0o666):
        file.chmod(mode)
        with pytest.raises(ConfigurationError, match=f"{mode:04o}.*chmod 600") as caught:
            config.open()
        assert mongodb_uri.strip("/") not in str(caught.value)
    file.chmod(0o600)
    config.open().close()
    assert config.uri() == mongodb_uri
    with MongoClient(mongodb_uri) as client:
        client.drop_database("matloop_test_uri")
    for content in ("", "hunter2", "mongodb://me:hunter2@host and more"):
        file.write_text(content)
        with pytest.raises(ConfigurationError, match=str(file)) as caught:
            config.open()
        assert "hunter2" not in str(caught.value)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigurationError, match="no regular file"):
        config.open()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_uri_file_is_refused(tmp_path):
    """Whoever owns the file could exchange the server."""
    file = tmp_path / "uri"
    file.write_text("mongodb://localhost/")
    file.chmod(0o600)
    os.chown(file, 12345, -1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        Server(uri_file=str(file)).uri()


@pytest.mark.parametrize(
    "uri",
    ["mongodb://me:hun/ter2@host:x/", "mongodb://host/?tls=hunter2", "mongodb://me:hunter2@[::/"],
)
def test_the_drivers_words_about_a_uri_are_not_repeated(uri, monkeypatch, tmp_path):
    """A URI the driver refuses: named by where it stands, not by what it says."""
    monkeypatch.setenv("MY_URI", uri)
    config = LedgerConfig(directory=str(tmp_path), kind="mongodb", uri_variable="MY_URI")
    with pytest.raises(ConfigurationError, match="MY_URI") as caught:
        config.open()
    assert "hun" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"uri_variable": "mongodb://me:hunter2@host"},
        {"uri_file": "mongodb://me:hunter2@host"},
        {"database": "hunter2.x"},
        {"patience_seconds": -1},
    ],
)
def test_a_secret_in_the_wrong_field_is_not_repeated(fields):
    """The line names the field only."""
    with pytest.raises(ConfigurationError, match=next(iter(fields))) as caught:
        LedgerConfig(directory=".", kind="mongodb", **fields)
    assert "hunter2" not in str(caught.value)


@job(data="crystals")
def many(count: int) -> dict[str, object]:
    return {"crystals": [{"index": index, "text": "x" * 500} for index in range(count)]}


@job
def grow(count: int) -> Response[int]:
    return Response(output=count, addition=Flow([many(count)]))


def test_jobs_keep_their_outputs_without_the_secret(on_server, monkeypatch, tmp_path):
    """Jobs that grow others, through a LaunchPad: outputs and blobs arrive, and the URI nowhere."""
    monkeypatch.chdir(tmp_path)
    uri = os.environ["MATLOOP_MONGODB_URI"]
    secret = f"s3cret{uuid4().hex}"
    monkeypatch.setenv("MATLOOP_MONGODB_URI", f"{uri}?appName={secret}")
    store = job_store(on_server)
    index_job_store(store)
    store.close()
    client: MongoClient[dict[str, object]] = MongoClient(uri)
    name = f"{on_server.database}_fw"
    pad = LaunchPad(uri, name=name, uri_mode=True, strm_lvl="ERROR")
    try:
        pad.reset("", require_password=False)
        flow = Flow([grow(3000)])
        workflow = flow_to_workflow(flow, store=store)
        pad.add_wf(Workflow.from_dict(workflow.to_dict()))
        rapidfire(pad, strm_lvl="ERROR")
        assert {fw["state"] for fw in client[name]["fireworks"].find()} == {"COMPLETED"}
        assert client[name]["fireworks"].count_documents({}) == 2
        again = JobStore.from_dict(json.loads(json.dumps(store.as_dict())))
        assert again.as_dict() == store.as_dict()
        with again:
            outputs = list(again.query(load=True, sort={"index": 1}))
        blob = next(doc["output"] for doc in outputs if isinstance(doc["output"], dict))
        assert len(blob["crystals"]) == 3000
        everything = str(client[name]["fireworks"].find_one()) + str(store.as_dict()) + repr(store)
        for database in (name, on_server.database):
            for collection in client[database].list_collection_names():
                for document in client[database][collection].find():
                    size = len(bson.encode(document))
                    assert size < 1_000_000, (collection, size)
                    everything += str(document)
        assert secret not in everything
        assert uri.strip("/").rpartition("/")[2] not in everything
    finally:
        client.drop_database(name)
        client.close()


def test_no_document_grows_with_a_batch(on_server, candidate, evaluation, decision):
    """5,000 candidates with results and decisions: the largest document has a few kilobytes."""
    ledger = on_server.open()
    count = 5000
    ledger.add_candidates([candidate(index) for index in range(count)])
    ledger.add_evaluations([evaluation(f"k{index}") for index in range(count)])
    ledger.add_decisions([decision(f"c0-{index}") for index in range(count)])
    sizes: dict[str, list[int]] = {}
    for collection in COLLECTIONS:
        for batch in ledger._stores[collection]._collection.find_raw_batches({}):
            found = sizes.setdefault(collection, [])
            found += [len(bson.encode(document)) for document in bson.decode_all(batch)]
    assert {collection: len(found) for collection, found in sizes.items()} == {
        "candidates": count,
        "evaluations": count,
        "decisions": count,
        "artifacts": 2,  # the crystals of the candidates
    }
    assert max(map(max, sizes.values())) < 10_000
    ledger.close()


def test_every_key_and_every_reading_has_its_index(on_server):
    """Unique where a key says so; jobflow's outputs are found by uuid and index."""
    ledger = on_server.open()
    for collection, key in COLLECTIONS.items():
        indexes = ledger._stores[collection]._collection.index_information().values()
        unique = [index["key"] for index in indexes if index.get("unique")]
        assert [(field, 1) for field in key] in unique
    store = job_store(on_server)
    index_job_store(store)
    keys = [index["key"] for index in store._collection.index_information().values()]
    assert [("uuid", 1), ("index", 1)] in keys
    store.close()
    ledger.close()


def test_connections_are_shared_and_given_back(on_server, monkeypatch):
    """A ledger with its many collections takes one client, and leaves none behind."""
    from matloop.ledger import server

    uri = f"{os.environ['MATLOOP_MONGODB_URI']}?appName={uuid4().hex}"
    monkeypatch.setenv("MATLOOP_MONGODB_URI", uri)
    first, second = on_server.open(), on_server.open()
    assert [name for name in server._clients if name[1] == uri] == [(os.getpid(), uri)]
    first.close()
    assert second.campaigns() == []
    second.close()
    assert not [name for name in server._clients if name[1] == uri]


def test_a_forked_child_connects_anew(on_server, state):
    """Both go on after a fork, each with its own connection."""
    ledger = on_server.open()
    ledger.add_state(state(0))
    child = os.fork()
    if not child:
        try:
            ledger.add_state(state(1))
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert ledger.states("mgo") == [state(0), state(1)]
    ledger.close()


def test_a_name_says_nothing_secret(monkeypatch):
    """What logs and errors show of a store is where its URI stands."""
    monkeypatch.setenv("MATLOOP_MONGODB_URI", "mongodb://me:hunter2@host/")
    store = ServerStore(Server(), "states")
    assert "hunter2" not in store.name + repr(store) + str(store.as_dict())
    assert ServerStore.from_dict(store.as_dict()) == store


def test_another_schema_is_refused(on_server, state):
    """A document of another version is not read as if it were of this one."""
    ledger = on_server.open()
    ledger.add_state(state(0))
    ledger._stores["states"]._collection.update_one({}, {"$set": {"schema_version": 2}})
    with pytest.raises(LedgerError, match="states has schema version 2, this matloop reads 1"):
        ledger.states("mgo")
    ledger.close()


def test_the_example_of_the_documentation_runs(on_server, candidate, evaluation, decision):
    """The queries of docs/database.md find what is there."""
    ledger = on_server.open()
    ledger.add_candidates([candidate(index) for index in range(10)])
    ledger.add_evaluations([evaluation("k0"), evaluation("k1")])
    first = decision("c0-0", "relax").model_copy(update={"evaluations": ("k0", "k1")})
    ledger.add_decisions([first, decision("c0-1", "relax")])
    ledger.close()
    example = Path(__file__).parents[2] / "docs" / "examples" / "query_database.py"
    environment = {**os.environ, "MATLOOP_DATABASE": on_server.database}
    done = subprocess.run(
        [sys.executable, str(example)], env=environment, capture_output=True, text=True, check=True
    )
    crystal = candidate(0).candidate.structure
    lattice, positions = crystal.lattice.matrix.ravel(), crystal.frac_coords.ravel()
    assert done.stdout.splitlines() == [
        "relax passed 2",
        "c0-0 relaxation 0.1",
        "c0-0 relaxation 0.1",
        f"{lattice.tolist()} {list(crystal.atomic_numbers)} {positions.tolist()}",
        "2",
    ]
