"""One stage of a campaign as its jobs see it: who judges, who is judged, and what is known."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial

from matloop import registry
from matloop.documents.campaign import Campaign, Stage
from matloop.documents.candidate import Candidate
from matloop.documents.operation import Attempt, Closing
from matloop.events import Progress, report
from matloop.jobs.attempts import StageDiary, worker_name
from matloop.jobs.calculate import Calculation, stage_engine
from matloop.jobs.evaluation import (
    Effort,
    Standing,
    evaluate,
    for_nothing,
    is_calculation,
)
from matloop.jobs.handover import handed_over, judged_here
from matloop.jobs.names import Names
from matloop.jobs.piecewise import PIECE, Piecewise
from matloop.jobs.place import Place
from matloop.jobs.reading import entering, entering_ids
from matloop.jobs.treasury import Treasury
from matloop.jobs.workers import always, never, usable_cores
from matloop.ledger.accounts import WHOLE, accounts
from matloop.protocols import Evaluator

_BUSY = 8  # chunks per worker in a piece


@dataclass(frozen=True)
class StageWork:
    """What a stage has to do and what of it is done.

    Attributes
    ----------
    place
        The stage.
    elsewhere
        Whether calculations are jobs of their own, so that they are only found here.
    """

    place: Place
    elsewhere: bool = False

    @cached_property
    def campaign(self) -> Campaign:
        """The campaign as declared."""
        return self.place.record().campaign

    @cached_property
    def stage(self) -> Stage:
        """The stage as declared."""
        return next(item for item in self.campaign.stages if item.name == self.place.stage)

    @cached_property
    def evaluators(self) -> list[Evaluator]:
        """Who judges, in order."""
        return stage_evaluators(self.campaign, self.stage, elsewhere=self.elsewhere)

    @property
    def chunk(self) -> int:
        """Candidates judged and recorded together; a calculation is one on its own."""
        return 1 if self.stage.calculate else self.stage.chunk

    @cached_property
    def candidate_ids(self) -> Names:
        """Who enters, in order."""
        place = self.place
        return entering_ids(
            place.open(), place.campaign_id, self.campaign, place.iteration, place.stage
        )

    def read(self, candidate_ids: Sequence[str]) -> list[Candidate]:
        """Return some of the candidates as they stand on entering."""
        place = self.place
        names = [stage.name for stage in self.campaign.stages]
        number = names.index(place.stage)
        here = handed_over(place, names[number - 1] if number else "", candidate_ids)
        rest = [name for name in candidate_ids if name not in here]
        for item in entering(place.open(), place.campaign_id, self.campaign, place.stage, rest):
            here[item.candidate_id] = item
        return [here[name] for name in candidate_ids]

    def find_pieces(
        self, late: Mapping[str, int] = {}, until: int | None = None
    ) -> Piecewise[Standing]:
        """Return where every candidate stands by what is recorded, computing nothing.

        It is read piece by piece when it is asked for.

        Parameters
        ----------
        late, until
            As for `judge_pieces`.
        """
        effort = Effort(chunk=self.chunk, go_on=never)
        evaluators, resources = self.evaluators[:until], self.place.resources()
        whole = any(evaluator.scope == "batch" for evaluator in evaluators)
        size = max(len(self.candidate_ids), 1) if whole else 0

        def load(candidate_ids: Sequence[str]) -> list[Standing]:
            here = {} if late or until is not None else judged_here(self.place, candidate_ids)
            rest = [name for name in candidate_ids if name not in here]
            if whole and rest:
                rest = list(candidate_ids)  # a verdict on a batch is found by the whole of it
            read = evaluate(
                evaluators, self.read(rest), resources, self.place.open(), effort, late=late
            )
            here |= {item.candidate.candidate_id: item for item in read}
            return [here[name] for name in candidate_ids]

        return Piecewise(self.candidate_ids, load, size)

    def judge_pieces(
        self,
        go_on: Callable[[float], bool] = always,
        late: Mapping[str, int] = {},
        until: int | None = None,
    ) -> Iterator[list[Standing]]:
        """Judge the candidates piece by piece; a piece that was passed on is held no longer.

        An evaluator that needs the whole batch makes one piece of it. Otherwise a piece keeps all
        workers busy for several chunks.

        Parameters
        ----------
        go_on
            Asked before every chunk.
        late
            Candidates the stage does not wait for, with the number of evaluators that judged them.
        until
            Number of evaluators to ask; all by default.
        """
        core_hours, gpu_hours = self.hours_left()
        treasury = self.treasury
        effort = Effort(
            worker_count(self.stage),
            self.chunk,
            self.seconds_left(),
            go_on,
            core_hours,
            gpu_hours,
            self.place.record().created_at,
            treasury.admit if treasury else for_nothing,
        )
        evaluators, everyone = self.evaluators[:until], self.candidate_ids
        whole = any(evaluator.scope == "batch" for evaluator in evaluators)
        chunks = max(-(-PIECE // effort.chunk), _BUSY * effort.workers)  # none is cut in two
        size = len(everyone) if whole else chunks * effort.chunk
        resources, diary, purse = self.place.resources(), StageDiary(self.place), effort.purse()
        for start in range(0, len(everyone), max(size, 1)):
            names = list(everyone[start : start + size])
            yield evaluate(
                evaluators,
                self.read(names),
                resources,
                self.place.open(),
                effort,
                partial(self._tell_from, start),
                diary,
                range(start, start + len(names)),
                late,
                purse,
            )

    def _tell_from(self, start: int, done: int) -> None:
        self.tell(start + done)

    def tell(self, done: int) -> None:
        """Report how many of the candidates are done with."""
        turns = self.campaign.budget.iterations
        everyone = len(self.candidate_ids)
        report(Progress(self.place.iteration, turns, self.stage.name, done, everyone))

    def seconds_left(self) -> float | None:
        """Return the stage's budget less what earlier iterations spent (s); None for no limit."""
        if self.stage.seconds is None:
            return None
        spent, ledger = 0.0, self.place.open()
        for iteration in range(self.place.iteration):
            decisions = ledger.decisions(self.place.campaign_id, iteration, self.stage.name)
            keys = {key for decision in decisions for key in decision.evaluations}
            spent += sum(r.evaluation.cost.seconds for r in ledger.evaluations(keys).values())
        return self.stage.seconds - spent

    @cached_property
    def treasury(self) -> Treasury | None:
        """Who sets aside the cost of the stage's calculations; None where it has no engine."""
        engine = stage_engine(self.stage)
        return Treasury(self.place, self.campaign, self.stage, engine) if engine else None

    def hours_left(self) -> tuple[float | None, float | None]:
        """Return the core-hours and GPU-hours left to the stage (h); None for no limit.

        What this iteration's evaluations of the stage cost is not taken off yet.
        """
        if not self._hours_limited:
            return None, None
        place = self.place
        here = (place.iteration, place.stage)
        known = accounts(place.open(), place.campaign_id, without=here)
        own, whole = known[place.stage], known[WHOLE]
        return (
            _least(own.core_hours.left, whole.core_hours.left),
            _least(own.gpu_hours.left, whole.gpu_hours.left),
        )

    def hours_paid(self, standings: Sequence[Standing]) -> tuple[float, float]:
        """Return the core-hours and GPU-hours that the campaign paid for some candidates (h).

        Calculations, which are paid in advance, are left out; where no hours are limited nobody
        counts them.

        Parameters
        ----------
        standings
            Where the candidates stand.
        """
        if not self._hours_limited:
            return 0.0, 0.0
        since = self.place.record().created_at
        keys = [
            key
            for item in standings
            for key, evaluator in zip(item.keys, self.evaluators, strict=False)
            if not is_calculation(evaluator)
        ]
        known = self.place.open().costs(keys).values()
        paid = [cost for cost, when in known if when >= since]
        return sum(cost.core_hours for cost in paid), sum(cost.gpu_hours for cost in paid)

    @property
    def _hours_limited(self) -> bool:
        limits = (self.stage, self.campaign.budget)
        return any(item.core_hours is not None or item.gpu_hours is not None for item in limits)

    def shortage(self, standing: Standing) -> str:
        """Return why a candidate that was not judged could not be paid for.

        Parameters
        ----------
        standing
            Where it stands.
        """
        if self.treasury and self._awaits_calculation(standing):
            hours = self.treasury.estimate(standing.candidate)
            return self.treasury.objection(hours) or (
                f"its calculation, an estimated {hours:.3g} core-hours, has no verdict"
            )
        if self.stage.seconds is not None:
            return f"the stage's budget of {self.stage.seconds:g} s is spent"
        known = accounts(self.place.open(), self.place.campaign_id)
        for name, owner in ((self.place.stage, "the stage's"), (WHOLE, "the campaign's")):
            for kind in ("core_hours", "gpu_hours"):
                limit = getattr(known[name], kind).limit
                if limit is not None:
                    return f"{owner} budget of {limit:g} {kind.replace('_', '-')} is spent"
        return "it was not judged"

    def _awaits_calculation(self, standing: Standing) -> bool:
        asked = len(standing.evaluations)
        return asked < len(self.evaluators) and is_calculation(self.evaluators[asked])

    def begin(self) -> datetime:
        """Note that the stage has begun, once, and return when that was."""
        ledger, place = self.place.open(), self.place
        name = f"{place.campaign_id}/{place.iteration}/{place.stage}"
        mark = Attempt(
            attempt_id=name,
            campaign_id=place.campaign_id,
            iteration=place.iteration,
            stage=place.stage,
            keys=(),
            worker=worker_name(),
            started_at=datetime.now(UTC),
        )
        ledger.add_attempts([mark])
        return ledger.attempts(place.campaign_id, place.iteration, place.stage)[0].started_at

    def close(self, late: Mapping[str, int], reason: str) -> None:
        """Take no more results: decisions follow, without those who are late.

        Parameters
        ----------
        late
            Ids of the candidates it closes without, with the number of evaluators that judged them.
        reason
            Why the stage does not wait for them.
        """
        place, ledger, sha256 = self.place, self.place.open(), ""
        if late:
            content = json.dumps(dict(late)).encode()
            sha256 = ledger.put_artifact("late", content, "application/json").sha256
        closing = Closing(
            campaign_id=place.campaign_id,
            iteration=place.iteration,
            stage=place.stage,
            late=sha256,
            reason=reason,
            closed_at=datetime.now(UTC),
        )
        ledger.add_closing(closing)

    def closed(self) -> tuple[dict[str, int], str]:
        """Return whom the stage was closed without, as `close` was told, and why."""
        place, ledger = self.place, self.place.open()
        closing = ledger.closing(place.campaign_id, place.iteration, place.stage)
        if closing is None or not closing.late:
            return {}, ""
        late: dict[str, int] = json.loads(ledger.artifact_path(closing.late).read_bytes())
        return late, closing.reason

    @property
    def is_closed(self) -> bool:
        """Whether the stage takes no more results."""
        place = self.place
        return place.open().closing(place.campaign_id, place.iteration, place.stage) is not None

    def closing(self, judged: int, entered: int) -> str:
        """Return why the stage may close without the rest; empty if it may not.

        Parameters
        ----------
        judged, entered
            How many candidates are judged, of how many.
        """
        hours = (datetime.now(UTC) - self.begin()).total_seconds() / 3600
        if self.stage.deadline is not None and hours >= self.stage.deadline:
            return f"its deadline of {self.stage.deadline:g} h has passed"
        if self.stage.quorum < 1 and judged >= self.stage.quorum * entered:
            return f"{judged} of {entered} are judged, its quorum is {self.stage.quorum:g}"
        return ""


