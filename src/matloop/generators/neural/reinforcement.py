"""Reinforcement of an autoregressive generator by what the campaign's ladder said of crystals."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from monty.json import MSONable
from scipy.stats import rankdata
from torch import Tensor

from matloop.documents.objective import Objective
from matloop.errors import ConfigurationError
from matloop.generators.cells import Array
from matloop.generators.neural.architecture import Batch, Row, TrainingCrystal
from matloop.generators.neural.architectures.wyckoff_network import WyckoffNetwork
from matloop.generators.neural.architectures.wyckoff_transformer import (
    WyckoffTransformer,
    step_log_density,
)
from matloop.generators.neural.model_file import TrainedModel, load_model, model_path, write_model
from matloop.generators.neural.training_settings import torch_threads
from matloop.protocols import Lesson, Observation, Resources

POLICY = "policy"
"""Name of the artifact: a model file that `learned` draws from where there is one."""


@dataclass(frozen=True)
class Reinforcement(MSONable):
    """Make an autoregressive model write what the ladder rewards, without forgetting the rest.

    A policy gradient: the reward of a crystal is the rank of its utility among all that were
    judged, as they were proposed; ratios of likelihoods to those under the policy before this round
    are clipped, so that one round cannot go far. A penalty holds the policy to the model it began
    as. A formula that is repeated more than `bucket` times shares the reward of so many, against
    collapse. Crystals of earlier iterations are replayed beside those of the last. The policy is an
    artifact, a model file, from which the generator ``learned`` draws.

    Attributes
    ----------
    weights
        Shipped model or model file to begin with, and to be held to; that of `learned`.
    steps
        Steps of gradient descent after each iteration.
    batch_size
        Crystals per step.
    learning_rate
        Of Adam.
    divergence
        Weight of the divergence from the first model (per step of writing).
    clip
        How far the ratio of likelihoods may be from one, per step of writing.
    replay
        Share of each batch that comes from earlier iterations, while there are any.
    bucket
        Times a formula may be rewarded in full.
    least
        Judged crystals from which on there is a lesson.

    References
    ----------
    Clipped ratios: Schulman et al., arXiv:1707.06347; of whole sequences: Zheng et al.,
    arXiv:2507.18071; divergence from the prior and the diversity filter: Olivecrona et al., J.
    Cheminform. 2017, and Blaschke et al., J. Cheminform. 2020; its estimate: Schulman, 2020.
    """

    resource: ClassVar[str] = POLICY

    weights: str = "wyckoff"
    steps: int = 40
    batch_size: int = 32
    learning_rate: float = 1e-4
    divergence: float = 0.2
    clip: float = 0.2
    replay: float = 0.5
    bucket: int = 5
    least: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "bucket", "least"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.learning_rate <= 0 or self.clip <= 0 or self.divergence < 0:
            raise ValueError("learning_rate and clip must be positive, divergence not negative")
        if not 0 <= self.replay <= 1:
            raise ValueError("replay must lie between 0 and 1")

    def informed(self, resources: Resources) -> InformedReinforcement:
        """Return a learner that goes on from the last policy, where there is one."""
        return InformedReinforcement(self, resources.paths.get(POLICY))

    def learn(
        self, history: Sequence[Observation], objective: Objective, seed: int
    ) -> Lesson | None:
        """Return the policy after one round from the first model; None while too few are judged."""
        return self.informed(Resources()).learn(history, objective, seed)


@dataclass(frozen=True)
class InformedReinforcement:
    """One round of `Reinforcement`.

    Attributes
    ----------
    settings
        How.
    policy
        Model file to go on from; None for the first model.
    """

    resource: ClassVar[str] = POLICY

    settings: Reinforcement
    policy: Path | None

    def learn(
        self, history: Sequence[Observation], objective: Objective, seed: int
    ) -> Lesson | None:
        """Return the policy after one round; None while too few are judged."""
        del objective  # utilities are its values
        settings = self.settings
        judged = [one for one in history if one.utility is not None]
        if len(judged) < settings.least:
            return None
        prior = _autoregressive(load_model(model_path(settings.weights)), settings.weights)
        start = prior if self.policy is None else load_model(self.policy)
        with torch_threads(1):
            return _round(settings, prior, start, judged, seed)


def _round(
    settings: Reinforcement,
    prior: TrainedModel,
    start: TrainedModel,
    judged: Sequence[Observation],
    seed: int,
) -> Lesson | None:
    architecture, statistics = prior.architecture, prior.statistics
    assert isinstance(architecture, WyckoffTransformer)
    rows: list[Row] = []
    kept: list[Observation] = []
    for one in judged:
        row = architecture.encode(TrainingCrystal(one.proposed.structure), statistics)
        if row is not None:
            rows.append(row)
            kept.append(one)
    if len(rows) < settings.least:
        return None
    advantages = _advantages(kept, settings.bucket)
    latest = max(one.iteration for one in kept)
    new = np.array([one.iteration == latest for one in kept])
    rng = np.random.default_rng(seed)
    module = architecture.build(statistics)
    module.load_state_dict(start.module.state_dict())
    module.eval()  # without dropout: ratios of likelihoods are exact
    optimizer = torch.optim.Adam(module.parameters(), lr=settings.learning_rate)
    divergences = []
    for _ in range(settings.steps):
        chosen = _batch(new, settings, rng)
        batch = architecture.collate([rows[index] for index in chosen], statistics, None)
        with torch.no_grad():
            before = _log_likelihood(start.module, batch)
            reference = _log_likelihood(prior.module, batch)
        now = _log_likelihood(module, batch)
        ratio = torch.exp(now - before)
        gain = torch.from_numpy(advantages[chosen].astype(np.float32))
        clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
        away = reference - now
        divergence = (torch.exp(away) - away - 1).mean()
        loss = -torch.minimum(ratio * gain, clipped * gain).mean()
        loss = loss + settings.divergence * divergence
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        divergences.append(float(divergence.detach()))
    return Lesson(
        _content(prior, start, module, settings),
        "application/x-safetensors",
        {
            "judged": float(len(judged)),
            "written": float(len(rows)),
            "divergence": float(np.mean(divergences[-5:])),
            "formulas": float(len({_formula(one) for one in kept})),
        },
    )


def _autoregressive(model: TrainedModel, name: str) -> TrainedModel:
    fits = isinstance(model.architecture, WyckoffTransformer)
    if not fits or not isinstance(model.module, WyckoffNetwork):
        raise ConfigurationError(
            f"{name} is a {model.card.architecture}; reinforcement needs a wyckoff_transformer"
        )
    return model


def _advantages(judged: Sequence[Observation], bucket: int) -> Array:
    """Return rewards from -1 for the lowest utility to 1 for the highest."""
    order = rankdata([one.utility for one in judged]) - 1
    ranks = 2 * order / max(len(order) - 1, 1) - 1
    times: Mapping[str, int] = Counter(_formula(one) for one in judged)
    shares = np.array([min(1.0, bucket / times[_formula(one)]) for one in judged])
    return np.asarray(np.where(ranks > 0, ranks * shares, ranks), dtype=float)


def _formula(one: Observation) -> str:
    return str(one.proposed.structure.composition.reduced_formula)


def _batch(new: np.ndarray, settings: Reinforcement, rng: np.random.Generator) -> np.ndarray:
    """Return which crystals a step learns from, new ones and replayed ones."""
    fresh, old = np.flatnonzero(new), np.flatnonzero(~new)
    size = min(settings.batch_size, len(new))
    replayed = min(round(size * settings.replay), len(old))
    some = rng.choice(old, replayed, replace=False) if replayed else old[:0]
    return np.concatenate([some, rng.choice(fresh, min(size - replayed, len(fresh)), False)])


def _log_likelihood(module: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the mean log density per step of each crystal, shape (m,)."""
    assert isinstance(module, WyckoffNetwork)
    density = step_log_density(module, module(batch), batch) * batch["real"]
    return density.sum(1) / batch["real"].sum(1)


def _content(
    prior: TrainedModel, start: TrainedModel, module: torch.nn.Module, settings: Reinforcement
) -> bytes:
    card = prior.card.model_copy(
        update={
            "data": f"{prior.card.data}, reinforced by a campaign",
            "steps": start.card.steps + settings.steps,
            "metrics": {},
            "versions": {**prior.card.versions, "parent_sha256": start.sha256},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.safetensors"
        write_model(path, card, module.half())
        return path.read_bytes()
