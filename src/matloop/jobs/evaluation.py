"""Evaluate candidates with a stage's evaluators, finding and keeping results under their keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from matloop.documents.candidate import Candidate, structure_digest
from matloop.documents.evaluation import Evaluation, EvaluationRecord
from matloop.jobs.keys import evaluation_keys, method_digest
from matloop.jobs.workers import evaluate_chunks
from matloop.protocols import Evaluator, Judged, Resources
from matloop.registry import name_of


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
    """

    workers: int = 0
    chunk: int = 64
    seconds: float | None = None


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
        False if the budget ran out before all evaluators had been asked.
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
) -> list[Standing]:
    """Ask every evaluator in turn about the candidates that none before has turned down.

    Every chunk of results is recorded as soon as it exists, so that a run that dies loses the
    chunks in flight and nothing else; a result already recorded is not computed again.

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
        Workers, chunk size and budget.
    progress
        Told the number of candidates done with, as it grows.

    Returns
    -------
    list of Standing
        One per candidate, in order.
    """
    standings = [Standing(candidate) for candidate in candidates]
    purse = _Purse(effort.seconds)
    for position, evaluator in enumerate(evaluators):
        alive = [standing for standing in standings if _goes_on(standing)]
        finished = len(standings) - len(alive)
        tell = partial(_tell, progress, finished if position == len(evaluators) - 1 else None)
        results = _ask(
            evaluator, [s.candidate for s in alive], resources, shelf, effort, purse, tell
        )
        for standing, (key, evaluation) in zip(alive, results, strict=True):
            if evaluation is None:
                standing.complete = False
                continue
            standing.evaluations.append(evaluation)
            standing.keys.append(key)
            standing.candidate = standing.candidate.updated(
                evaluation.structure, evaluation.quantities
            )
    return standings


def _tell(progress: Callable[[int], None], finished: int | None, done: int) -> None:
    """Count the candidates of the last evaluator only: before it nobody is done with."""
    if finished is not None:
        progress(finished + done)


def _goes_on(standing: Standing) -> bool:
    passed = all(evaluation.verdict == "pass" for evaluation in standing.evaluations)
    return standing.complete and passed


@dataclass
class _Purse:
    """What is left of a stage's budget (s)."""

    left: float | None

    @property
    def empty(self) -> bool:
        return self.left is not None and self.left <= 0

    def pay(self, records: Iterable[EvaluationRecord]) -> None:
        if self.left is not None:
            self.left -= sum(record.evaluation.cost.seconds for record in records)


def _ask(
    evaluator: Evaluator,
    candidates: Sequence[Candidate],
    resources: Resources,
    shelf: Shelf,
    effort: Effort,
    purse: _Purse,
    progress: Callable[[int], None],
) -> list[tuple[str, Evaluation | None]]:
    """Return key and evaluation of each candidate; None where the purse was empty."""
    keys = evaluation_keys(evaluator, candidates, resources)
    found = shelf.evaluations(keys)
    purse.pay(found.values())
    todo: dict[str, Candidate] = {}
    for key, candidate in zip(keys, candidates, strict=True):
        if key not in found:
            todo.setdefault(key, candidate)
    if evaluator.scope == "batch" and todo:
        todo = dict(zip(keys, candidates, strict=True))
    done = len(candidates) - len(todo)
    progress(done)
    size = len(todo) if evaluator.scope == "batch" else effort.chunk
    for batch in _affordable(list(todo), size, effort.workers, purse):
        chunks = [[todo[key] for key in chunk] for chunk in batch]
        for index, evaluations in evaluate_chunks(evaluator, chunks, resources, effort.workers):
            records = _records(evaluator, batch[index], chunks[index], evaluations)
            shelf.add_evaluations(records)
            found.update({record.key: record for record in records})
            purse.pay(records)
            done += len(records)
            progress(done)
    return [
        (key, _addressed(found, key, candidate))
        for key, candidate in zip(keys, candidates, strict=True)
    ]


def _affordable(
    keys: list[str], size: int, workers: int, purse: _Purse
) -> Iterable[list[list[str]]]:
    """Yield chunks: all at once without a budget, else a round of the workers at a time."""
    chunks = [keys[start : start + size] for start in range(0, len(keys), max(size, 1))]
    stride = len(chunks) if purse.left is None else max(workers, 1)
    for start in range(0, len(chunks), max(stride, 1)):
        if purse.empty:
            return
        yield chunks[start : start + stride]


def _records(
    evaluator: Evaluator,
    keys: Sequence[str],
    candidates: Sequence[Candidate],
    evaluations: Sequence[Evaluation],
) -> list[EvaluationRecord]:
    name, method, now = (
        name_of("evaluators", evaluator),
        method_digest(evaluator),
        datetime.now(UTC),
    )
    return [
        EvaluationRecord(
            key=key,
            structure_digest=structure_digest(candidate.structure),
            evaluator=name,
            method=method,
            evaluation=evaluation,
            recorded_at=now,
        )
        for key, candidate, evaluation in zip(keys, candidates, evaluations, strict=True)
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
