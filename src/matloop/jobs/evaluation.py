"""Evaluate candidates with a stage's evaluators, finding and keeping results under their keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from matloop.documents.candidate import Candidate
from matloop.documents.evaluation import Evaluation, EvaluationRecord
from matloop.jobs.diary import (
    DEATHS_TO_QUARANTINE,
    DEATHS_TO_SEPARATE,
    Deaths,
    Diary,
    NoDiary,
)
from matloop.jobs.keys import Digests, evaluation_keys, method_digest
from matloop.jobs.purse import Purse
from matloop.jobs.workers import Chunk, always, evaluate_apart, evaluate_chunks
from matloop.protocols import Evaluator, Judged, Resources
from matloop.registry import name_of

CHEAP_CHUNK = 512
"""Candidates judged and recorded together, at least, by an evaluator that is `cheap`."""


class Shelf(Protocol):
    """Where results are kept and found again: the ledger, or `Memory` outside a campaign."""

    def evaluations(self, keys: Iterable[str]) -> dict[str, EvaluationRecord]:
        """Return those of the asked results that exist."""
        ...

    def add_evaluations(self, records: Sequence[EvaluationRecord]) -> None:
        """Keep results; the first one under a key stays."""
        ...


class Memory:
    """A shelf for one run without a ledger."""

    def __init__(self) -> None:
        self._records: dict[str, EvaluationRecord] = {}

    def evaluations(self, keys: Iterable[str]) -> dict[str, EvaluationRecord]:
        """Return those of the asked results that exist."""
        return {key: self._records[key] for key in keys if key in self._records}

    def add_evaluations(self, records: Sequence[EvaluationRecord]) -> None:
        """Keep results; the first one under a key stays."""
        for record in records:
            self._records.setdefault(record.key, record)


def for_nothing(key: str, candidate: Candidate) -> bool:
    """Let a calculation begin without setting anything aside, as outside of a campaign."""
    return True


@dataclass(frozen=True)
class Effort:
    """How a stage may spend.

    Attributes
    ----------
    workers
        Worker processes; 0 for none.
    chunk
        Candidates evaluated and recorded together.
    seconds
        Evaluation cost after which nothing more is started (s); None for no limit. With 0 nothing
        is evaluated, only found.
    go_on
        Asked before every chunk, with the longest time a chunk has taken so far (s); nothing more
        is started once it says no.
    core_hours, gpu_hours
        The same as `seconds` in hours of cores and of accelerators (h), calculations by an engine
        left out.
    since
        What was recorded before costs no hours; None charges everything.
    admit
        Asked before a calculation by an engine, with its key: whether its cost has been set aside.
    """

    workers: int = 0
    chunk: int = 64
    seconds: float | None = None
    go_on: Callable[[float], bool] = always
    core_hours: float | None = None
    gpu_hours: float | None = None
    since: datetime | None = None
    admit: Callable[[str, Candidate], bool] = for_nothing

    def purse(self) -> Purse:
        """Return a purse with its budgets."""
        return Purse.of(self.seconds, self.core_hours, self.gpu_hours, self.since)


@dataclass
class Standing:
    """A candidate within a stage: what it is now, what was said, what was left out.

    Attributes
    ----------
    candidate
        Structure and quantities after the evaluations so far.
    evaluations
        The stage's evaluations so far.
    keys
        Their keys.
    complete
        False if budget or time ran out before all evaluators had been asked.
    """

    candidate: Candidate
    evaluations: list[Evaluation] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    complete: bool = True

    @property
    def judged(self) -> Judged:
        """The candidate as selectors see it."""
        return Judged(self.candidate, tuple(self.evaluations))


def evaluate(
    evaluators: Sequence[Evaluator],
    candidates: Sequence[Candidate],
    resources: Resources,
    shelf: Shelf,
    effort: Effort,
    progress: Callable[[int], None] = lambda done: None,
    diary: Diary | None = None,
    places: Sequence[int] | None = None,
    late: Mapping[str, int] = {},
    purse: Purse | None = None,
) -> list[Standing]:
    """Ask every evaluator in turn about the candidates that none before has turned down.

    Every chunk of results is recorded as soon as it exists, so that a run that dies loses the
    chunks in flight and nothing else; a result already recorded is not computed again. Chunks are
    cut by position among all candidates: they are the same whoever evaluates them, and after
    however many deaths.

    Parameters
    ----------
    evaluators
        The stage's evaluators.
    candidates
        The stage's candidates.
    resources
        Artifacts the evaluators read.
    shelf
        Where results are recorded.
    effort
        Workers, chunk size, budget and time.
    progress
        Told the number of candidates that the evaluator which takes longest is done with.
    diary
        Where attempts are noted. What was in flight when a process died is evaluated in a process
        of its own, together and then each alone; what dies alone has failed.
    places
        Position of each candidate in its stage, where these are only some of them: chunks are cut
        by it.
    late
        Candidates that are left incomplete, by id, with the number of evaluators that are asked
        about them nevertheless.
    purse
        What is left to spend, where these are only some of the stage's candidates; by default what
        `effort` says.

    Returns
    -------
    list of Standing
        One per candidate, in order.
    """
    positions = range(len(candidates)) if places is None else places
    standings = dict(zip(positions, map(Standing, candidates), strict=True))
    counted = _longest(evaluators)
    clerk = _Clerk(resources, shelf, effort, purse or effort.purse(), diary or NoDiary())
    for number, evaluator in enumerate(evaluators):
        for standing in standings.values():
            if number >= late.get(standing.candidate.candidate_id, len(evaluators)):
                standing.complete = False
        alive = [place for place, standing in standings.items() if _goes_on(standing)]
        finished = len(standings) - len(alive)
        tell = partial(_tell, progress, finished if number == counted else None)
        asked = {place: standings[place].candidate for place in alive}
        for place, (key, evaluation) in clerk.ask(evaluator, asked, tell).items():
            standing = standings[place]
            if evaluation is None:
                standing.complete = False
                continue
            standing.evaluations.append(evaluation)
            standing.keys.append(key)
            standing.candidate = standing.candidate.updated(
                evaluation.structure, evaluation.quantities
            )
    return list(standings.values())


def is_calculation(evaluator: Evaluator) -> bool:
    """Whether an evaluator stands for an engine, whose calculations are paid in advance."""
    return hasattr(evaluator, "engine")


def is_cheap(evaluator: Evaluator) -> bool:
    """Whether an evaluator costs less than handing a crystal to another process and back."""
    return bool(getattr(evaluator, "cheap", False))


def _longest(evaluators: Sequence[Evaluator]) -> int:
    """Return which evaluator most of the time is spent on: the last one that moves atoms."""
    moving = [i for i, one in enumerate(evaluators) if getattr(one, "moves_atoms", False)]
    return moving[-1] if moving else len(evaluators) - 1


def _tell(progress: Callable[[int], None], finished: int | None, done: int) -> None:
    """Count the candidates of one evaluator only, so that the number grows once."""
    if finished is not None:
        progress(finished + done)


def _goes_on(standing: Standing) -> bool:
    passed = all(evaluation.verdict == "pass" for evaluation in standing.evaluations)
    return standing.complete and passed


def _as_recorded(record: EvaluationRecord) -> EvaluationRecord:
    """Return a record without what the ledger does not keep: forces of a whole stage are large."""
    if record.evaluation.end is None:
        return record
    evaluation = record.evaluation.model_copy(update={"end": None})
    return record.model_copy(update={"evaluation": evaluation})


@dataclass
class _Clerk:
    """Find what is recorded, and have the rest evaluated and recorded."""

    resources: Resources
    shelf: Shelf
    effort: Effort
    purse: Purse
    diary: Diary
    digests: Digests = field(default_factory=Digests)

    def ask(
        self,
        evaluator: Evaluator,
        candidates: Mapping[int, Candidate],
        progress: Callable[[int], None],
    ) -> dict[int, tuple[str, Evaluation | None]]:
        """Return key and evaluation of each candidate by place; None where it was not made."""
        names = evaluation_keys(evaluator, list(candidates.values()), self.resources, self.digests)
        keys = dict(zip(candidates, names, strict=True))
        found = self.shelf.evaluations(names)
        self.purse.pay(found.values(), in_advance=is_calculation(evaluator))
        done = sum(key in found for key in names)
        progress(done)
        if not getattr(evaluator, "found_only", False):
            chunks = self._chunks(evaluator, keys, candidates, found)
            for records in self._work(evaluator, chunks):
                self.shelf.add_evaluations(records)
                kept = records if isinstance(self.shelf, Memory) else map(_as_recorded, records)
                found.update({record.key: record for record in kept})
                self.purse.pay(records, in_advance=is_calculation(evaluator))
                done += len(records)
                progress(done)
        return {
            place: (key, _addressed(found, key, candidates[place])) for place, key in keys.items()
        }

    def _chunks(
        self,
        evaluator: Evaluator,
        keys: Mapping[int, str],
        candidates: Mapping[int, Candidate],
        found: Mapping[str, EvaluationRecord],
    ) -> list[dict[str, Candidate]]:
        """Return what is to be evaluated together, by key; each key once."""
        todo: dict[str, int] = {}
        for place, key in keys.items():
            if key not in found:
                todo.setdefault(key, place)
        if evaluator.scope == "batch":
            everyone = {key: candidates[place] for place, key in keys.items()}
            return [everyone] if todo else []
        cut: dict[int, dict[str, Candidate]] = {}
        for key, place in todo.items():
            cut.setdefault(place // self._chunk(evaluator), {})[key] = candidates[place]
        return [cut[number] for number in sorted(cut)]

    def _chunk(self, evaluator: Evaluator) -> int:
        return max(self.effort.chunk, CHEAP_CHUNK) if is_cheap(evaluator) else self.effort.chunk

    def _work(
        self, evaluator: Evaluator, chunks: Sequence[dict[str, Candidate]]
    ) -> Iterator[list[EvaluationRecord]]:
        if not chunks or self.purse.empty:
            return
        deaths = self.diary.deaths([key for chunk in chunks for key in chunk])
        rest = []
        for chunk in chunks:
            if deaths.keys().isdisjoint(chunk):
                rest.append(chunk)
            elif self._admitted(evaluator, chunk):
                yield from self._examine(evaluator, chunk, deaths)
        # All at once without a budget, else a round of the workers at a time.
        at_once = self.purse.bottomless and not is_calculation(evaluator)
        stride = len(rest) if at_once else max(self.effort.workers, 1)
        while rest:
            refused: list[dict[str, Candidate]] = []
            for start in range(0, len(rest), stride):
                if self.purse.empty:
                    return
                batch: list[dict[str, Candidate]] = []
                for chunk in rest[start : start + stride]:
                    (batch if self._admitted(evaluator, chunk) else refused).append(chunk)
                results = evaluate_chunks(
                    evaluator,
                    [list(chunk.values()) for chunk in batch],
                    self.resources,
                    0 if is_cheap(evaluator) else self.effort.workers,
                    partial(self._begin, batch),
                    self.effort.go_on,
                )
                for index, evaluations in results:
                    yield self._records(evaluator, batch[index], evaluations)
            # What the others cost less than was set aside for them may be enough for these.
            rest = refused if len(refused) < len(rest) else []

    def _admitted(self, evaluator: Evaluator, chunk: Mapping[str, Candidate]) -> bool:
        if not is_calculation(evaluator):
            return True
        admit, go_on = self.effort.admit, self.effort.go_on
        return go_on(0.0) and all(admit(key, candidate) for key, candidate in chunk.items())

    def _begin(
        self, batch: Sequence[dict[str, Candidate]], index: int, isolated: bool, part: Chunk
    ) -> None:
        self._note(batch[index], isolated, part)

    def _note(self, chunk: dict[str, Candidate], isolated: bool, part: Chunk) -> None:
        names = {candidate.candidate_id for candidate in part}
        keys = [key for key, candidate in chunk.items() if candidate.candidate_id in names]
        self.diary.begin(keys, isolated=isolated)

    def _examine(
        self, evaluator: Evaluator, chunk: dict[str, Candidate], deaths: Mapping[str, Deaths]
    ) -> Iterator[list[EvaluationRecord]]:
        """Evaluate apart what was in flight when a process died."""
        rest = {}
        for key, candidate in chunk.items():
            known = deaths.get(key, Deaths())
            if known.alone < DEATHS_TO_QUARANTINE:
                rest[key] = candidate
                continue
            reason = (
                f"quarantined: its evaluation ended {known.total} processes, {known.alone} of "
                "them with nothing else at work in them"
            )
            verdict = Evaluation(candidate_id=candidate.candidate_id, verdict="fail", reason=reason)
            yield self._records(evaluator, {key: candidate}, [verdict])
        suspicious = any(deaths.get(key, Deaths()).total >= DEATHS_TO_SEPARATE for key in rest)
        parts = [{key: candidate} for key, candidate in rest.items()] if suspicious else [rest]
        longest = 0.0
        for part in filter(None, parts):
            if not self.effort.go_on(longest):
                return
            started = time.monotonic()
            note = partial(self._note, part, True)
            evaluations = evaluate_apart(evaluator, list(part.values()), self.resources, note)
            longest = max(longest, time.monotonic() - started)
            yield self._records(evaluator, part, evaluations)

    def _records(
        self,
        evaluator: Evaluator,
        chunk: Mapping[str, Candidate],
        evaluations: Sequence[Evaluation],
    ) -> list[EvaluationRecord]:
        engine = getattr(evaluator, "engine", None)
        name = name_of("engines", engine) if engine else name_of("evaluators", evaluator)
        method, now = method_digest(engine or evaluator), datetime.now(UTC)
        return [
            EvaluationRecord(
                key=key,
                structure_digest=self.digests(candidate.structure),
                evaluator=name,
                method=method,
                evaluation=evaluation,
                recorded_at=now,
            )
            for (key, candidate), evaluation in zip(chunk.items(), evaluations, strict=True)
        ]


def _addressed(
    found: Mapping[str, EvaluationRecord], key: str, candidate: Candidate
) -> Evaluation | None:
    """Return the evaluation under a key, addressed to the candidate that asks now."""
    if key not in found:
        return None
    evaluation = found[key].evaluation
    if evaluation.candidate_id == candidate.candidate_id:
        return evaluation
    return evaluation.model_copy(update={"candidate_id": candidate.candidate_id})
