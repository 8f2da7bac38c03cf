"""Propose: the portfolio delivers what it can, and a broken member harms nobody."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from matloop import registry
from matloop.documents.campaign import Campaign, CampaignRecord, IterationState
from matloop.documents.phase import Phase, PhaseSet
from matloop.documents.space import ChemicalSpace
from matloop.errors import MatloopError
from matloop.jobs.place import Place, close_ledgers
from matloop.jobs.propose import ProposeMaker
from matloop.ledger.opening import LedgerConfig, open_ledger
from matloop.protocols import Proposal, ProposalRequest
from matloop.testing.toys import ToyGenerator, ToyRelaxation

CAMPAIGN = Campaign.model_validate(
    {
        "name": "portfolio",
        "space": {"system": "Al-Ni"},
        "objective": {"minimize": "e_above_hull"},
        "generators": ["random_symmetric", "evolution"],
        "stages": [{"name": "relaxation", "evaluate": ["relaxation", "hull_distance"]}],
        "budget": {"iterations": 1, "candidates": 10},
    }
)


class Broken(ToyGenerator):
    """A generator that raises."""

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        raise ZeroDivisionError("no lattice")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return the first iteration of a campaign whose hull holds one toy phase."""
    ledger = open_ledger(tmp_path, create=True)
    now = datetime.now(UTC)
    record = CampaignRecord(
        campaign_id="portfolio", campaign=CAMPAIGN, versions={}, machine={}, created_at=now
    )
    ledger.add_campaign(record)
    structure = ToyGenerator().propose(ProposalRequest(ChemicalSpace(system="Al"), 1, 1))
    theory = ToyRelaxation().theory
    phase = Phase(phase_id="Al", structure=structure[0].structure, energy=-1.0, theory=theory)
    phases = PhaseSet(theory=theory, phases=(phase,)).to_bytes()
    state = IterationState(
        campaign_id="portfolio",
        iteration=0,
        status="running",
        resources={"phases": ledger.put_artifact("phases", phases, "application/gzip")},
        shares={"random_symmetric": 0.5, "evolution": 0.5},
        created_at=now,
    )
    ledger.add_state(state)
    ledger.close()
    yield Place(LedgerConfig(directory=str(tmp_path)), "portfolio", 0)
    close_ledgers()


def use(monkeypatch: pytest.MonkeyPatch, **generators: object) -> None:
    """Let the portfolio's names stand for other generators."""
    monkeypatch.setattr(registry, "build", lambda kind, name, parameters: generators[name])


def test_a_broken_generator_leaves_its_places_to_the_others(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One member raises: the other fills all ten places, and a warning quotes the exception."""
    use(monkeypatch, random_symmetric=ToyGenerator(), evolution=Broken())
    with caplog.at_level(logging.WARNING):
        ProposeMaker().iteration.original(ProposeMaker(), place)
    records = place.open().candidates("portfolio", 0)
    assert Counter(r.candidate.origin.generator for r in records) == {"random_symmetric": 10}
    assert "generator evolution broke: ZeroDivisionError: no lattice" in caplog.text


def test_proposing_twice_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call after a death finds the candidates of the first."""
    use(monkeypatch, random_symmetric=ToyGenerator(), evolution=ToyGenerator(shortfall=2))
    ProposeMaker().iteration.original(ProposeMaker(), place)
    first = place.open().candidates("portfolio", 0)
    use(monkeypatch, random_symmetric=Broken(), evolution=Broken())
    ProposeMaker().iteration.original(ProposeMaker(), place)
    assert place.open().candidates("portfolio", 0) == first
    assert len(first) == 10


def test_an_empty_iteration_is_an_error_that_says_what_to_do(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody proposes anything: the campaign stops with a sentence instead of running empty."""
    use(monkeypatch, random_symmetric=Broken(), evolution=Broken())
    with pytest.raises(MatloopError, match="widen the chemical space"):
        ProposeMaker().iteration.original(ProposeMaker(), place)
