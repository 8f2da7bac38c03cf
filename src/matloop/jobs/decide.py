"""Decide: let a stage's selector say who goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

from jobflow import Maker, job

from matloop import registry
from matloop.documents.campaign import Campaign, Stage
from matloop.documents.candidate import Candidate
from matloop.documents.decision import Choice, Decision, Outcome, Selection
from matloop.documents.evaluation import Evaluation
from matloop.documents.objective import Objective
from matloop.errors import MatloopError
from matloop.events import Progress, report
from matloop.jobs.calculate import stage_engine
from matloop.jobs.collecting import collected_seldom
from matloop.jobs.evaluation import Standing
from matloop.jobs.handover import hand_over
from matloop.jobs.piecewise import PIECE, Piecewise
from matloop.jobs.place import Place, derived_seed
from matloop.jobs.stage import StageWork
from matloop.jobs.treasury import Treasury, estimate
from matloop.protocols import Judged, NextCalculation, SelectionRequest, Selector


@dataclass
class DecideMaker(Maker):
    """Turn judgements into decisions, exactly one per candidate, each with its reason.

    Attributes
    ----------
    selector
        Plugin that decides; None within a campaign, where the stage names it.
    name
        Name of the job.
    """

    selector: Selector | None = None
    name: str = "decide"

    @job(data="choices")
    def make(
        self,
        candidates: list[dict[str, object]],
        evaluations: list[list[dict[str, object]]],
        objective: dict[str, object],
        keep: int | None = None,
        seed: int = 0,
    ) -> dict[str, object]:
        """Return one choice per candidate.

        Parameters
        ----------
        candidates
            Fields of a `Candidate` each.
        evaluations
            Fields of each candidate's `Evaluation` documents.
        objective
            Fields of an `Objective`.
        keep
            Most candidates that may pass.
        seed
            The only source of randomness.
        """
        if self.selector is None:
            raise ValueError("DecideMaker needs a selector outside a campaign")
        batch = []
        for fields, results in zip(candidates, evaluations, strict=True):
            said = tuple(Evaluation.model_validate(result) for result in results)
            candidate = Candidate.model_validate(fields)
            for evaluation in said:
                candidate = candidate.updated(evaluation.structure, evaluation.quantities)
            batch.append(Judged(candidate, said))
        request = SelectionRequest(Objective.model_validate(objective), seed, keep)
        choices = select(self.selector, batch, request)
        return {"choices": [choice.model_dump(mode="json") for choice in choices]}

    @job
    @collected_seldom
    def stage(self, place: Place) -> dict[str, int]:
        """Record one decision per candidate of the stage, and return the outcomes' counts."""
        work = StageWork(place)
        ledger, campaign, stage = place.open(), work.campaign, work.stage
        late, why = work.closed()
        standings = work.find_pieces(late)
        selector = registry.build("selectors", stage.select.use, stage.select.parameters)
        seed = derived_seed(campaign.seed, place.iteration, f"stage {stage.name}")
        request = SelectionRequest(
            campaign.objective,
            seed,
            stage.keep,
            final=is_final(campaign, stage),
            resources=place.resources(),
            calculation=_next_calculation(place, campaign, stage),
        )
        # Pieces need not be read twice: decisions name whoever was asked.
        once = is_apart(selector, request) and len(standings) > PIECE
        asked = [] if once else [s.candidate.candidate_id for s in standings if s.complete]
        evidence = ledger.put_artifact(
            "selection",
            described(stage, selector, asked, request).model_dump_json().encode(),
            "application/json",
        )
        counts: Counter[Outcome] = Counter()
        for piece, choices in _chosen(selector, standings, asked, request):
            decisions = []
            for item in piece:
                name = item.candidate.candidate_id
                choice = choices.get(name)
                if choice is None:
                    reason = (
                        f"the stage closed before it was judged, because {why}; it joins the next "
                        "iteration"
                        if name in late
                        else work.shortage(item)
                    )
                    choice = Choice(candidate_id=name, outcome="held", reason=reason)
                decision = Decision(
                    campaign_id=place.campaign_id,
                    iteration=place.iteration,
                    stage=stage.name,
                    selector=stage.select.use,
                    evaluations=tuple(item.keys),
                    late=name in late,
                    selection=evidence.sha256 if item.complete else "",
                    **choice.model_dump(),
                )
                decisions.append(decision)
            ledger.add_decisions(decisions)
            passed = {one.candidate_id for one in decisions if one.outcome == "passed"}
            left = [item.candidate for item in piece if item.candidate.candidate_id in passed]
            hand_over(place, left)
            counts.update(decision.outcome for decision in decisions)
        outcomes = {outcome: counts[outcome] for outcome in get_args(Outcome)}
        report(
            Progress(
                place.iteration,
                campaign.budget.iterations,
                stage.name,
                counts.total(),
                counts.total(),
                tuple(outcomes.items()),
            )
        )
        return outcomes


