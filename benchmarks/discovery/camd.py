"""CAMD's agents in our own words: regress formation energies, buy what is predicted stable.

Montoya et al., Chem. Sci. 11, 8517 (2020), d0sc01101k: an agent regresses formation energies on the
features of a crystal, lowers them by a multiple of the model's uncertainty, takes the distance to
the hull, buys those predicted within a margin of it, the lowest first, and explores with the rest
of the batch. These are re-implementations from that description, not CAMD's code: the hull is that
of what has been bought, and the models are scikit-learn's or ours.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import AdaBoostRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor

from benchmarks.discovery.problem import Problem
from matloop.documents.decision import Choice
from matloop.documents.objective import Objective
from matloop.protocols import Judged, Lesson, Observation, SelectionRequest
from matloop.surrogates.gaussian_process import GaussianProcess, Scaler

Array = NDArray[np.float64]
Model = Literal["committee", "gaussian_process", "adaboost"]

RESOURCE = "bought"


@dataclass(frozen=True)
class Memory:
    """Remember what was bought: all an agent of this kind keeps between batches."""

    resource: ClassVar[str] = RESOURCE

    def learn(
        self, history: Sequence[Observation], objective: Objective, seed: int
    ) -> Lesson | None:
        """Return the names of what was bought; None before anything was."""
        del objective, seed
        names = [item.proposed.candidate_id for item in history]
        return Lesson(json.dumps(names).encode(), "application/json", {}) if names else None


@dataclass(frozen=True)
class StabilityAgent:
    """Buy what is predicted closest to the hull, or farthest below it.

    Attributes
    ----------
    problem
        Features, and formation energies of which only those of what was bought are looked at.
    model
        ``committee``: ten ridge regressions on random halves; ``gaussian_process``; ``adaboost``:
        ten boosted networks of 84 and 50 units.
    exploit
        Share of the places for what is predicted near the hull; the rest goes by lot.
    alpha
        Standard deviations taken off the predicted energy.
    margin
        Distance to the hull up to which a prediction counts as near (eV/atom).
    """

    problem: Problem
    model: Model
    exploit: float = 0.5
    alpha: float = 0.5
    margin: float = 0.2

    def select(self, batch: Sequence[Judged], request: SelectionRequest) -> list[Choice]:
        """Return one choice per candidate, in order."""
        rng = np.random.default_rng(request.seed)
        places = len(batch) if request.keep is None else request.keep
        names = [judged.candidate.candidate_id for judged in batch]
        near: list[int] = []
        path = request.resources.paths.get(RESOURCE)
        if path is not None:
            distances = self._distances(json.loads(path.read_text()), names, rng)
            order = np.argsort(distances, kind="stable")
            within = [int(row) for row in order if distances[row] <= self.margin]
            near = within[: round(self.exploit * places)]
        others = [int(row) for row in rng.permutation(len(batch)) if int(row) not in set(near)]
        chosen = {*near, *others[: places - len(near)]}
        return [
            Choice(
                candidate_id=name,
                outcome="passed" if row in chosen else "held",
                reason="predicted near the hull" if row in set(near) else "by lot",
            )
            for row, name in enumerate(names)
        ]

    def _distances(
        self, bought: Sequence[str], wanted: Sequence[str], rng: np.random.Generator
    ) -> Array:
        problem = self.problem
        if problem.hull is None or problem.formation is None:
            raise ValueError("the agents need a hull that grows")
        rows = {item.candidate_id: row for row, item in enumerate(problem.candidates)}
        known, asked = [rows[name] for name in bought], [rows[name] for name in wanted]
        hull = problem.hull()
        for row in known:
            hull.add(problem.compositions[row], float(problem.formation[row]))
        table = np.array(
            [[item.quantities[x].value for x in problem.inputs] for item in problem.candidates]
        )
        scaler = Scaler.fit(table)
        size = np.sqrt(max(len(scaler.kept), 1))
        features = scaler.transform(table) * size
        mean, spread = self._predict(
            features[known], problem.formation[known], features[asked], rng
        )
        hulls = hull.energies([problem.compositions[row] for row in asked])
        return np.asarray(mean - self.alpha * spread - hulls)

    def _predict(
        self, known: Array, energies: Array, asked: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Return mean and standard deviation of formation energies (eV/atom), each (m,)."""
        if self.model == "gaussian_process":
            return GaussianProcess.fit(known, energies, rng).predict(asked)
        if self.model == "committee":
            votes = []
            for _ in range(10):
                rows = rng.permutation(len(known))[: max(len(known) // 2, 2)]
                votes.append(Ridge(alpha=10.0).fit(known[rows], energies[rows]).predict(asked))
            return np.mean(votes, axis=0), np.std(votes, axis=0)
        seed = int(rng.integers(2**31))
        network = MLPRegressor(hidden_layer_sizes=(84, 50), random_state=seed)
        boosted = AdaBoostRegressor(network, n_estimators=10, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            boosted.fit(known, energies)
        votes = [member.predict(asked) for member in boosted.estimators_]
        weights = boosted.estimator_weights_[: len(votes)]
        weights = weights if weights.sum() > 0 else np.ones(len(votes))
        mean = np.average(votes, axis=0, weights=weights)
        variance = np.average((np.array(votes) - mean) ** 2, axis=0, weights=weights)
        return mean, np.sqrt(variance)


def agents(problem: Problem) -> dict[str, StabilityAgent]:
    """Return the agents that a problem's data allow, by name: features, and a hull that grows.

    Each explores with half of its places, and once more with none.
    """
    if not problem.inputs or problem.hull is None:
        return {}
    models: tuple[Model, ...] = ("committee", "gaussian_process", "adaboost")
    return {
        f"camd:{model}{suffix}": StabilityAgent(problem, model, exploit)
        for model in models
        for suffix, exploit in (("", 0.5), ("_greedy", 1.0))
    }