def stage_evaluators(
    campaign: Campaign, stage: Stage, *, elsewhere: bool = False
) -> list[Evaluator]:
    """Return who judges a stage's candidates, in order.

    The first stage also asks whether the space is kept, and before anything else; an engine comes
    before the evaluators.

    Parameters
    ----------
    campaign, stage
        As declared.
    elsewhere
        Whether calculations are jobs of their own, so that they are only found here.
    """
    evaluators = [registry.build("evaluators", use.use, use.parameters) for use in stage.evaluate]
    if engine := stage_engine(stage):
        evaluators.insert(0, Calculation(engine, found_only=elsewhere))
    if stage == campaign.stages[0]:
        bounds = {
            name: getattr(campaign.space, name)
            for name in type(campaign.space).model_fields
            if name != "charge_balance"
        }
        bounds = {k: list(v) if isinstance(v, tuple) else v for k, v in bounds.items()}
        evaluators.insert(0, registry.build("evaluators", "chemical_space", bounds))
    return evaluators


def worker_count(stage: Stage) -> int:
    """Return the number of worker processes a stage asks for on this machine.

    ``auto`` is one per core; one in all for a process that has been given one GPU of several.
    """
    if stage.workers != "auto":
        return stage.workers
    cards = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return 1 if cards and "," not in cards else usable_cores()


def _least(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
