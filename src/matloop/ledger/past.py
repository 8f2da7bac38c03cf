"""Read a campaign back from its ledger: every candidate with all that became of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from matloop.documents.artifact import Artifact
from matloop.documents.campaign import Campaign, CandidateRecord
from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.decision import TURNED_DOWN, Decision
from matloop.documents.evaluation import Evaluation, EvaluationRecord
from matloop.documents.phase import Packed
from matloop.errors import LedgerError
from matloop.ledger.interface import Ledger

ENERGY = "energy_per_atom"

PackedT = TypeVar("PackedT", bound=Packed)


@dataclass(frozen=True)
class Past:
    """One candidate with everything the ledger knows of it.

    Attributes
    ----------
    record
        The candidate as proposed, and its place in the campaign.
    decisions
        Its decisions, in the order of the stages.
    results
        The distinct evaluations behind them, in the order they were asked for. One that several
        candidates share bears the id of the first that asked.
    """

    record: CandidateRecord
    decisions: tuple[Decision, ...]
    results: tuple[EvaluationRecord, ...]

    @property
    def candidate_id(self) -> str:
        """Its id."""
        return self.record.candidate.candidate_id

    @cached_property
    def candidate(self) -> Candidate:
        """The candidate as it stands after all stages it went through."""
        return self.after({decision.stage for decision in self.decisions})

    @property
    def evaluations(self) -> list[Evaluation]:
        """What the distinct evaluations say."""
        return [result.evaluation for result in self.results]

    @property
    def relaxed(self) -> bool:
        """Whether some evaluation moved its atoms."""
        return any(evaluation.structure is not None for evaluation in self.evaluations)

    def passed(self, stage: str) -> bool:
        """Whether it passed a stage."""
        return any(item.stage == stage and item.outcome == "passed" for item in self.decisions)

    def belongs(self, stage: str, *, top: bool) -> bool:
        """Whether a stage found a candidate good enough for the hull of its level of theory.

        On the highest level it has passed. Below, where only a few go on to be calculated, one
        that had no place counts as well, and one that an evaluator rejected does not, though it may
        have gone on as an audit.

        Parameters
        ----------
        stage
            The last stage of the level.
        top
            Whether it is the highest level.
        """
        if top:
            return self.passed(stage)
        return any(
            decision.stage == stage
            and decision.outcome in ("passed", "held")
            and decision.evidence.get(TURNED_DOWN) != 1.0
            for decision in self.decisions
        )

    def judged(self, stages: Collection[str], below: Collection[str]) -> dict[str, Quantity] | None:
        """Return its quantities at a level of theory; None if no energy of it is known there.

        Parameters
        ----------
        stages
            The stages of the level.
        below
            The stages before them.
        """
        evaluations = {result.key: result.evaluation for result in self.results}
        energies = [
            evaluations[key].quantities[ENERGY].theory
            for decision in self.decisions
            if decision.stage in stages
            for key in decision.evaluations
            if ENERGY in evaluations[key].quantities
        ]
        if not energies:
            return None
        found = self.after([*below, *stages]).quantities
        return {n: q for n, q in found.items() if q.theory in (None, energies[-1])}

    def after(self, stages: Collection[str]) -> Candidate:
        """Return the candidate as these stages left it; as proposed where there are none."""
        evaluations = {result.key: result.evaluation for result in self.results}
        found = [
            evaluations[key]
            for decision in self.decisions
            if decision.stage in stages
            for key in decision.evaluations
        ]
        return self.record.candidate.updated_by((one.structure, one.quantities) for one in found)


def read_past(
    ledger: Ledger,
    campaign_id: str,
    campaign: Campaign,
    candidate_ids: Collection[str] | None = None,
) -> list[Past]:
    """Return all candidates of a campaign, or those asked for, in the order proposed.

    Of a candidate that met a stage twice, because its result was late, the last decision counts.

    Raises
    ------
    LedgerError
        If an evaluation that a decision rests on is not there.
    """
    order = {stage.name: position for position, stage in enumerate(campaign.stages)}
    decided: dict[str, dict[str, Decision]] = {}
    for decision in ledger.decisions(campaign_id, candidate_ids=candidate_ids):
        decided.setdefault(decision.candidate_id, {})[decision.stage] = decision
    keys = {key for many in decided.values() for one in many.values() for key in one.evaluations}
    results = ledger.evaluations(sorted(keys))
    if len(results) < len(keys):
        lost = min(keys - results.keys())
        raise LedgerError(f"campaign {campaign_id!r} rests on evaluation {lost}, which is missing")
    past = []
    for record in ledger.candidates(campaign_id, candidate_ids=candidate_ids):
        decisions = list(decided.get(record.candidate.candidate_id, {}).values())
        decisions.sort(key=lambda decision: order[decision.stage])
        asked = dict.fromkeys(key for decision in decisions for key in decision.evaluations)
        past.append(Past(record, tuple(decisions), tuple(results[key] for key in asked)))
    return past


def read_packed(ledger: Ledger, artifact: Artifact, kind: type[PackedT]) -> PackedT:
    """Return the document that an artifact holds: a `PhaseSet` or an `Archive`."""
    return kind.from_bytes(ledger.artifact_path(artifact.sha256).read_bytes())
