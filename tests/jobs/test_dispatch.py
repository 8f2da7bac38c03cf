"""Calculations as jobs: sent out again when they die, given up when they do so twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jobflow import CURRENT_JOB, Job, JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Structure

from matloop.documents.campaign import Campaign
from matloop.errors import MissingDependencyError
from matloop.flows.iteration import IterationMaker, PreparationMaker
from matloop.jobs.calculate import Calculation, last_document, stage_engine
from matloop.jobs.dispatch import Dispatch
from matloop.jobs.place import Place, close_ledgers
from matloop.jobs.sharding import Sharding
from matloop.launch.recording import recorded
from matloop.ledger.interface import Ledger
from matloop.ledger.opening import LedgerConfig, open_ledger, read_ledger
from matloop.testing import toys
from matloop.testing.toys import ToyEngine, toys_registered

NAME = "sent-out"


def campaign(**engine: Any) -> Campaign:
    return Campaign.model_validate(
        {
            "name": NAME,
            "seed": 3,
            "space": {"system": "Sr-O", "max_atoms": 4},
            "objective": {"minimize": "e_above_hull"},
            "references": {"max_elements": 1},
            "generators": ["toy_generator"],
            "stages": [
                {"name": "relaxation", "evaluate": ["uniqueness", "toy_relaxation"]},
                {
                    "name": "dft",
                    "calculate": {"use": "toy_engine", "with": engine},
                    "evaluate": ["hull_distance"],
                },
            ],
            "feedback": "off",
            "budget": {"iterations": 1, "candidates": 12},
        }
    )


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    with toys_registered():
        yield
    close_ledgers()


def started(declared: Campaign, directory: Path) -> Place:
    ledger = open_ledger(directory, create=True)
    recorded(ledger, declared, str(directory), "", resume=False)
    ledger.close()
    return Place(LedgerConfig(kind="embedded", directory=str(directory)), NAME, 0)


def run(flow: Any, directory: Path) -> None:
    """Run as FireWorks does: what raises leaves no document, and what allows that goes on."""
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    run_locally(flow, log=False, store=store, root_dir=directory)
    close_ledgers()


def on_a_cluster(declared: Campaign, directory: Path) -> Ledger:
    """Run a campaign of one iteration with its calculations as jobs of their own."""
    place = started(declared, directory)
    run(PreparationMaker({"relaxation": "cpu", "dft": "dft"}, "cpu").make(place), directory)
    flow = IterationMaker({"dft": Sharding(kind="dft", control="cpu")}, "cpu")
    run(flow.make(place, declared), directory)
    return read_ledger(directory)


def formula(candidate_id: str) -> str:
    return candidate_id.rsplit("-", 1)[0]


def test_what_dies_is_sent_out_again_and_given_up_the_third_time(tmp_path: Path) -> None:
    """Two lone deaths, and nobody else is touched: a fail that says where to look."""
    log = tmp_path / "log"
    ledger = on_a_cluster(campaign(raises="SrO", log=str(log)), tmp_path / "run")
    decided = ledger.decisions(NAME, 0, "dft")
    assert len(decided) == len(list(ledger.candidate_ids(NAME, 0))) - len(
        [d for d in ledger.decisions(NAME, 0, "relaxation") if d.outcome != "passed"]
    )
    dead = [d for d in decided if formula(d.candidate_id) == "SrO"]
    assert dead
    for decision in dead:
        assert decision.outcome == "failed"
        assert "died 2 times without a word" in decision.reason
        assert repr(decision.candidate_id) in decision.reason
    assert all(d.outcome == "passed" for d in decided if d not in dead)
    runs = Counter(log.read_text().split())
    assert {runs[d.candidate_id] for d in dead} == {2}
    assert {count for name, count in runs.items() if formula(name) != "SrO"} == {1}
    ledger.close()


def test_a_death_that_was_the_machines_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who dies once and then lives has the verdict of one who never died."""
    seen: set[str] = set()
    honest = toys.toy_calculation

    def unlucky(engine: ToyEngine, structure: Structure, name: str) -> dict[str, object]:
        if name not in seen:
            seen.add(name)
            raise OSError("the node went down")
        return honest(engine, structure, name)

    def calculation(self: ToyEngine, structure: Structure, name: str) -> Job:
        return Job(unlucky, function_args=(self, structure, name), name=name)

    with monkeypatch.context() as patch:
        patch.setattr(ToyEngine, "calculation", calculation)
        ledger = on_a_cluster(campaign(), tmp_path / "once")
    assert len(seen) > 4
    calm = on_a_cluster(campaign(), tmp_path / "never")
    for stage in ("relaxation", "dft"):
        found, expected = (
            [(d.candidate_id, d.outcome, d.reason) for d in one.decisions(NAME, 0, stage)]
            for one in (ledger, calm)
        )
        assert found == expected
    ledger.close()
    calm.close()


