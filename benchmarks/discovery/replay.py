"""One campaign replayed: learn, foretell, choose, buy, until the money is spent."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.discovery.policies import Policy, estimate_name
from benchmarks.discovery.problem import DISTANCE, UNIT, Problem
from matloop.documents.candidate import PREDICTED, Candidate, Quantity
from matloop.documents.evaluation import Evaluation
from matloop.protocols import Judged, Lesson, Observation, Resources, SelectionRequest
from matloop.surrogates.calibration import Residuals

Array = NDArray[np.float64]

ORACLE = "oracle"


@dataclass(frozen=True)
class Round:
    """One batch.

    Attributes
    ----------
    bought
        Rows of the pool, in order of the pool.
    ahead
        What was foretold of them, without knowing the result; empty where nothing was.
    unbought
        The same for all that stayed in the pool.
    """

    bought: tuple[int, ...]
    ahead: Residuals
    unbought: Residuals


def replay(problem: Problem, policy: Policy, seed: int, budget: int, batches: int) -> list[Round]:
    """Return what a policy buys, batch by batch.

    Parameters
    ----------
    problem
        The pool and its truth.
    policy
        Who chooses.
    seed
        Seed of the policy.
    budget
        Crystals bought altogether.
    batches
        In how many batches, of nearly equal size.
    """
    steps = np.diff(np.linspace(0, budget, batches + 1).round().astype(int))
    left = list(range(len(problem.candidates)))
    history: list[Observation] = []
    rounds: list[Round] = []
    hull = problem.hull() if problem.hull else None
    start = hull.energies(problem.compositions) if hull else np.zeros(len(left))
    seen = [_as_seen(problem, policy, row, 0.0) for row in left]
    with tempfile.TemporaryDirectory() as folder:
        for turn, size in enumerate(steps):
            sunk = np.zeros(len(problem.candidates))
            if hull is not None:
                rest = [problem.compositions[row] for row in left]
                sunk[left] = start[left] - hull.energies(rest)
                for row in np.flatnonzero(sunk):
                    seen[row] = _as_seen(problem, policy, int(row), float(sunk[row]))
            resources = _learn(policy, history, problem, seed + turn, Path(folder))
            candidates = [seen[row] for row in left]
            evaluations = (
                policy.evaluator.evaluate(candidates, resources)
                if policy.evaluator is not None
                else [_nothing(candidate) for candidate in candidates]
            )
            judged = [
                Judged(candidate.updated(None, evaluation.quantities), (evaluation,))
                for candidate, evaluation in zip(candidates, evaluations, strict=True)
            ]
            request = SelectionRequest(
                problem.objective,
                1000 * seed + turn,
                int(size),
                final=False,
                resources=resources,
            )
            choices = policy.selector.select(judged, request)
            passed = [choice.outcome == "passed" for choice in choices]
            truth = problem.truth + sunk
            rounds.append(
                Round(
                    tuple(row for row, yes in zip(left, passed, strict=True) if yes),
                    _residuals(judged, truth[left], passed),
                    _residuals(judged, truth[left], [not yes for yes in passed]),
                )
            )
            for row, item, yes in zip(left, judged, passed, strict=True):
                if not yes:
                    continue
                history.append(_observation(item.candidate, float(truth[row]), problem, turn))
                if hull is not None and problem.formation is not None:
                    hull.add(problem.compositions[row], float(problem.formation[row]))
            left = [row for row, yes in zip(left, passed, strict=True) if not yes]
    return rounds


def _learn(
    policy: Policy, history: Sequence[Observation], problem: Problem, seed: int, folder: Path
) -> Resources:
    paths, digests = {}, {}
    for learner in (policy.learner, policy.correction):
        if learner is None:
            continue
        lesson: Lesson | None = learner.learn(history, problem.objective, seed)
        if lesson is None:
            continue
        digests[learner.resource] = sha256(lesson.content).hexdigest()
        paths[learner.resource] = folder / digests[learner.resource]
        paths[learner.resource].write_bytes(lesson.content)
    return Resources(paths, digests)


def _as_seen(problem: Problem, policy: Policy, row: int, sunk: float) -> Candidate:
    """Return a candidate with its cheap distances to the present hull, and nothing else."""
    quantities = {
        estimate_name(name): Quantity(value=float(values[row] + sunk), unit=UNIT, theory=name)
        for name, values in problem.estimates.items()
        if np.isfinite(values[row])
    }
    if policy.fidelity is not None and estimate_name(policy.fidelity) in quantities:
        quantities[DISTANCE] = quantities[estimate_name(policy.fidelity)]
    return problem.candidates[row].updated(None, quantities)


def _nothing(candidate: Candidate) -> Evaluation:
    return Evaluation(candidate_id=candidate.candidate_id, verdict="pass", reason="not evaluated")


def _observation(candidate: Candidate, truth: float, problem: Problem, turn: int) -> Observation:
    cheap = candidate.quantities.get(DISTANCE)
    found = Quantity(value=truth, unit=UNIT, theory=ORACLE)
    return Observation(
        proposed=candidate,
        final=candidate.updated(None, {DISTANCE: found}),
        iteration=turn,
        generator=candidate.origin.generator,
        utility=-truth,
        discovery=truth <= problem.threshold,
        work=float(len(candidate.structure)),
        on_shared_hull=(cheap.value, truth) if cheap is not None else None,
    )


def _residuals(judged: Sequence[Judged], truth: Array, chosen: Sequence[bool]) -> Residuals:
    rows = []
    for item, value, yes in zip(judged, truth, chosen, strict=True):
        predicted = item.candidate.quantities.get(f"{PREDICTED}{DISTANCE}")
        if yes and predicted is not None and predicted.uncertainty is not None:
            rows.append((float(value), predicted.value, predicted.uncertainty))
    table = np.array(rows, dtype=float).reshape(-1, 3)
    return Residuals(table[:, 0], table[:, 1], table[:, 2])
