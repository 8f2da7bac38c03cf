"""The Wyckoff transformer learns, and decodes under constraints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from matloop.generators.neural.architecture import Conditions, SampleRequest
from matloop.generators.neural.architectures.wyckoff_network import WyckoffNetwork
from matloop.generators.neural.architectures.wyckoff_transformer import WyckoffTransformer
from matloop.generators.neural.crystals import TrainingData
from matloop.generators.neural.guidance import Volume
from matloop.generators.neural.model_file import TrainedModel, load_model
from matloop.generators.neural.sampling import draw
from matloop.generators.neural.training import train
from matloop.generators.neural.training_settings import TrainingSettings
from matloop.structures.symmetry import space_group

SMALL = WyckoffTransformer(
    width=48, depth=2, heads=4, dropout=0.0, components=4, properties=["density"]
)
SETTINGS = TrainingSettings(epochs=30, batch_size=12, learning_rate=4e-3, warmup=10, device="cpu")


@pytest.fixture(scope="module")
def trained(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """Return a tiny model of a dozen textbook crystals."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    train(SMALL, data, SETTINGS, path, properties=["density"])
    return load_model(path)


def test_training_reduces_the_loss(trained: TrainedModel) -> None:
    """The validation loss falls by more than a third from the first epoch to the best."""
    history = trained.card.history
    assert min(row["validation"] for row in history) < 0.67 * history[0]["validation"]


def test_samples_are_sound_crystals_of_known_kinds(trained: TrainedModel) -> None:
    """A model of rock salts, perovskites and rutiles writes crystals of their space groups."""
    sample = draw(trained, SampleRequest(count=12, seed=5, temperature=0.5), distinct=False)
    assert len(sample.structures) == 12
    assert sample.drawn == 12 + sum(sample.rejected.values())
    groups = [space_group(one).number for one in sample.structures]
    assert sum(number in (225, 221, 136) for number in groups) >= 9


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(system=("Sr", "Ti", "O")),
        Conditions(elements=("Mg", "O", "Ti")),
        Conditions(formula={"Ca": 1, "Ti": 1, "O": 3}),
        Conditions(n_atoms=2),
        Conditions(space_group=225),
    ],
    ids=lambda one: "-".join(name for name in vars(one) if getattr(one, name)),
)
def test_no_forbidden_step_can_be_drawn(trained: TrainedModel, conditions: Conditions) -> None:
    """Every crystal meets its conditions before anything is rejected."""
    assert isinstance(trained.module, WyckoffNetwork)
    request = SampleRequest(count=24, seed=1, conditions=conditions, temperature=1.5)
    crystals = trained.architecture.sample(trained.module, trained.statistics, request)
    assert crystals
    for crystal in crystals:
        present = set(crystal.symbol_set)
        assert not conditions.required or present == conditions.required
        assert not conditions.allowed or present <= conditions.allowed
        assert not conditions.n_atoms or len(crystal) == conditions.n_atoms
        if conditions.formula:
            assert crystal.composition.reduced_formula == "CaTiO3"
        if conditions.space_group:
            assert space_group(crystal, symprec=1e-3).number in (225, 221)  # or a supergroup


def test_a_penalty_chooses_among_completions(trained: TrainedModel) -> None:
    """Asked for little room, the same sites get smaller cells than asked for much."""
    volumes = []
    for target in (5.0, 40.0):
        request = SampleRequest(12, 3, penalty=Volume(target=target))
        crystals = trained.architecture.sample(trained.module, trained.statistics, request)
        volumes.append(sum(one.volume / len(one) for one in crystals) / len(crystals))
    assert volumes[0] < volumes[1]


def test_same_request_same_crystals(trained: TrainedModel) -> None:
    """The seed is the only source of randomness."""
    request = SampleRequest(count=6, seed=7, guidance=1.0, conditions=Conditions(n_atoms=6))
    again = [draw(trained, request).structures for _ in range(2)]
    assert again[0] == again[1]


def test_decoding_agrees_with_training(trained: TrainedModel, data: TrainingData) -> None:
    """Step by step with a memory, the network says what it says of the whole crystal at once."""
    module = trained.module
    assert isinstance(module, WyckoffNetwork)
    rows = [SMALL.encode(one, trained.statistics) for one in data.train[:12]]
    batch = SMALL.collate([row for row in rows if row], trained.statistics, None)
    with torch.no_grad():
        whole = module(batch)
        cache = module.open(batch, 64)
        last = {name: batch[name][:, 0] for name in ("kind", "element", "letter", "axis", "value")}
        for step in range(batch["kind"].shape[1]):
            asked = {name: batch[name][:, step] for name in last} | {"group": batch["group"]}
            rows_ = torch.arange(len(rows))
            state = module.advance(cache, rows_, {**last, "group": batch["group"]}, asked)
            real = batch["real"][:, step]
            assert torch.allclose(state[real], whole[real, step], atol=1e-5)
            last = {name: asked[name] for name in last}


def test_an_interrupted_training_ends_the_same(data: TrainingData, tmp_path: Path) -> None:
    """Killed between two epochs and called again, training ends with the same weights."""

    class StoppedError(Exception):
        pass

    def stop(epoch: object) -> None:
        if getattr(epoch, "number", 0) == 2:
            raise StoppedError

    short = TrainingSettings(epochs=4, batch_size=12, learning_rate=4e-3, warmup=5, device="cpu")
    train(SMALL, data, short, tmp_path / "whole.safetensors")
    with pytest.raises(StoppedError):
        train(SMALL, data, short, tmp_path / "cut.safetensors", on_epoch=stop)
    assert (tmp_path / "cut.safetensors.checkpoint").is_file()
    train(SMALL, data, short, tmp_path / "cut.safetensors")
    whole = load_model(tmp_path / "whole.safetensors").module.state_dict()
    cut = load_model(tmp_path / "cut.safetensors").module.state_dict()
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)
    assert not (tmp_path / "cut.safetensors.checkpoint").exists()
