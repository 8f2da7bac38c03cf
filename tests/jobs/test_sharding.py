"""Sharding: a stage in pieces is the stage; what dies, is late or too long harms nobody else."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure

from matloop import registry
from matloop.documents.campaign import Campaign, CampaignRecord, CandidateRecord, IterationState
from matloop.documents.candidate import Candidate, Origin
from matloop.jobs.decide import DecideMaker
from matloop.jobs.evaluate import EvaluateMaker
from matloop.jobs.place import Place, close_ledgers
from matloop.jobs.sharding import Plan, Segment, Sharding, read_plan, segments
from matloop.jobs.stage import StageWork, stage_evaluators
from matloop.jobs.survey import Survey
from matloop.jobs.walltime import DEADLINE
from matloop.ledger.opening import LedgerConfig, open_ledger
from matloop.testing.toys import ToyRelaxation

COUNT, CHUNK = 22, 4
ELSEWHERE = Sharding(kind="gpu", most=3)


@dataclass(frozen=True)
class Together(ToyRelaxation):
    """A toy that needs the whole batch."""

    scope: ClassVar[Literal["candidate", "batch"]] = "batch"


TOYS = {"toy_relaxation": ToyRelaxation, "together": Together}
build, load = registry.build, registry.load


def with_toys(kind: registry.Kind, name: str, parameters: dict[str, object]) -> object:
    return TOYS[name](**parameters) if name in TOYS else build(kind, name, parameters)


def campaign(log: Path, **stage: object) -> Campaign:
    toy = {"use": "toy_relaxation", "with": {"log": str(log), **stage.pop("toy", {})}}
    return Campaign.model_validate(
        {
            "name": "sharded",
            "space": {"system": "Al-Ni"},
            "objective": {"minimize": "energy_per_atom"},
            "generators": ["random_symmetric"],
            "stages": [
                {"name": "relax", "evaluate": ["together", toy], "chunk": CHUNK, **stage},
                {"name": "again", "evaluate": ["cell"]},
            ],
            "feedback": "off",
        }
    )


def crystal(index: int) -> Structure:
    return Structure(Lattice.cubic(3 + 0.07 * index), ["Al", "Ni"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def written(directory: Path, declared: Campaign, iteration: int = 0) -> Place:
    """Write a campaign, one state and its candidates, and return the place of its first stage."""
    ledger, now = open_ledger(directory, create=True), datetime.now(UTC)
    ledger.add_campaign(
        CampaignRecord(
            campaign_id="sharded", campaign=declared, versions={}, machine={}, created_at=now
        )
    )
    state = IterationState(
        campaign_id="sharded", iteration=iteration, status="running", created_at=now
    )
    ledger.add_state(state)
    ledger.add_candidates(
        [
            CandidateRecord(
                campaign_id="sharded",
                iteration=iteration,
                index=index,
                candidate=Candidate(
                    candidate_id=f"c{iteration}-{index}",
                    structure=crystal(index + 100 * iteration),
                    origin=Origin(generator="test"),
                ),
            )
            for index in range(COUNT)
        ]
    )
    ledger.close()
    return Place(LedgerConfig(directory=str(directory)), "sharded", iteration, "relax")


def load_with_toys(kind: registry.Kind, name: str) -> type:
    return TOYS[name] if name in TOYS else load(kind, name)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a campaign name the toy, and close what its jobs opened."""
    monkeypatch.setattr(registry, "build", with_toys)
    monkeypatch.setattr(registry, "load", load_with_toys)
    yield
    close_ledgers()


def run(place: Place, sharding: Sharding | None) -> list[str]:
    """Run a stage to its decisions, and return the names of the jobs that ran."""
    evaluate = EvaluateMaker(sharding=sharding, name="evaluate relax").stage(place)
    decide = DecideMaker().stage(place)
    store = JobStore(MemoryStore())
    directory = Path(place.ledger.directory)
    flow = Flow([evaluate, decide], order="linear")
    run_locally(flow, log=False, store=store, root_dir=directory, raise_immediately=True)
    return [document["name"] for document in store.query(sort={"completed_at": 1})]


def standing(place: Place) -> list[tuple[object, ...]]:
    ledger = place.open()
    decisions = ledger.decisions("sharded", place.iteration, "relax")
    found = ledger.evaluations(key for one in decisions for key in one.evaluations)
    return [
        (
            one.candidate_id,
            one.outcome,
            one.reason,
            [found[key].evaluation.quantities for key in one.evaluations],
        )
        for one in decisions
    ]


