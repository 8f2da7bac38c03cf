"""Send calculations out as jobs of their own, and give up on those that die without a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from jobflow import CURRENT_JOB, Flow

from matloop.documents.candidate import Candidate
from matloop.documents.evaluation import Evaluation
from matloop.errors import MatloopError
from matloop.jobs.attempts import StageDiary
from matloop.jobs.calculate import (
    CalculateMaker,
    Calculation,
    cannot_describe,
    recorded,
)
from matloop.jobs.place import Place
from matloop.protocols import Engine

DEATHS_TO_GIVE_UP = 2
"""Calculations of one crystal that left no document after which it gets a verdict all the same."""


@dataclass(frozen=True)
class Dispatch:
    """Sends the calculations of one stage out.

    A calculation that leaves no document has not failed: its node may have died, or its machine
    lacked something. So nothing is recorded then, and it is sent out again. Only when that has
    happened `DEATHS_TO_GIVE_UP` times is its crystal to blame, or not worth more.

    Attributes
    ----------
    place
        The stage, or its reference phases.
    engine
        Who calculates.
    kind, control
        Kinds of worker for calculations, and for the verdicts on them.
    """

    place: Place
    engine: Engine
    kind: str
    control: str

    def flows(self, candidates: Sequence[Candidate]) -> list[Flow]:
        """Return a flow per candidate that is to be calculated now.

        Who has died too often, and whom the engine cannot describe a calculation of, gets a verdict
        at once and no flow. A job that calls this and is run again counts as one attempt.

        Parameters
        ----------
        candidates
            Those without a verdict.
        """
        calculation = Calculation(self.engine)
        keys = {calculation.key(candidate): candidate for candidate in candidates}
        diary, mine = StageDiary(self.place), _this_job()
        deaths = diary.deaths(list(keys), without=mine)
        flows: list[Flow] = []
        for key, candidate in keys.items():
            died = deaths[key].alone if key in deaths else 0
            if died >= DEATHS_TO_GIVE_UP:
                self._fail(candidate, _quarantine(candidate.candidate_id, died))
                continue
            maker = CalculateMaker(self.engine)
            try:
                flow = maker.in_campaign(self.place, candidate, self.kind, self.control)
            except MatloopError:
                raise
            except Exception as error:
                self._fail(candidate, cannot_describe(self.engine, error))
                continue
            diary.begin([key], isolated=True, name=f"{mine}/{key}")
            flows.append(flow)
        return flows

    def _fail(self, candidate: Candidate, reason: str) -> None:
        verdict = Evaluation(candidate_id=candidate.candidate_id, verdict="fail", reason=reason)
        record = recorded(self.engine, candidate, verdict)
        self.place.open().add_evaluations([record])


def _quarantine(name: str, died: int) -> str:
    return (
        f"its calculation died {died} times without a word; the launches of the fireworks named "
        f"{name!r} say more"
    )


def _this_job() -> str:
    """Return a name for the job at hand that it keeps when it is run again."""
    job = CURRENT_JOB.job
    return uuid4().hex if job is None else f"{job.uuid}.{job.index}"
