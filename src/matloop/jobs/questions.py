"""What a stage's selector is asked, and what it says while candidates are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matloop import registry
from matloop.documents.campaign import Campaign, Stage
from matloop.documents.decision import Choice, Selection
from matloop.errors import MatloopError
from matloop.jobs.calculate import stage_engine
from matloop.jobs.evaluation import Standing
from matloop.jobs.handover import Chosen
from matloop.jobs.place import Place, derived_seed
from matloop.jobs.stage import StageWork
from matloop.jobs.treasury import Treasury, estimate
from matloop.protocols import Judged, NextCalculation, SelectionRequest, Selector


@dataclass(frozen=True)
class Question:
    """What a stage's selector is asked.

    Attributes
    ----------
    stage
        The stage as declared.
    selector
        Who is asked.
    request
        How.
    """

    stage: Stage
    selector: Selector
    request: SelectionRequest

    @classmethod
    def of(cls, work: StageWork) -> Question:
        """Return the question of a stage."""
        campaign, stage, place = work.campaign, work.stage, work.place
        request = SelectionRequest(
            campaign.objective,
            derived_seed(campaign.seed, place.iteration, f"stage {stage.name}"),
            stage.keep,
            final=is_final(campaign, stage),
            resources=place.resources(),
            calculation=_next_calculation(place, campaign, stage),
        )
        selector = registry.build("selectors", stage.select.use, stage.select.parameters)
        return cls(stage, selector, request)

    @property
    def apart(self) -> bool:
        """Whether the selector decides on each candidate without regard to the others."""
        says = getattr(self.selector, "decides_apart", None)
        return says is not None and bool(says(self.request))

    @property
    def at_once(self) -> bool:
        """Whether candidates can be decided while they are being judged: nothing is to be paid."""
        return self.apart and self.request.calculation is None

    def chosen(self, standings: Sequence[Standing]) -> list[Chosen]:
        """Return what the selector says of those who are judged, where it decides on each apart.

        Parameters
        ----------
        standings
            Where candidates stand.
        """
        complete = [item for item in standings if item.complete]
        choices = select(self.selector, [item.judged for item in complete], self.request)
        return [Chosen.of(choice, item) for item, choice in zip(complete, choices, strict=True)]

    def described(self, asked: Sequence[str]) -> Selection:
        """Return the question for the record.

        Parameters
        ----------
        asked
            About whom.
        """
        selector, use, request = self.selector, self.stage.select, self.request
        described = selector.as_dict() if hasattr(selector, "as_dict") else use.parameters
        return Selection(
            selector=use.use,
            parameters={name: v for name, v in described.items() if not name.startswith("@")},
            version=registry.version_of("selectors", use.use),
            seed=request.seed,
            keep=request.keep,
            final=request.final,
            asked=tuple(asked),
            resources=dict(request.resources.digests),
            calculates=request.calculation is not None,
            core_hours_left=request.calculation.left if request.calculation else None,
        )


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