def test_segments_keep_apart_who_needs_everyone(tmp_path: Path) -> None:
    """Uniqueness needs the batch; space and relaxation around it can be split."""
    declared = campaign(tmp_path / "log")
    found = segments(stage_evaluators(declared, declared.stages[0]))
    assert [(s.start, s.stop, s.how) for s in found] == [
        (0, 1, "apart"),
        (1, 2, "together"),
        (2, 3, "apart"),
    ]


def test_shards_decide_as_one_job_does(tmp_path: Path) -> None:
    """Verdicts, numbers, reasons and their order do not depend on how a stage was split."""
    whole = written(tmp_path / "whole", campaign(tmp_path / "log"))
    split = written(tmp_path / "split", campaign(tmp_path / "log2"))
    assert run(whole, None) == ["evaluate relax", "decide"]
    names = run(split, ELSEWHERE)
    assert sum(name.startswith("evaluate relax 2.") for name in names) == 3
    assert standing(split) == standing(whole)
    paid = (tmp_path / "log2").read_text().split()
    assert Counter(paid) == Counter(f"c0-{index}" for index in range(COUNT))


def planned(work: StageWork, segment: Segment) -> Plan:
    """Return the plan of a segment, once what comes before it is judged."""
    for _ in work.judge_pieces(until=segment.start):
        pass
    return ELSEWHERE.plan(work, Survey.of(work, work.find_pieces().pieces()), segment)