def test_a_crystal_the_engine_cannot_describe_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that raises for one crystal gives it a verdict, on a cluster and on one machine."""
    honest = ToyEngine.calculation

    def calculation(self: ToyEngine, structure: Structure, name: str) -> Job:
        if structure.composition.reduced_formula == "SrO":
            raise ValueError("more k-points than I can count\nand so on")
        return honest(self, structure, name)

    monkeypatch.setattr(ToyEngine, "calculation", calculation)
    ledger = on_a_cluster(campaign(), tmp_path / "there")
    here = tmp_path / "here"
    from matloop.launch import local

    local.run(campaign(), here)
    alone = read_ledger(here)
    expected = "ToyEngine can make no calculation of it: ValueError: more k-points than I can count"
    for one in (ledger, alone):
        decided = one.decisions(NAME, 0, "dft")
        failed = [d for d in decided if d.outcome == "failed"]
        assert {formula(d.candidate_id) for d in failed} == {"SrO"}
        assert all(d.reason == expected for d in failed)
        assert any(d.outcome == "passed" for d in decided)
        one.close()


def test_a_job_that_runs_twice_counts_one_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that dies after it noted the attempts, and runs again, has not killed anybody."""
    declared = campaign()
    place = replace(started(declared, tmp_path), stage="dft")
    engine = stage_engine(declared.stages[1])
    assert engine is not None
    dispatch = Dispatch(place, engine, "dft", "cpu")
    candidates = _candidates(3)
    sender = Job(len, function_args=([],), name="sender")
    for _ in range(4):
        monkeypatch.setattr(CURRENT_JOB, "job", sender)
        assert len(dispatch.flows(candidates)) == 3
    monkeypatch.setattr(CURRENT_JOB, "job", None)
    assert len(place.open().attempts(NAME, 0, "dft")) == 3
    for expected in (3, 0):  # other jobs: a second attempt, and then enough of them
        assert len(dispatch.flows(candidates)) == expected
    keys = [Calculation(engine).key(candidate) for candidate in candidates]
    assert {r.evaluation.verdict for r in place.open().evaluations(keys).values()} == {"fail"}


def test_faults_of_the_campaign_are_nobodys_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing package stops the job; no candidate fails for it."""

    def calculation(self: ToyEngine, structure: Structure, name: str) -> Job:
        raise MissingDependencyError("no toys here")

    monkeypatch.setattr(ToyEngine, "calculation", calculation)
    place = replace(started(campaign(), tmp_path), stage="dft")
    dispatch = Dispatch(place, ToyEngine(), "dft", "cpu")
    with pytest.raises(MissingDependencyError):
        dispatch.flows(_candidates(1))


def test_a_document_that_others_were_to_follow_is_none() -> None:
    """A calculation that died between two of its jobs has not failed by the first one's result."""

    class Chain(ToyEngine):
        def finished(self, document: dict[str, object]) -> bool:
            return bool(document["last"])

    assert last_document(Chain(), {"last": False}) is None
    assert last_document(Chain(), {"last": True}) == {"last": True}
    assert last_document(ToyEngine(), {"last": False}) == {"last": False}


def test_what_the_machine_lacks_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each problem of an engine is one line that names its stage, and there is no ledger."""
    from matloop.errors import ConfigurationError
    from matloop.launch import local

    monkeypatch.setattr(ToyEngine, "problems", lambda self: ["no toy box", "no batteries"])
    with pytest.raises(ConfigurationError) as caught:
        local.run(campaign(), tmp_path / "run")
    lines = ["stages[1].calculate: no toy box", "stages[1].calculate: no batteries"]
    assert caught.value.lines() == lines
    assert not (tmp_path / "run").exists()


def _candidates(count: int) -> list[Any]:
    from matloop.documents.candidate import Candidate, Origin

    crystals = [
        Structure([[4.0 + 0.1 * i, 0, 0], [0, 4, 0], [0, 0, 4]], ["Sr"], [[0, 0, 0]])
        for i in range(count)
    ]
    return [
        Candidate(candidate_id=f"c-{i}", structure=crystal, origin=Origin(generator="given"))
        for i, crystal in enumerate(crystals)
    ]
