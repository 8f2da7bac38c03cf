"""A stage split into jobs that fit a cluster's walltime, without changing what is computed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

from monty.json import MSONable

from matloop.documents.evaluation import Evaluation
from matloop.jobs.attempts import StageDiary
from matloop.jobs.calculate import Calculation
from matloop.jobs.evaluation import Effort, Standing, evaluate
from matloop.jobs.place import Place
from matloop.jobs.stage import StageWork, worker_count
from matloop.jobs.survey import Share, Survey
from matloop.jobs.walltime import seconds_left
from matloop.protocols import Evaluator

MARGIN_SECONDS = 20.0
"""Walltime kept in reserve: what recording a chunk and handing on the rest may take (s)."""

CHUNK_SAFETY = 1.5
"""A chunk is started only if this many times the longest one so far still fits the walltime."""

MOST_CANDIDATES = 5000
"""Candidates in one shard at most, so that its process holds no more of them."""


@dataclass(frozen=True)
class Segment:
    """Evaluators in a row that are asked in the same way.

    Attributes
    ----------
    start, stop
        Position of the first evaluator, and of the one after the last.
    how
        ``apart`` where shards can be asked on their own, ``together`` for one that needs the whole
        batch, ``calculated`` for an engine, whose calculations are jobs of their own.
    """

    start: int
    stop: int
    how: Literal["apart", "together", "calculated"]


def segments(evaluators: Sequence[Evaluator]) -> list[Segment]:
    """Return a stage's evaluators as segments, in order."""
    found: list[Segment] = []
    for how, group in groupby(enumerate(evaluators), key=lambda item: _how(item[1])):
        numbers = [number for number, _ in group]
        if how == "apart":
            found.append(Segment(numbers[0], numbers[-1] + 1, how))
        else:
            found += [Segment(number, number + 1, how) for number in numbers]
    return found


def _how(evaluator: Evaluator) -> Literal["apart", "together", "calculated"]:
    if isinstance(evaluator, Calculation):
        return "calculated"
    return "together" if evaluator.scope == "batch" else "apart"