def test_shards_hold_whole_chunks(tmp_path: Path) -> None:
    """No chunk is torn: what is evaluated together is the same however a stage is split."""
    place = written(tmp_path, campaign(tmp_path / "log"))
    work = StageWork(place)
    segment = segments(work.evaluators)[-1]
    plan = planned(work, segment)
    stored = read_plan(place, plan.sha256)
    assert stored == plan
    alone = read_plan(place, plan.sha256, 1)
    assert alone.shards == ((), plan.shards[1], *((),) * (len(plan.shards) - 2))
    seats = [{share.position // CHUNK for share in shard} for shard in stored.shards]
    assert sum(map(len, seats)) == len(set.union(*seats)) == -(-COUNT // CHUNK)
    assert sorted(s.position for shard in stored.shards for s in shard) == list(range(COUNT))


def test_cheap_work_is_done_where_it_is_split(tmp_path: Path) -> None:
    """Where splitting and judging run on the same kind of worker, little work makes no jobs."""
    place = written(tmp_path, campaign(tmp_path / "log"))
    assert run(place, Sharding(kind="cpu", control="cpu")) == ["evaluate relax", "decide"]


def test_walltime_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards stop before their time ends, hand the rest on, and nothing is paid twice."""
    place = written(tmp_path, campaign(tmp_path / "log", toy={"seconds": 0.1}))
    monkeypatch.setattr("matloop.jobs.sharding.MARGIN_SECONDS", 0.0)
    ends = iter(range(10_000))

    def seconds_left() -> float:
        return 0.0 if next(ends) % 3 == 2 else 100.0  # every third look says time is up

    monkeypatch.setattr("matloop.jobs.sharding.seconds_left", seconds_left)
    names = run(place, ELSEWHERE)
    shards = [name for name in names if name.startswith("evaluate relax 2.")]
    assert len(shards) > 3
    assert {choice[1] for choice in standing(place)} == {"passed"}
    paid = Counter((tmp_path / "log").read_text().split())
    assert paid == Counter(f"c0-{index}" for index in range(COUNT))


def test_the_walltime_is_that_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline that has passed lets a shard begin no chunk."""
    place = written(tmp_path, campaign(tmp_path / "log"))
    work = StageWork(place)
    segment = segments(work.evaluators)[-1]
    plan = planned(work, segment)
    monkeypatch.setenv(DEADLINE, str(time.time() + 5))
    assert not any(item.complete for item in plan.judge(work, 0))
    assert not (tmp_path / "log").exists()


def test_a_dead_shard_is_sent_out_again(tmp_path: Path) -> None:
    """What a shard that died has left is judged by others, and the stage closes complete."""
    place = written(tmp_path, campaign(tmp_path / "log"))
    died = []
    evaluate = EvaluateMaker(sharding=ELSEWHERE, name="evaluate relax").stage(place)
    decide = DecideMaker().stage(place)

    def deadly(plan: object, work: StageWork, index: int) -> object:
        if not died:
            died.append(index)
            raise OSError("the node is gone")
        return judge(plan, work, index)

    judge = Plan.judge
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "judge", deadly)
        flow = Flow([evaluate, decide], order="linear")
        run_locally(flow, log=False, store=JobStore(MemoryStore()), root_dir=tmp_path)
    assert died == [0]
    assert [choice[1] for choice in standing(place)] == ["passed"] * COUNT


def test_shards_that_never_judge_do_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three rounds without a result the stage closes, and says so for every candidate."""
    place = written(tmp_path, campaign(tmp_path / "log"))

    def dead(plan: Plan, work: StageWork, index: int) -> object:
        raise OSError("no worker starts")

    monkeypatch.setattr(Plan, "judge", dead)
    evaluate = EvaluateMaker(sharding=ELSEWHERE, name="evaluate relax").stage(place)
    decide = DecideMaker().stage(place)
    flow = Flow([evaluate, decide], order="linear")
    run_locally(flow, log=False, store=JobStore(MemoryStore()), root_dir=tmp_path)
    found = standing(place)
    assert [choice[1] for choice in found] == ["held"] * COUNT
    assert all("in 3 rounds" in choice[2] for choice in found)


def test_who_is_late_joins_the_next_iteration(tmp_path: Path) -> None:
    """At its quorum a stage closes; the late are held with that reason, and judged next time."""
    place = written(tmp_path, campaign(tmp_path / "log", quorum=0.5))
    work = StageWork(place)
    segment = segments(work.evaluators)[-1]
    plan = planned(work, segment)
    for index in (0, 1):  # the third shard never reports
        plan.judge(work, index)
    run(place, ELSEWHERE)
    found = standing(place)
    late = [choice[0] for choice in found if choice[1] == "held"]
    assert set(late) == {share.candidate_id for share in plan.shards[2]}
    assert all("its quorum is 0.5" in choice[2] for choice in found if choice[0] in late)
    following = written(tmp_path, campaign(tmp_path / "log", quorum=0.5), iteration=1)
    entering = StageWork(following).candidate_ids
    assert list(entering) == [f"c1-{index}" for index in range(COUNT)] + late
    run(following, None)
    again = {choice[0]: choice[1] for choice in standing(following)}
    assert {again[name] for name in late} == {"passed"}
    decisions = place.open().decisions("sharded", candidate_ids=late)
    assert Counter((d.candidate_id, d.iteration) for d in decisions) == Counter(
        (name, iteration) for name in late for iteration in (0, 1)
    )


def test_a_deadline_closes_a_stage(tmp_path: Path) -> None:
    """After its deadline, counted from its beginning, a stage may close with what it has."""
    work = StageWork(written(tmp_path, campaign(tmp_path / "log", deadline=1e-4)))
    work.begin()
    assert work.closing(0, COUNT) == ""
    time.sleep(0.4)
    assert "deadline" in work.closing(0, COUNT)


def test_the_budget_is_shared_by_the_shards(tmp_path: Path) -> None:
    """Shards together spend a stage's budget and no more than a chunk each beyond it."""
    toy = {"seconds": 0.02}
    place = written(tmp_path, campaign(tmp_path / "log", seconds=0.2, toy=toy))
    run(place, ELSEWHERE)
    outcomes = Counter(choice[1] for choice in standing(place))
    assert 10 <= outcomes["passed"] <= 10 + 3 * CHUNK
    held = [choice for choice in standing(place) if choice[1] == "held"]
    assert held
    assert all("budget of 0.2 s is spent" in choice[2] for choice in held)


def _judge(directory: str) -> None:
    place = Place(LedgerConfig(directory=directory), "sharded", 0, "relax")
    registry.build, registry.load = with_toys, load_with_toys
    run(place, Sharding(kind="cpu", control="cpu"))


def test_poison_costs_one_relaunch(tmp_path: Path) -> None:
    """A crystal that kills the job itself is found by the next job, and by that one alone."""
    log = tmp_path / "log"
    place = written(tmp_path, campaign(log, toy={"fatal_candidate": "c0-9"}))
    context = multiprocessing.get_context("fork")
    codes = []
    for _ in range(2):
        process = context.Process(target=_judge, args=(str(tmp_path),))
        process.start()
        process.join(60)
        codes.append(process.exitcode)
    assert codes == [-9, 0]
    found = {choice[0]: choice for choice in standing(place)}
    assert found["c0-9"][1] == "failed"
    assert "quarantined" in found["c0-9"][2]
    assert [name for name, choice in found.items() if choice[1] != "passed"] == ["c0-9"]
    paid = Counter(log.read_text().split())
    assert sum(paid.values()) <= COUNT + 3 * CHUNK
