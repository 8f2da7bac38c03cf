"""Read a campaign out of the ledger: every candidate followed through its decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from matloop.documents.artifact import Artifact
from matloop.documents.campaign import Campaign, CampaignRecord, CandidateRecord, IterationState
from matloop.documents.candidate import PREDICTED, Candidate, Quantity
from matloop.documents.decision import Decision
from matloop.documents.evaluation import EvaluationRecord
from matloop.documents.phase import Archive, PhaseSet
from matloop.errors import LedgerError
from matloop.jobs.rungs import PHASES, Rung
from matloop.ledger.interface import Ledger
from matloop.ledger.past import Past, read_packed, read_past
from matloop.reports.contents import Spent
from matloop.structures.matching import IncomparableError, Matcher, Reduced

MATCHER = Matcher()
"""Decides what is the same crystal: novelty, duplicates and rediscoveries."""


@dataclass(frozen=True)
class Followed:
    """A candidate with everything that became of it.

    Attributes
    ----------
    record
        As proposed.
    decisions
        By stage, in the order of the ladder.
    evaluations
        Distinct evaluations of the decided stages, in the order they were made.
    final
        The candidate as the last decided stage left it.
    relaxed
        Whether an evaluation moved its atoms.
    predicted
        Predictions made before that, by name of the quantity predicted.
    levels
        The candidate as each level of theory left it, lowest first; None where it has no energy.
    """

    record: CandidateRecord
    decisions: Mapping[str, Decision]
    evaluations: tuple[EvaluationRecord, ...]
    final: Candidate
    relaxed: bool
    predicted: Mapping[str, Quantity]
    levels: tuple[Candidate | None, ...] = ()

    @property
    def lowest(self) -> Candidate:
        """The candidate as the lowest level of theory left it."""
        return next((level for level in self.levels if level is not None), self.final)

    @property
    def candidate_id(self) -> str:
        """Its id."""
        return self.record.candidate.candidate_id

    def passed(self, stage: str) -> bool:
        """Whether it passed a stage."""
        decision = self.decisions.get(stage)
        return decision is not None and decision.outcome == "passed"

    @cached_property
    def reduced(self) -> Reduced | None:
        """The final crystal, prepared for comparison; None if it cannot be compared."""
        try:
            return MATCHER.reduce(self.final.structure)
        except IncomparableError:
            return None

    @property
    def fate(self) -> str:
        """The last decision on it, in a few words."""
        if not self.decisions:
            return "not yet judged"
        last = list(self.decisions.values())[-1]
        return f"{last.outcome} at {last.stage}"


@dataclass(frozen=True)
class History:
    """A campaign as the ledger holds it.

    Attributes
    ----------
    candidates
        In the order of (iteration, index).
    states
        By iteration; never empty.
    relaxers
        Evaluators that moved atoms with a potential at least once.
    levels
        Levels of theory with a hull of their own, lowest first.
    engines
        Names of the engines.
    """

    record: CampaignRecord
    states: tuple[IterationState, ...]
    candidates: tuple[Followed, ...]
    relaxers: frozenset[str]
    levels: tuple[Rung, ...] = ()
    engines: frozenset[str] = frozenset()

    def costs(self) -> list[dict[str, Spent]]:
        """Return, per candidate, the cost of each stage; shared evaluations count once."""
        seen: set[str] = set()
        table = []
        for followed in self.candidates:
            by_key = {record.key: record for record in followed.evaluations}
            row = {}
            for stage, decision in followed.decisions.items():
                spent = Spent()
                for key in decision.evaluations:
                    if key not in seen:
                        seen.add(key)
                        spent += self._spent(by_key[key])
                row[stage] = spent
            table.append(row)
        return table

    def _spent(self, record: EvaluationRecord) -> Spent:
        cost = record.evaluation.cost
        reused = record.recorded_at < self.record.created_at
        return Spent(
            seconds=cost.seconds,
            work=cost.work,
            calls=cost.calls,
            evaluations=1,
            relaxations=int(record.evaluator in self.relaxers),
            calculations=int(record.evaluator in self.engines),
            core_hours=cost.core_hours,
            gpu_hours=cost.gpu_hours,
            reused_seconds=cost.seconds if reused else 0.0,
        )


def read_history(ledger: Ledger, campaign_id: str) -> History:
    """Follow every candidate of a campaign.

    Raises
    ------
    LedgerError
        If the ledger holds no such campaign, or no state of it.
    """
    record = ledger.campaign(campaign_id)
    if record is None:
        known = ", ".join(sorted(item.campaign_id for item in ledger.campaigns())) or "none"
        raise LedgerError(f"the ledger holds no campaign {campaign_id!r}; it holds: {known}")
    states = tuple(ledger.states(campaign_id))
    if not states:
        raise LedgerError(f"campaign {campaign_id!r} has not started: it has no state yet")
    levels = levels_of(record.campaign, states[-1].resources)
    past = read_past(ledger, campaign_id, record.campaign)
    candidates = tuple(_follow(item, levels) for item in past)
    engines = frozenset(s.calculate.use for s in record.campaign.stages if s.calculate)
    relaxers = frozenset(
        item.evaluator
        for followed in candidates
        for item in followed.evaluations
        if item.evaluation.structure is not None
        and item.evaluation.cost.calls > 0
        and item.evaluator not in engines
    )
    return History(record, states, candidates, relaxers, levels, engines)


def read_phases(ledger: Ledger, artifact: Artifact | None) -> PhaseSet | None:
    """Return the phases of a hull; None where a state names none."""
    return None if artifact is None else read_packed(ledger, artifact, PhaseSet)


def read_archive(ledger: Ledger, artifact: Artifact | None) -> Archive:
    """Return an archive of crystals; an empty one where a state names none."""
    return Archive() if artifact is None else read_packed(ledger, artifact, Archive)


def levels_of(campaign: Campaign, resources: Mapping[str, Artifact]) -> tuple[Rung, ...]:
    """Return the levels of theory that a state has hulls of, lowest first.

    Plugins need not be loaded for it, as for `matloop.jobs.rungs.rungs`.
    """
    found: list[Rung] = []
    before: tuple[str, ...] = ()
    stages: list[str] = []
    resource, energy = PHASES, None
    for stage in campaign.stages:
        if f"{PHASES}.{stage.name}" in resources:
            found.append(Rung(resource, energy, tuple(stages), before))
            before, stages = found[-1].so_far, []
            resource, energy = f"{PHASES}.{stage.name}", stage
        stages.append(stage.name)
    return (*found, Rung(resource, energy, tuple(stages), before))


def _left_by(past: Past, level: Rung) -> Candidate | None:
    quantities = past.judged(level.stages, level.before)
    if quantities is None:
        return None
    return past.after(level.so_far).model_copy(update={"quantities": quantities})


def _follow(past: Past, levels: Sequence[Rung]) -> Followed:
    predicted: dict[str, Quantity] = {}
    for item in past.results:
        if item.evaluation.structure is not None:
            break
        for name, quantity in item.evaluation.quantities.items():
            if name.startswith(PREDICTED):
                predicted[name.removeprefix(PREDICTED)] = quantity
    return Followed(
        record=past.record,
        decisions={decision.stage: decision for decision in past.decisions},
        evaluations=past.results,
        final=past.candidate,
        relaxed=past.relaxed,
        predicted=predicted,
        levels=tuple(_left_by(past, level) for level in levels) if len(levels) > 1 else (),
    )