@dataclass(frozen=True)
class Sharding(MSONable):
    """How a stage's work is split on a cluster.

    Attributes
    ----------
    kind
        Kind of worker that runs the shards.
    control
        Kind of worker that splits and collects; if it is the same, cheap work is done right there.
    seconds
        What a shard may take: the walltime less what starting takes (s).
    least_seconds
        Work worth a job of its own, by the cost measured so far (s).
    most
        Shards at once, as many as workers may run. While the cost is unknown it is their number.
    cores
        Cores that a shard has, where the stage asks for a worker per core.
    inline_seconds
        Work that the splitting job does by itself before it sends out shards (s).
    """

    kind: str = "cpu"
    control: str = "cpu"
    seconds: float = 3000.0
    least_seconds: float = 300.0
    most: int = 10
    cores: int = 1
    inline_seconds: float = 30.0

    def first(self, work: StageWork, late: Mapping[str, int], segment: Segment) -> Survey:
        """Return how far the stage is after what the splitting job does by itself."""
        calculated = segment.how == "calculated"
        if self.kind != self.control or calculated:
            found = work.find_pieces(late, segment.stop).pieces()
            return Survey.of(work, found, late, awaited=calculated)
        end = time.monotonic() + self.inline_seconds

        def go_on(longest: float) -> bool:
            return time.monotonic() < end and enough_time(longest)

        return Survey.of(work, work.judge_pieces(go_on, late, until=segment.stop), late)

    def plan(self, work: StageWork, survey: Survey, segment: Segment) -> Plan:
        """Split what is missing into shards of whole chunks, and store the plan.

        Parameters
        ----------
        work
            The stage.
        survey
            How far it is.
        segment
            The evaluators to ask.
        """
        chunks = [
            list(chunk)
            for _, chunk in groupby(survey.missing, key=lambda share: share.position // work.chunk)
        ]
        count = self._count(work, survey, len(chunks))
        ledger = work.place.open()
        names, shards = [], []
        for first in range(count):
            shard = tuple(share for chunk in chunks[first::count] for share in chunk)
            listed = [[share.position, share.candidate_id, share.keys] for share in shard]
            content = json.dumps(listed).encode()
            names.append(ledger.put_artifact("shard", content, "application/json").sha256)
            shards.append(shard)
        seconds, core, gpu = (None if item is None else item / count for item in survey.left)
        plan = Plan(segment.start, segment.stop, tuple(shards), seconds, core, gpu)
        content = json.dumps({**plan.described(), "shards": names}).encode()
        artifact = ledger.put_artifact("plan", content, "application/json")
        return replace(plan, sha256=artifact.sha256)

    def _count(self, work: StageWork, survey: Survey, chunks: int) -> int:
        """Return the number of shards: enough for the walltime, and for the workers to share."""
        missing = len(survey.missing)
        least = math.ceil(missing / MOST_CANDIDATES)
        each = survey.mean_seconds or _earlier_mean(work)
        if each is None:
            return max(least, min(self.most, chunks))
        asked = work.stage.workers
        total = each * missing / max(self.cores if asked == "auto" else asked, 1)
        needed = math.ceil(total / self.seconds)
        useful = math.ceil(total / self.least_seconds)
        return max(1, min(chunks, max(least, needed, min(useful, self.most))))


@dataclass(frozen=True)
class Plan:
    """Who is in which shard.

    Attributes
    ----------
    start, stop
        The segment: positions of the first evaluator to ask and of the one after the last.
    shards
        The shares of each shard.
    seconds, core_hours, gpu_hours
        Budgets of each shard (s, h); None for no limit.
    sha256
        Hash of the stored plan.
    """

    start: int
    stop: int
    shards: tuple[tuple[Share, ...], ...]
    seconds: float | None = None
    core_hours: float | None = None
    gpu_hours: float | None = None
    sha256: str = field(default="", compare=False)

    def described(self) -> dict[str, float | None]:
        """Return what is stored of the plan beside the artifacts of its shards."""
        return {
            "start": self.start,
            "stop": self.stop,
            "seconds": self.seconds,
            "core_hours": self.core_hours,
            "gpu_hours": self.gpu_hours,
        }

    def judge(self, work: StageWork, index: int) -> list[Standing]:
        """Judge one shard as far as time allows."""
        shard, ledger = self.shards[index], work.place.open()
        earlier = ledger.evaluations(key for share in shard for key in share.keys)
        candidates = []
        read = work.read([share.candidate_id for share in shard])
        for share, entering in zip(shard, read, strict=True):
            candidate = entering
            for key in share.keys:
                said: Evaluation = earlier[key].evaluation
                candidate = candidate.updated(said.structure, said.quantities)
            candidates.append(candidate)
        effort = Effort(
            worker_count(work.stage),
            work.chunk,
            self.seconds,
            lambda longest: enough_time(longest) and not work.is_closed,
            self.core_hours,
            self.gpu_hours,
            work.place.record().created_at,
        )
        return evaluate(
            work.evaluators[self.start : self.stop],
            candidates,
            work.place.resources(),
            ledger,
            effort,
            diary=StageDiary(work.place),
            places=[share.position for share in shard],
        )

    def settled(self, work: StageWork, standings: Sequence[Standing]) -> bool:
        """Whether nothing is left to hand on, although not everyone is judged."""
        costs = [evaluation.cost for item in standings for evaluation in item.evaluations]
        limits = (
            (self.seconds, sum(cost.seconds for cost in costs)),
            (self.core_hours, sum(cost.core_hours for cost in costs)),
            (self.gpu_hours, sum(cost.gpu_hours for cost in costs)),
        )
        broke = any(limit is not None and paid >= limit for limit, paid in limits)
        return broke or work.is_closed


def read_plan(place: Place, sha256: str, index: int | None = None) -> Plan:
    """Return a stored plan.

    Parameters
    ----------
    place
        The stage.
    sha256
        Hash of the plan.
    index
        The only shard that is read, all others being empty; None reads all.
    """
    ledger = place.open()
    stored = json.loads(ledger.artifact_path(sha256).read_bytes())

    def shares(name: str) -> tuple[Share, ...]:
        listed = json.loads(ledger.artifact_path(name).read_bytes())
        return tuple(Share(position, who, tuple(keys)) for position, who, keys in listed)

    shards = tuple(
        shares(name) if index in (None, number) else ()
        for number, name in enumerate(stored["shards"])
    )
    seconds, core, gpu = (stored.get(name) for name in ("seconds", "core_hours", "gpu_hours"))
    return Plan(stored["start"], stored["stop"], shards, seconds, core, gpu, sha256)


def enough_time(longest: float) -> bool:
    """Whether a chunk that takes as long as the longest so far still fits the walltime."""
    left = seconds_left()
    return left is None or left > CHUNK_SAFETY * longest + MARGIN_SECONDS


def _earlier_mean(work: StageWork) -> float | None:
    place = work.place
    ledger = place.open()
    decisions = ledger.decisions(place.campaign_id, place.iteration - 1, place.stage)
    keys = [key for decision in decisions for key in decision.evaluations]
    found = ledger.evaluations(keys)
    if not decisions or not found:
        return None
    return sum(record.evaluation.cost.seconds for record in found.values()) / len(decisions)
