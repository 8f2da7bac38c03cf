"""Choices of the past, as they were put to the selector: to be asked again, of it or of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matloop import registry
from matloop.documents.campaign import CampaignRecord, IterationState, Stage
from matloop.documents.decision import Choice, Decision, Selection
from matloop.documents.evaluation import Evaluation
from matloop.jobs.calculate import stage_engine
from matloop.jobs.place import derived_seed, stage_resources
from matloop.jobs.questions import is_final, paying_stage, select
from matloop.jobs.reading import entering
from matloop.jobs.treasury import estimate
from matloop.ledger.interface import Ledger
from matloop.protocols import Judged, NextCalculation, SelectionRequest, Selector


@dataclass(frozen=True)
class PastChoice:
    """What a stage's selector was asked in one iteration, and what it said.

    Attributes
    ----------
    iteration
        The iteration.
    selector
        Who was asked.
    batch
        About whom, in order.
    request
        How.
    decisions
        What it said, in the same order.
    on_record
        Whether the question itself was recorded; otherwise it was put together again from the
        campaign and its states.
    """

    iteration: int
    selector: Selector
    batch: tuple[Judged, ...]
    request: SelectionRequest
    decisions: tuple[Decision, ...]
    on_record: bool

    def again(self) -> list[Choice]:
        """Ask the same selector the same question again."""
        return select(self.selector, self.batch, self.request)

    def differing(self, choices: Sequence[Choice]) -> list[str]:
        """Return the candidates of whom something else is said now, by id.

        Parameters
        ----------
        choices
            What is said now, in the order of `batch`.
        """
        return [
            old.candidate_id
            for old, new in zip(self.decisions, choices, strict=True)
            if (old.outcome, old.reason, old.evidence) != (new.outcome, new.reason, new.evidence)
        ]


def past_choices(ledger: Ledger, record: CampaignRecord, stage: Stage) -> list[PastChoice]:
    """Return all choices a campaign has made at a stage, by iteration.

    Candidates stand as they stood then: predictions, distances and what had been learned are those
    of the iteration.

    Parameters
    ----------
    ledger
        Where they are recorded.
    record
        The campaign.
    stage
        One of its stages.
    """
    name = record.campaign_id
    decided: dict[int, list[Decision]] = {}
    for decision in ledger.decisions(name, stage=stage.name):
        decided.setdefault(decision.iteration, []).append(decision)
    states = {state.iteration: state for state in ledger.states(name)}
    found = []
    for iteration, decisions in sorted(decided.items()):
        keys = {key for decision in decisions for key in decision.evaluations}
        evaluations = {k: r.evaluation for k, r in ledger.evaluations(sorted(keys)).items()}
        digests = {decision.selection for decision in decisions} - {""}
        if digests:
            content = ledger.artifact_path(min(digests)).read_bytes()
            selection = Selection.model_validate_json(content)
        else:
            selection = _derived(record, stage, states[iteration], decisions, evaluations)
        by_id = {decision.candidate_id: decision for decision in decisions}
        names = selection.asked or [item.candidate_id for item in decisions if item.selection]
        asked = [by_id[name] for name in names]
        candidates = entering(
            ledger, name, record.campaign, stage.name, [item.candidate_id for item in asked]
        )
        batch = []
        for candidate, decision in zip(candidates, asked, strict=True):
            said = tuple(
                evaluations[key].model_copy(update={"candidate_id": candidate.candidate_id})
                for key in decision.evaluations
            )
            for evaluation in said:
                candidate = candidate.updated(  # noqa: PLW2901
                    evaluation.structure, evaluation.quantities
                )
            batch.append(Judged(candidate, said))
        found.append(
            PastChoice(
                iteration=iteration,
                selector=registry.build("selectors", selection.selector, selection.parameters),
                batch=tuple(batch),
                request=_request(ledger, record, stage, states[iteration], selection),
                decisions=tuple(asked),
                on_record=bool(digests),
            )
        )
    return found


def _request(
    ledger: Ledger,
    record: CampaignRecord,
    stage: Stage,
    state: IterationState,
    selection: Selection,
) -> SelectionRequest:
    paying = paying_stage(record.campaign, stage) if selection.calculates else None
    engine = stage_engine(paying) if paying else None
    price = None
    if engine is not None:
        price = NextCalculation(partial(estimate, engine), selection.core_hours_left)
    return SelectionRequest(
        record.campaign.objective,
        selection.seed,
        selection.keep,
        final=selection.final,
        resources=stage_resources(ledger, record.campaign, state, stage.name),
        calculation=price,
    )


def _derived(
    record: CampaignRecord,
    stage: Stage,
    state: IterationState,
    decisions: Sequence[Decision],
    evaluations: dict[str, Evaluation],
) -> Selection:
    """Put the question together for a ledger of before questions were recorded."""
    campaign = record.campaign
    count = len(stage.evaluate) + (stage.calculate is not None) + (stage == campaign.stages[0])

    def judged(decision: Decision) -> bool:
        said = [evaluations[key].verdict for key in decision.evaluations]
        return not decision.late and (len(said) == count or any(v != "pass" for v in said))

    return Selection(
        selector=stage.select.use,
        parameters=stage.select.parameters,
        seed=derived_seed(campaign.seed, state.iteration, f"stage {stage.name}"),
        keep=stage.keep,
        final=is_final(campaign, stage),
        asked=tuple(item.candidate_id for item in decisions if judged(item)),
        calculates=paying_stage(campaign, stage) is not None,
    )
