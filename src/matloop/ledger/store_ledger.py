"""The ledger over maggma stores: one class for the embedded database, MongoDB and memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from sys import intern
from typing import Any, TypeVar, get_args

from maggma.core import Store

from matloop.documents.artifact import Artifact
from matloop.documents.base import Document
from matloop.documents.campaign import CampaignRecord, CandidateRecord, IterationState
from matloop.documents.decision import Decision, Outcome
from matloop.documents.evaluation import Cost, EvaluationRecord
from matloop.documents.operation import Attempt, Closing, Control, Receipt, Reservation
from matloop.errors import LedgerError
from matloop.ledger.artifacts import ArtifactStore
from matloop.ledger.crystals import MOST, CrystalFiles
from matloop.ledger.encoding import Json
from matloop.ledger.insertion import ensure_index
from matloop.ledger.interface import Decided, Proposed
from matloop.ledger.locks import Locks
from matloop.ledger.matching import values_at
from matloop.ledger.recent import Recent
from matloop.ledger.records import Records
from matloop.ledger.sqlite import SQLiteStore

COLLECTIONS: Mapping[str, tuple[str, ...]] = {
    "campaigns": ("campaign_id",),
    "states": ("campaign_id", "iteration"),
    "candidates": ("campaign_id", "candidate.candidate_id"),
    "evaluations": ("key",),
    "decisions": ("campaign_id", "candidate_id", "stage", "iteration"),
    "artifacts": ("sha256", "kind"),
    "attempts": ("attempt_id",),
    "closings": ("campaign_id", "iteration", "stage"),
    "reservations": ("campaign_id", "key"),
    "receipts": ("receipt_id",),
    "controls": ("campaign_id", "number"),
}
"""Collections of a ledger, each with the fields that identify a document."""

READ_BY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("candidates", ("campaign_id", "iteration", "index")),
    ("decisions", ("campaign_id", "iteration", "order")),
    ("decisions", ("campaign_id", "stage", "iteration", "order")),
    ("attempts", ("campaign_id", "iteration", "stage")),
    ("receipts", ("campaign_id", "started_at")),
)
_CHUNK = 2000
_CANDIDATES_KEPT, _EVALUATIONS_KEPT = 2048, 8192  # some megabytes each

D = TypeVar("D", bound=Document)


class StoreLedger:
    """A `Ledger` over one maggma store per collection.

    Records are stored as their JSON form, with ``last_updated`` for maggma's builders; decisions
    also with ``order``, which counts them within an iteration. Crystals that are written together
    are in one file; see `matloop.ledger.crystals`. Candidates and evaluations read or written
    lately are kept in memory, with one structure each: plugins must not change them.

    Parameters
    ----------
    stores
        A store for each of `COLLECTIONS`; connected here, and closed by `close`.
    artifacts
        Where the bytes of artifacts are kept.
    locks
        Where campaigns are locked.

    Raises
    ------
    LedgerError
        If a store is missing or cannot be connected.
    """

    def __init__(self, stores: Mapping[str, Store], artifacts: ArtifactStore, locks: Locks) -> None:
        missing = sorted(COLLECTIONS.keys() - stores.keys())
        if missing:
            raise LedgerError(f"a ledger needs a store for {', '.join(missing)}")
        self._stores = dict(stores)
        self._artifacts = artifacts
        self._locks = locks
        crystals = CrystalFiles(self.put_artifact, self.artifact_path)
        self._records = Records(self._stores, COLLECTIONS, crystals)
        self._candidates: Recent[tuple[str, str], CandidateRecord] = Recent(_CANDIDATES_KEPT)
        self._evaluations: Recent[str, EvaluationRecord] = Recent(_EVALUATIONS_KEPT)
        with ExitStack() as undo:
            for store in self._stores.values():
                store.connect()
                undo.callback(store.close)
            for collection, fields in COLLECTIONS.items():
                ensure_index(self._stores[collection], fields, unique=True)
            for collection, fields in READ_BY:
                ensure_index(self._stores[collection], fields)
            undo.pop_all()

    def add_campaign(self, record: CampaignRecord) -> None:
        """Record a campaign under its `campaign_id`."""
        self._records.add("campaigns", [record])

    def campaign(self, campaign_id: str) -> CampaignRecord | None:
        """Return one campaign, None if there is none of that name."""
        records = self._records.read("campaigns", CampaignRecord, {"campaign_id": campaign_id})
        return next(records, None)

    def campaigns(self) -> list[CampaignRecord]:
        """Return all campaigns, oldest first."""
        records = self._records.read("campaigns", CampaignRecord, {})
        return sorted(records, key=lambda record: (record.created_at, record.campaign_id))

    def add_state(self, state: IterationState) -> bool:
        """Record the state that starts an iteration; False if there was one already."""
        return self._records.add("states", [state]) == 1

    def states(self, campaign_id: str) -> list[IterationState]:
        """Return all states of a campaign, by iteration."""
        criteria = {"campaign_id": campaign_id}
        return list(self._records.read("states", IterationState, criteria, ["iteration"]))

    def add_candidates(self, records: Sequence[CandidateRecord]) -> None:
        """Record proposals under (campaign, candidate id)."""
        for some in _slices(records):
            if self._records.add("candidates", some) == len(some):
                self._candidates.keep({_name(record): record for record in some})

    def candidates(
        self,
        campaign_id: str,
        iteration: int | None = None,
        candidate_ids: Iterable[str] | None = None,
    ) -> list[CandidateRecord]:
        """Return candidates in the order of (iteration, index)."""
        criteria: Json = {"campaign_id": campaign_id}
        if iteration is not None:
            criteria["iteration"] = iteration
        order = ["iteration", "index"]
        if candidate_ids is None:
            return list(self._records.read("candidates", CandidateRecord, criteria, order))
        asked = list(dict.fromkeys((campaign_id, name) for name in candidate_ids))
        known = self._candidates.found(asked)
        for some in _chunks(name for key in asked if key not in known for name in key[1:]):
            criteria["candidate.candidate_id"] = {"$in": some}
            read = {
                _name(r): r for r in self._records.read("candidates", CandidateRecord, criteria)
            }
            self._candidates.keep(read)
            known |= read
        found = [r for r in known.values() if iteration in (None, r.iteration)]
        return sorted(found, key=lambda record: (record.iteration, record.index))

    def candidate_ids(self, campaign_id: str, iteration: int) -> Iterator[str]:
        """Return the ids of one iteration's proposals, by index."""
        return (one.candidate_id for one in self.proposed(campaign_id, iteration))

    def proposed(self, campaign_id: str, iteration: int | None = None) -> Iterator[Proposed]:
        """Return who was proposed, in the order of (iteration, index), without their crystals."""
        criteria: Json = {"campaign_id": campaign_id}
        if iteration is not None:
            criteria["iteration"] = iteration
        fields = ["candidate.candidate_id", "iteration", "index", "candidate.origin.generator"]
        found = self._scalars("candidates", criteria, fields, ["iteration", "index"])
        return (Proposed(name, turn, place, intern(who)) for name, turn, place, who in found)

    def add_evaluations(self, records: Sequence[EvaluationRecord]) -> None:
        """Record results under their keys."""
        for some in _slices(records):
            if self._records.add("evaluations", some) == len(some):
                self._evaluations.keep({record.key: record for record in some})

    def evaluations(self, keys: Iterable[str]) -> dict[str, EvaluationRecord]:
        """Return those of the asked results that exist, by key, in the order asked."""
        asked = list(dict.fromkeys(keys))
        found = self._evaluations.found(asked)
        for some in _chunks(key for key in asked if key not in found):
            criteria = {"key": {"$in": some}}
            read = {r.key: r for r in self._records.read("evaluations", EvaluationRecord, criteria)}
            self._evaluations.keep(read)
            found |= read
        return {key: found[key] for key in asked if key in found}

    def costs(self, keys: Iterable[str]) -> dict[str, tuple[Cost, datetime]]:
        """Return what those of the asked results that exist cost, and when they were recorded."""
        fields = ["key", "evaluation.cost", "recorded_at"]
        found: dict[str, tuple[Cost, datetime]] = {}
        for some in _chunks(keys):
            for document in self._stores["evaluations"].query({"key": {"$in": some}}, fields):
                cost = Cost.model_validate(document["evaluation"]["cost"])
                found[document["key"]] = (cost, datetime.fromisoformat(document["recorded_at"]))
        return found

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        """Record decisions under (campaign, stage, candidate id, iteration)."""
        store = self._stores["decisions"]
        last: dict[tuple[str, int], int] = {}
        orders = []
        for decision in decisions:
            turn = (decision.campaign_id, decision.iteration)
            if turn not in last:
                criteria = {"campaign_id": turn[0], "iteration": turn[1]}
                newest = store.query_one(criteria, ["order"], sort={"order": -1})
                last[turn] = newest["order"] if newest else -1
            last[turn] += 1
            orders.append(last[turn])
        self._records.add("decisions", decisions, orders)

    def decisions(
        self,
        campaign_id: str,
        iteration: int | None = None,
        stage: str | None = None,
        candidate_ids: Iterable[str] | None = None,
    ) -> list[Decision]:
        """Return decisions, by iteration, in the order they were recorded."""
        criteria: Json = {"campaign_id": campaign_id}
        if iteration is not None:
            criteria["iteration"] = iteration
        if stage is not None:
            criteria["stage"] = stage
        if candidate_ids is None:
            return list(self._records.read("decisions", Decision, criteria, ["iteration", "order"]))
        found: list[tuple[int, int, Decision]] = []
        for some in _chunks(candidate_ids):
            criteria["candidate_id"] = {"$in": some}
            for number, one in self._records.ordered("decisions", Decision, criteria):
                found.append((one.iteration, number, one))
        found.sort(key=lambda item: item[:2])
        return [decision for _, _, decision in found]

    def outcomes(self, campaign_id: str, iteration: int, stage: str = "") -> Iterator[Decided]:
        """Return what was decided at one stage, or at all, in order, without reasons."""
        criteria: Json = {"campaign_id": campaign_id, "iteration": iteration}
        if stage:
            criteria["stage"] = stage
        fields = ["candidate_id", "outcome", "late"]
        found = self._scalars("decisions", criteria, fields, ["order"])
        words = {word: word for word in get_args(Outcome)}  # one text for all
        return (Decided(name, words[outcome], bool(late)) for name, outcome, late in found)

    def add_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Record what is about to be evaluated."""
        self._records.add("attempts", attempts)

    def attempts(self, campaign_id: str, iteration: int, stage: str) -> list[Attempt]:
        """Return the attempts of one stage, oldest first."""
        criteria = {"campaign_id": campaign_id, "iteration": iteration, "stage": stage}
        found = self._records.read("attempts", Attempt, criteria)
        return sorted(found, key=lambda attempt: (attempt.started_at, attempt.attempt_id))

    def add_closing(self, closing: Closing) -> bool:
        """Close a stage of an iteration; False if it was closed already."""
        return self._records.add("closings", [closing]) == 1

    def closing(self, campaign_id: str, iteration: int, stage: str) -> Closing | None:
        """Return how a stage was closed; None if it is open."""
        criteria = {"campaign_id": campaign_id, "iteration": iteration, "stage": stage}
        return next(self._records.read("closings", Closing, criteria), None)

    def add_reservations(self, reservations: Sequence[Reservation]) -> None:
        """Set money aside under (campaign, key)."""
        self._records.add("reservations", reservations)

    def reservations(self, campaign_id: str) -> list[Reservation]:
        """Return the reservations of a campaign, oldest first, settled or not."""
        found = self._records.read("reservations", Reservation, {"campaign_id": campaign_id})
        return sorted(found, key=lambda item: (item.reserved_at, item.key))

    def add_receipt(self, receipt: Receipt) -> None:
        """Record what a job took, once per `receipt_id`."""
        self._records.add("receipts", [receipt])

    def receipts(
        self, campaign_id: str | None = None, since: datetime | None = None
    ) -> list[Receipt]:
        """Return receipts of one campaign or of all, oldest first, begun at `since` or later."""
        criteria: Json = {} if campaign_id is None else {"campaign_id": campaign_id}
        if since is not None:  # stored as ISO 8601, whose days sort like text
            criteria["started_at"] = {"$gte": since.astimezone(UTC).strftime("%Y-%m-%d")}
        found = self._records.read("receipts", Receipt, criteria)
        kept = [receipt for receipt in found if since is None or receipt.started_at >= since]
        return sorted(kept, key=lambda receipt: (receipt.started_at, receipt.receipt_id))

    def add_control(self, control: Control) -> bool:
        """Record an order; False if there was one of that number already."""
        return self._records.add("controls", [control]) == 1

    def controls(self, campaign_id: str) -> list[Control]:
        """Return the orders given to a campaign, by number."""
        criteria = {"campaign_id": campaign_id}
        return list(self._records.read("controls", Control, criteria, ["number"]))

    def put_artifact(self, kind: str, content: bytes, media_type: str) -> Artifact:
        """Store bytes under their sha256 and return their description."""
        artifact = Artifact(
            sha256=self._artifacts.put(content),
            kind=kind,
            media_type=media_type,
            size=len(content),
        )
        self._records.add("artifacts", [artifact])
        return artifact

    def artifact_path(self, sha256: str) -> Path:
        """Return a local path to an artifact's bytes, checked against the hash.

        Raises
        ------
        LedgerError
            If there is no such artifact, or its bytes do not have that hash.
        """
        return self._artifacts.path(sha256)

    def lock(self, campaign_id: str) -> AbstractContextManager[None]:
        """Hold the campaign for this process; the lock dies with its owner.

        Raises
        ------
        LedgerLockedError
            If another live process holds it; the message names it.
        """
        return self._locks.hold(campaign_id)

    def close(self) -> None:
        """Release files and connections."""
        for store in self._stores.values():
            store.close()
        self._artifacts.close()

    def _scalars(
        self, collection: str, criteria: Json, fields: Sequence[str], order: Sequence[str]
    ) -> Iterator[tuple[Any, ...]]:
        store, sort = self._stores[collection], dict.fromkeys(order, 1)
        if isinstance(store, SQLiteStore):
            return store.scalars(criteria, fields, sort)
        found = store.query(criteria, list(fields), sort=sort)
        return (tuple(values_at(field, one)[0] for field in fields) for one in found)


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    distinct = iter(dict.fromkeys(values))
    while some := list(islice(distinct, _CHUNK)):
        yield some


def _slices(records: Sequence[D]) -> Iterator[Sequence[D]]:
    return (records[start : start + MOST] for start in range(0, len(records), MOST))


def _name(record: CandidateRecord) -> tuple[str, str]:
    return record.campaign_id, record.candidate.candidate_id