def _chosen(
    selector: Selector,
    standings: Piecewise[Standing],
    asked: Sequence[str],
    request: SelectionRequest,
) -> Iterator[tuple[Sequence[Standing], dict[str, Choice]]]:
    """Yield the candidates in pieces, each with the choices among its complete ones.

    A selector that decides on each candidate apart is shown a piece at a time; another is shown all
    of them, which are read as he goes through them.
    """
    if is_apart(selector, request):
        for piece in standings.pieces():
            complete = [item.judged for item in piece if item.complete]
            chosen = select(selector, complete, request)
            yield piece, {choice.candidate_id: choice for choice in chosen}
        return
    positions = dict(zip(standings.names, range(len(standings)), strict=True))

    def load(names: Sequence[str]) -> list[Judged]:
        return [standings[positions[name]].judged for name in names]

    batch = Piecewise(asked, load)
    choices = {choice.candidate_id: choice for choice in select(selector, batch, request)}
    for piece in standings.pieces():
        yield piece, choices


def is_apart(selector: Selector, request: SelectionRequest) -> bool:
    """Whether a selector decides on each candidate without regard to the others."""
    says = getattr(selector, "decides_apart", None)
    return says is not None and bool(says(request))


def described(
    stage: Stage, selector: Selector, asked: Sequence[str], request: SelectionRequest
) -> Selection:
    """Return what a selector is asked, for the record.

    Parameters
    ----------
    stage
        The stage as declared.
    selector
        Who is asked.
    asked
        About whom.
    request
        How.
    """
    described = selector.as_dict() if hasattr(selector, "as_dict") else stage.select.parameters
    return Selection(
        selector=stage.select.use,
        parameters={name: v for name, v in described.items() if not name.startswith("@")},
        version=registry.version_of("selectors", stage.select.use),
        seed=request.seed,
        keep=request.keep,
        final=request.final,
        asked=tuple(asked),
        resources=dict(request.resources.digests),
        calculates=request.calculation is not None,
        core_hours_left=request.calculation.left if request.calculation else None,
    )


def is_final(campaign: Campaign, stage: Stage) -> bool:
    """Whether no stage after this one moves the atoms.

    Parameters
    ----------
    campaign, stage
        As declared.
    """
    later = campaign.stages[campaign.stages.index(stage) + 1 :]
    uses = [use for item in later for use in item.evaluate]
    return not any(item.calculate for item in later) and not any(
        getattr(registry.load("evaluators", use.use), "moves_atoms", False) for use in uses
    )


def paying_stage(campaign: Campaign, stage: Stage) -> Stage | None:
    """Return the next stage that calculates; None where there is none.

    Parameters
    ----------
    campaign, stage
        As declared.
    """
    later = campaign.stages[campaign.stages.index(stage) + 1 :]
    return next((item for item in later if item.calculate), None)


def _next_calculation(place: Place, campaign: Campaign, stage: Stage) -> NextCalculation | None:
    """Return what the calculation costs that awaits those who pass; None where there is none."""
    paying = paying_stage(campaign, stage)
    engine = stage_engine(paying) if paying else None
    if paying is None or engine is None:
        return None
    left = Treasury(place, campaign, paying, engine).left()
    return NextCalculation(partial(estimate, engine), left)


def select(selector: Selector, batch: Sequence[Judged], request: SelectionRequest) -> list[Choice]:
    """Return the selector's choices, checked: one per candidate, in order.

    Raises
    ------
    MatloopError
        If the selector forgot or invented a candidate; a funnel that does not add up is worse
        than a campaign that stops.
    """
    choices = selector.select(batch, request)
    asked = [item.candidate.candidate_id for item in batch]
    if [choice.candidate_id for choice in choices] != asked:
        raise MatloopError(
            f"selector {type(selector).__name__} must return one choice per candidate, in order: "
            f"asked for {len(asked)}, got {len(choices)}"
        )
    return choices
