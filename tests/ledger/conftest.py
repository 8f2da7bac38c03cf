"""Records to put into a ledger."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from pymatgen.core import Lattice, Structure
from pymongo import MongoClient

from matloop.documents.campaign import (
    Campaign,
    CampaignRecord,
    CandidateRecord,
    GeneratorEntry,
    IterationState,
    Stage,
)
from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.decision import Decision
from matloop.documents.evaluation import Cost, Evaluation, EvaluationRecord
from matloop.documents.objective import Objective
from matloop.documents.space import ChemicalSpace
from matloop.ledger.opening import LedgerConfig
from matloop.testing.mongodb.process import ServerProcess

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
ROCK_SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)


@pytest.fixture(scope="session")
def campaign() -> Callable[..., CampaignRecord]:
    def make(campaign_id: str = "mgo", created_at: datetime = NOW) -> CampaignRecord:
        declared = Campaign(
            name="mgo",
            space=ChemicalSpace(system="Mg-O"),
            objective=Objective(minimize="e_above_hull"),
            generators=(GeneratorEntry(use="random_symmetric", parameters={"tries": 3}),),
            stages=(Stage(name="rules"),),
        )
        return CampaignRecord(
            campaign_id=campaign_id,
            campaign=declared,
            versions={"matloop": "0"},
            machine={},
            created_at=created_at,
        )

    return make


@pytest.fixture(scope="session")
def state() -> Callable[..., IterationState]:
    def make(iteration: int, reason: str = "", campaign_id: str = "mgo") -> IterationState:
        return IterationState(
            campaign_id=campaign_id,
            iteration=iteration,
            status="running",
            reason=reason,
            shares={"random_symmetric": 1 / 3},
            created_at=NOW,
        )

    return make


@pytest.fixture(scope="session")
def candidate() -> Callable[..., CandidateRecord]:
    def make(index: int, iteration: int = 0, campaign_id: str = "mgo") -> CandidateRecord:
        return CandidateRecord(
            campaign_id=campaign_id,
            iteration=iteration,
            index=index,
            candidate=Candidate(
                candidate_id=f"c{iteration}-{index}",
                structure=ROCK_SALT,
                origin=Origin(generator="random_symmetric", parameters={"spg": 225}, seed=index),
            ),
        )

    return make


@pytest.fixture(scope="session")
def evaluation() -> Callable[..., EvaluationRecord]:
    def make(key: str, energy: float = -1 / 3) -> EvaluationRecord:
        return EvaluationRecord(
            key=key,
            structure_digest="0" * 64,
            evaluator="relaxation",
            method="m",
            evaluation=Evaluation(
                candidate_id="c0-0",
                verdict="pass",
                reason="converged",
                quantities={"energy": Quantity(value=energy, unit="eV/atom")},
                structure=ROCK_SALT,
                cost=Cost(seconds=0.1, work=800, calls=100),
            ),
            recorded_at=NOW,
        )

    return make


@pytest.fixture(scope="session")
def decision() -> Callable[..., Decision]:
    def make(
        candidate_id: str, stage: str = "rules", iteration: int = 0, reason: str = "fine"
    ) -> Decision:
        return Decision(
            campaign_id="mgo",
            iteration=iteration,
            stage=stage,
            candidate_id=candidate_id,
            outcome="passed",
            reason=reason,
            selector="gate",
            evidence={"utility": 0.1 + 0.2},
        )

    return make


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URI of a MongoDB server of the tester's choice, or of the test server."""
    own = os.environ.get("MATLOOP_TEST_MONGODB_URI")
    if own:
        yield own
        return
    with ServerProcess(tmp_path_factory.mktemp("mongodb") / "journal") as server:
        yield server.uri


@pytest.fixture
def on_server(
    mongodb_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LedgerConfig]:
    """Return the configuration of a ledger in a database of its own, dropped afterwards."""
    monkeypatch.setenv("MATLOOP_MONGODB_URI", mongodb_uri)
    database = f"matloop_test_{uuid4().hex[:12]}"
    yield LedgerConfig(directory=str(tmp_path / "copies"), kind="mongodb", database=database)
    with MongoClient(mongodb_uri) as client:
        client.drop_database(database)
