"""A policy writes more of what is rewarded, is held to its prior, and does not collapse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from matloop.documents.candidate import Candidate, Origin
from matloop.documents.objective import Objective
from matloop.errors import ConfigurationError
from matloop.generators.neural.architecture import SampleRequest
from matloop.generators.neural.architectures.wyckoff_flow import WyckoffFlow
from matloop.generators.neural.architectures.wyckoff_transformer import WyckoffTransformer
from matloop.generators.neural.crystals import TrainingData
from matloop.generators.neural.model_file import load_model
from matloop.generators.neural.reinforcement import Reinforcement
from matloop.generators.neural.sampling import draw
from matloop.generators.neural.training import train
from matloop.generators.neural.training_settings import TrainingSettings
from matloop.protocols import Observation, Resources

OBJECTIVE = Objective(minimize="e_above_hull")
SMALL = {"width": 48, "depth": 2, "heads": 4, "dropout": 0.0, "components": 4}


@pytest.fixture(scope="module")
def path(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model of rock salts, perovskites and rutiles."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    settings = TrainingSettings(
        epochs=20, batch_size=12, learning_rate=4e-3, warmup=10, device="cpu"
    )
    train(WyckoffTransformer(**SMALL), data, settings, path)
    return path


def observed(
    crystals: Sequence[Structure], utility: Callable[[Structure], float], iteration: int = 0
) -> list[Observation]:
    """Return crystals as the ladder would have judged them."""
    found = []
    for index, crystal in enumerate(crystals):
        candidate = Candidate(
            candidate_id=f"c{iteration}-{index}",
            structure=crystal,
            origin=Origin(generator="learned"),
        )
        found.append(
            Observation(candidate, candidate, iteration, "learned", utility(crystal), False, 1.0)
        )
    return found


def ternary(crystals: Sequence[Structure]) -> float:
    return float(np.mean([len(one.symbol_set) == 3 for one in crystals]))


def sampled(path: Path, seed: int, count: int = 60) -> tuple[Structure, ...]:
    return draw(load_model(path), SampleRequest(count, seed), distinct=False).structures


def test_the_rewarded_becomes_more_frequent_round_by_round(path: Path, tmp_path: Path) -> None:
    """Three rounds of reward for ternaries raise their share; the policy goes on from the last."""
    learner = Reinforcement(str(path), steps=30, learning_rate=1e-3, divergence=0.02)
    start = ternary(sampled(path, 0, 150))
    policy, history = path, list[Observation]()
    for iteration in range(3):
        crystals = sampled(policy, 10 + iteration)
        history += observed(crystals, lambda one: float(len(one.symbol_set) == 3), iteration)
        known = Resources({} if policy == path else {"policy": policy})
        lesson = learner.informed(known).learn(history, OBJECTIVE, iteration)
        assert lesson is not None
        policy = tmp_path / f"{iteration}.safetensors"
        policy.write_bytes(lesson.content)
    end = sampled(policy, 0, 150)
    assert ternary(end) > start + 0.15
    assert len({one.composition.reduced_formula for one in end}) > 5


def test_a_strong_divergence_holds_the_policy(path: Path) -> None:
    """The heavier the penalty, the nearer the policy stays to the model it began as."""
    history = observed(sampled(path, 1), lambda one: float(len(one.symbol_set) == 3))
    free = Reinforcement(str(path), steps=30, learning_rate=1e-3, divergence=0.0)
    held = replace(free, divergence=50.0)
    apart = []
    for learner in (free, held):
        lesson = learner.learn(history, OBJECTIVE, 0)
        assert lesson is not None
        assert lesson.metrics["judged"] == 60
        apart.append(lesson.metrics["divergence"])
    assert apart[1] < 0.5 * apart[0]


def test_same_history_same_policy_and_none_from_little(path: Path) -> None:
    """Bytes are equal for equal seeds; below the least number there is no lesson."""
    learner = Reinforcement(str(path), steps=2)
    history = observed(sampled(path, 2, 24), lambda one: -float(one.density))
    lessons = [learner.learn(history, OBJECTIVE, 3) for _ in range(2)]
    assert lessons[0] is not None
    assert lessons[1] is not None
    assert lessons[0].content == lessons[1].content
    assert learner.learn(history[:19], OBJECTIVE, 3) is None


def test_other_architectures_are_refused(data: TrainingData, tmp_path: Path) -> None:
    """A model without a likelihood of its own steps cannot be reinforced."""
    from matloop.generators.neural.architectures.wyckoff_vae import WyckoffVae

    other = tmp_path / "vae.safetensors"
    short = TrainingSettings(epochs=1, batch_size=12, device="cpu")
    train(WyckoffVae(**SMALL, latent=4), data, short, other)
    crystals = [one.structure for one in data.train[:24]]
    history = observed(crystals, lambda one: 1.0)
    with pytest.raises(ConfigurationError, match="wyckoff_transformer"):
        Reinforcement(str(other)).learn(history, OBJECTIVE, 0)


def test_a_flow_can_be_reinforced_too(data: TrainingData, tmp_path: Path) -> None:
    """The spline flow has an exact likelihood, which is all that is needed."""
    other = tmp_path / "flow.safetensors"
    short = TrainingSettings(epochs=1, batch_size=12, device="cpu")
    train(WyckoffFlow(**SMALL), data, short, other)
    crystals = [one.structure for one in data.train[:24]]
    lesson = Reinforcement(str(other), steps=2).learn(
        observed(crystals, lambda one: float(one.volume)), OBJECTIVE, 0
    )
    assert lesson is not None
