"""The ledger's contract: append-only collections that make a campaign restartable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from matloop.documents.artifact import Artifact
from matloop.documents.campaign import CampaignRecord, CandidateRecord, IterationState
from matloop.documents.decision import Decision, Outcome
from matloop.documents.evaluation import Cost, EvaluationRecord
from matloop.documents.operation import Attempt, Closing, Control, Receipt, Reservation


class Proposed(NamedTuple):
    """Who was proposed where, and by whom."""

    candidate_id: str
    iteration: int
    place: int
    generator: str


class Decided(NamedTuple):
    """What became of a candidate at a stage."""

    candidate_id: str
    outcome: Outcome
    late: bool


class Ledger(Protocol):
    """The database of campaigns.

    Every ``add`` is *insert if absent* under the collection's unique key, in one transaction where
    the database has them: repeating it changes nothing, and the first writer wins.
    """

    def add_campaign(self, record: CampaignRecord) -> None:
        """Record a campaign under its `campaign_id`."""
        ...

    def campaign(self, campaign_id: str) -> CampaignRecord | None:
        """Return one campaign, None if there is none of that name."""
        ...

    def campaigns(self) -> list[CampaignRecord]:
        """Return all campaigns, oldest first."""
        ...

    def add_state(self, state: IterationState) -> bool:
        """Record the state that starts an iteration; False if there was one already."""
        ...

    def states(self, campaign_id: str) -> list[IterationState]:
        """Return all states of a campaign, by iteration."""
        ...

    def add_candidates(self, records: Sequence[CandidateRecord]) -> None:
        """Record proposals under (campaign, candidate id)."""
        ...

    def candidates(
        self,
        campaign_id: str,
        iteration: int | None = None,
        candidate_ids: Iterable[str] | None = None,
    ) -> list[CandidateRecord]:
        """Return candidates in the order of (iteration, index)."""
        ...

    def candidate_ids(self, campaign_id: str, iteration: int) -> Iterator[str]:
        """Return the ids of one iteration's proposals, by index, without reading their crystals."""
        ...

    def proposed(self, campaign_id: str, iteration: int | None = None) -> Iterator[Proposed]:
        """Return who was proposed, in the order of (iteration, index), without their crystals."""
        ...

    def add_evaluations(self, records: Sequence[EvaluationRecord]) -> None:
        """Record results under their keys."""
        ...

    def evaluations(self, keys: Iterable[str]) -> dict[str, EvaluationRecord]:
        """Return those of the asked results that exist, by key."""
        ...

    def costs(self, keys: Iterable[str]) -> dict[str, tuple[Cost, datetime]]:
        """Return what those of the asked results that exist cost, and when they were recorded.

        Their crystals are not read.
        """
        ...

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        """Record decisions under (campaign, stage, candidate id, iteration)."""
        ...

    def decisions(
        self,
        campaign_id: str,
        iteration: int | None = None,
        stage: str | None = None,
        candidate_ids: Iterable[str] | None = None,
    ) -> list[Decision]:
        """Return decisions, by iteration, in the order they were recorded."""
        ...

    def outcomes(self, campaign_id: str, iteration: int, stage: str = "") -> Iterator[Decided]:
        """Return what was decided at one stage, or at all, in order, without reasons."""
        ...

    def add_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Record what is about to be evaluated."""
        ...

    def attempts(self, campaign_id: str, iteration: int, stage: str) -> list[Attempt]:
        """Return the attempts of one stage, oldest first."""
        ...

    def add_closing(self, closing: Closing) -> bool:
        """Close a stage of an iteration; False if it was closed already."""
        ...

    def closing(self, campaign_id: str, iteration: int, stage: str) -> Closing | None:
        """Return how a stage was closed; None if it is open."""
        ...

    def add_reservations(self, reservations: Sequence[Reservation]) -> None:
        """Set money aside under (campaign, key)."""
        ...

    def reservations(self, campaign_id: str) -> list[Reservation]:
        """Return the reservations of a campaign, oldest first, settled or not."""
        ...

    def add_receipt(self, receipt: Receipt) -> None:
        """Record what a job took, once per `receipt_id`."""
        ...

    def receipts(
        self, campaign_id: str | None = None, since: datetime | None = None
    ) -> list[Receipt]:
        """Return receipts of one campaign or of all, oldest first, begun at `since` or later."""
        ...

    def add_control(self, control: Control) -> bool:
        """Record an order; False if there was one of that number already."""
        ...

    def controls(self, campaign_id: str) -> list[Control]:
        """Return the orders given to a campaign, by number."""
        ...

    def put_artifact(self, kind: str, content: bytes, media_type: str) -> Artifact:
        """Store bytes under their sha256 and return their description."""
        ...

    def artifact_path(self, sha256: str) -> Path:
        """Return a local path to an artifact's bytes, checked against the hash.

        Raises
        ------
        LedgerError
            If there is no such artifact, or its bytes do not have that hash.
        """
        ...

    def lock(self, campaign_id: str) -> AbstractContextManager[None]:
        """Hold the campaign for this process; the lock dies with its owner.

        Raises
        ------
        LedgerLockedError
            If another live process holds it; the message names it.
        """
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...
