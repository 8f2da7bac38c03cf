"""The ledger keeps records once, in order, over SQLite, in memory, and over a socket alike."""

from __future__ import annotations

from datetime import timedelta
from math import isnan

import pytest
from maggma.stores import JSONStore, MemoryStore

from matloop.errors import LedgerError
from matloop.ledger.artifacts import FileArtifacts
from matloop.ledger.locks import CampaignLocks
from matloop.ledger.opening import open_ledger
from matloop.ledger.store_ledger import COLLECTIONS, StoreLedger


@pytest.fixture(
    params=["sqlite", "memory", pytest.param("server", marks=pytest.mark.mongo)],
)
def ledger(request, tmp_path):
    if request.param == "sqlite":
        ledger = open_ledger(tmp_path / "run", create=True)
    elif request.param == "server":
        ledger = request.getfixturevalue("on_server").open()
    else:
        stores = {name: MemoryStore(collection_name=name) for name in COLLECTIONS}
        ledger = StoreLedger(stores, FileArtifacts(tmp_path / "a"), CampaignLocks(tmp_path / "l"))
    yield ledger
    ledger.close()


def test_campaigns_come_back_oldest_first(ledger, campaign):
    """A campaign comes back equal; the first record under a name stays."""
    late, early = campaign("late"), campaign("early")
    early = early.model_copy(update={"created_at": early.created_at - timedelta(microseconds=1)})
    ledger.add_campaign(late)
    ledger.add_campaign(early)
    ledger.add_campaign(late.model_copy(update={"versions": {"matloop": "9"}}))
    assert ledger.campaigns() == [early, late]
    assert ledger.campaign("late") == late
    assert ledger.campaign("none") is None


def test_writing_a_state_is_a_compare_and_swap(ledger, state):
    """The second writer of an iteration is told so and changes nothing."""
    assert ledger.add_state(state(1, "first"))
    assert ledger.add_state(state(0))
    assert not ledger.add_state(state(1, "second"))
    assert ledger.add_state(state(1, campaign_id="other"))
    assert ledger.states("mgo") == [state(0), state(1, "first")]


def test_candidates_come_in_order(ledger, candidate):
    """By iteration and index, whatever order they were added in; repeats change nothing."""
    records = [candidate(index, iteration) for iteration in (0, 1) for index in range(12)]
    ledger.add_candidates(records[::-1])
    ledger.add_candidates(records[:5])
    ledger.add_candidates([candidate(0, campaign_id="other")])
    assert ledger.candidates("mgo") == records
    assert ledger.candidates("mgo", 1) == records[12:]
    assert ledger.candidates("mgo", candidate_ids=["c1-3", "c0-10", "none"]) == [
        records[10],
        records[15],
    ]
    assert ledger.candidates("mgo", 1, ["c0-10", "c1-11"]) == [records[23]]
    assert ledger.candidates("mgo", candidate_ids=[]) == []


def test_evaluations_are_found_by_key(ledger, evaluation):
    """Results come back exactly, in the order asked; the first result under a key stays."""
    ledger.add_evaluations([evaluation("b"), evaluation("a", float("nan"))])
    ledger.add_evaluations([evaluation("b", energy=5.0)])
    found = ledger.evaluations(iter(["none", "a", "b", "a"]))
    assert list(found) == ["a", "b"]
    assert found["b"] == evaluation("b")
    assert isnan(found["a"].evaluation.quantities["energy"].value)
    assert ledger.evaluations([]) == {}


def test_decisions_come_in_the_order_recorded(ledger, decision):
    """By iteration, then as recorded; one per candidate and stage, whoever repeats it."""
    second = [decision("z", iteration=1), decision("y", iteration=1)]
    ledger.add_decisions(second)
    first = [decision("b"), decision("a"), decision("b", "relax")]
    ledger.add_decisions(first[:2])
    ledger.add_decisions([decision("a", reason="changed"), first[2]])
    ledger.add_decisions([decision("0", "relax")])
    first.append(decision("0", "relax"))
    assert ledger.decisions("mgo") == first + second
    assert ledger.decisions("mgo", 0, "rules") == first[:2]
    assert ledger.decisions("mgo", stage="relax") == first[2:]
    assert ledger.decisions("mgo", candidate_ids=["b", "z"]) == [first[0], first[2], second[0]]
    assert ledger.decisions("mgo", 1, "rules", ["y", "a"]) == [second[1]]


def test_artifacts_are_described(ledger):
    """Bytes come back under their hash, with kind and size."""
    artifact = ledger.put_artifact("phases", b"bytes", "application/gzip")
    assert (artifact.size, artifact.kind) == (5, "phases")
    assert ledger.artifact_path(artifact.sha256).read_bytes() == b"bytes"
    assert ledger.put_artifact("phases", b"bytes", "application/gzip") == artifact


def test_reopening_finds_everything(tmp_path, candidate, evaluation, decision):
    """A second process sees what the first one recorded, while the first is still open."""
    with_first = open_ledger(tmp_path, create=True)
    with_first.add_candidates([candidate(0)])
    with_first.add_evaluations([evaluation("k")])
    second = open_ledger(tmp_path)
    second.add_decisions([decision("c0-0")])
    assert second.candidates("mgo") == [candidate(0)]
    assert with_first.decisions("mgo") == [decision("c0-0")]
    assert list(second.evaluations(["k"])) == ["k"]
    second.close()
    with_first.close()


def test_reads_use_indexes(tmp_path, candidate, decision, evaluation):
    """No read of a campaign's iteration scans a collection."""
    ledger = open_ledger(tmp_path, create=True)
    ledger.add_candidates([candidate(0)])
    ledger.add_evaluations([evaluation("k")])
    ledger.add_decisions([decision("c0-0")])
    ledger.close()
    ledger = open_ledger(tmp_path)  # another process, which remembers nothing
    raws = {name: ledger._stores[name]._database._raw for name in COLLECTIONS}
    statements: list[tuple[str, str]] = []
    for name, raw in raws.items():
        raw.set_trace_callback(lambda sql, name=name: statements.append((name, sql)))
    ledger.candidates("mgo", 0)
    ledger.candidates("mgo", candidate_ids=["c0-0"])
    ledger.evaluations(["k"])
    ledger.states("mgo")
    ledger.decisions("mgo", 0)
    ledger.decisions("mgo", 0, "rules")
    ledger.decisions("mgo", candidate_ids=["c0-0"])
    ledger.add_decisions([decision("c0-1")])
    for raw in raws.values():
        raw.set_trace_callback(None)
    reads = [(name, sql) for name, sql in statements if sql.startswith("SELECT doc")]
    assert len(reads) == 8
    for name, sql in reads:
        plan = str(raws[name].execute(f"EXPLAIN QUERY PLAN {sql}").fetchall())
        assert f"SEARCH {name} USING INDEX" in plan
    ledger.close()


def test_unsuitable_stores_are_refused(tmp_path):
    """A store that cannot insert in one step, or a missing one, is an error at once."""
    artifacts, locks = FileArtifacts(tmp_path), CampaignLocks(tmp_path)
    with pytest.raises(LedgerError, match="decisions"):
        StoreLedger({"campaigns": MemoryStore()}, artifacts, locks)
    path = tmp_path / "documents.json"
    stores = {name: JSONStore(str(path), read_only=False) for name in COLLECTIONS}
    with pytest.raises(LedgerError, match="JSONStore"):
        StoreLedger(stores, artifacts, locks)
