"""One turn of the loop as one jobflow Flow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobflow import Flow, Maker

from matloop.documents.campaign import Campaign
from matloop.jobs.advance import AdvanceMaker
from matloop.jobs.decide import DecideMaker
from matloop.jobs.evaluate import EvaluateMaker
from matloop.jobs.learn import LearnMaker
from matloop.jobs.place import Place
from matloop.jobs.prepare import PrepareMaker
from matloop.jobs.propose import ProposeMaker


@dataclass
class IterationMaker(Maker):
    """Propose, judge and decide stage by stage, learn, advance.

    Jobs carry places, never crystals, so that their documents stay small whatever the batch.
    """

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
        jobs = [propose]
        for stage in campaign.stages:
            here = replace(place, stage=stage.name)
            evaluate = EvaluateMaker(name=f"evaluate {stage.name}").stage(here)
            decide = DecideMaker(name=f"decide {stage.name}").stage(here)
            jobs += [evaluate, decide]
        learn = LearnMaker().iteration(place)
        advance = AdvanceMaker().iteration(place, learn.output)
        jobs += [learn, advance]
        return Flow(jobs, order="linear", name=f"{place.campaign_id} {self.name} {place.iteration}")


@dataclass
class PreparationMaker(Maker):
    """What comes before the first iteration: reference phases at the campaign's own level."""

    name: str = "prepare"

    def make(self, place: Place) -> Flow:
        """Return the flow that starts a campaign."""
        return Flow([PrepareMaker().make(place)], name=f"{place.campaign_id} {self.name}")
