"""One turn of the loop as one jobflow Flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from jobflow import Flow, Maker

from matloop.documents.campaign import Campaign
from matloop.jobs.advance import AdvanceMaker
from matloop.jobs.decide import DecideMaker
from matloop.jobs.evaluate import EvaluateMaker
from matloop.jobs.learn import LearnMaker
from matloop.jobs.place import Place
from matloop.jobs.placement import placed
from matloop.jobs.prepare import PrepareMaker
from matloop.jobs.propose import ProposeMaker
from matloop.jobs.sharding import Sharding


@dataclass
class IterationMaker(Maker):
    """Propose, judge and decide stage by stage, learn, advance.

    Jobs carry places, never crystals, so that their documents stay small whatever the batch.

    Attributes
    ----------
    shardings
        On a cluster: how each stage is split, by its name. A stage without one is a single job.
    control
        On a cluster: kind of worker for everything that is not sharded.
    proposing
        On a cluster: kind of worker that proposes, where it is another one.
    name
        Name of the flow.
    """

    shardings: Mapping[str, Sharding] = field(default_factory=dict)
    control: str = ""
    proposing: str = ""
    name: str = "iteration"

    def make(self, place: Place, campaign: Campaign) -> Flow:
        """Return the flow of one iteration.

        Parameters
        ----------
        place
            Ledger, campaign and iteration; its stage is ignored.
        campaign
            The campaign as declared.
        """
        propose = ProposeMaker().iteration(place)
        jobs = [placed(propose, place, self.proposing or self.control)]
        for stage in campaign.stages:
            here = replace(place, stage=stage.name)
            sharding = self.shardings.get(stage.name)
            maker = EvaluateMaker(sharding=sharding, name=f"evaluate {stage.name}")
            evaluate = maker.stage(here)
            decide = DecideMaker(name=f"decide {stage.name}").stage(here)
            jobs += [placed(evaluate, here, self.control), placed(decide, here, self.control)]
        learn = LearnMaker().iteration(place)
        advance = AdvanceMaker().iteration(place, learn.output)
        jobs += [placed(learn, place, self.control), placed(advance, place, self.control)]
        return Flow(jobs, order="linear", name=f"{place.campaign_id} {self.name} {place.iteration}")


@dataclass
class PreparationMaker(Maker):
    """What comes before the first iteration: reference phases at the campaign's own levels.

    Attributes
    ----------
    kinds
        On a cluster: kind of worker of each stage that computes energies, by its name.
    control
        On a cluster: kind of worker for everything else.
    name
        Name of the flow.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    control: str = ""
    name: str = "prepare"

    def make(self, place: Place) -> Flow:
        """Return the flow that starts a campaign."""
        first = next(iter(self.kinds.values()), "")
        prepare = placed(PrepareMaker(self.kinds, self.control).make(place), place, first)
        return Flow([prepare], name=f"{place.campaign_id} {self.name}")
