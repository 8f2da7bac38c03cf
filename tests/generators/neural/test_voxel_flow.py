"""The voxel model: it learns, its densities become crystals, and conditions hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from matloop.generators.cells import contact_limits, contact_ratio, symbols_of
from matloop.generators.neural.architecture import Conditions, SampleRequest, TrainingCrystal
from matloop.generators.neural.architectures.voxel_flow import VoxelFlow
from matloop.generators.neural.crystals import TrainingData
from matloop.generators.neural.model_file import TrainedModel, load_model
from matloop.generators.neural.training import Epoch, train
from matloop.generators.neural.training_settings import TrainingSettings
from matloop.structures.chemistry import is_charge_balanced

from ..conftest import perovskite, rock_salt

SMALL = VoxelFlow(points=8, widths=[16, 32], context=48, steps=12, share=1.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedModel, list[Epoch]]:
    """Return a small model of rock salts and perovskites, and how its training went."""
    salts = [("Mg", "O", 4.21), ("Ca", "O", 4.81), ("Na", "Cl", 5.64), ("K", "Cl", 6.29)]
    crystals = [rock_salt(*one).get_primitive_structure() for one in salts]
    crystals += [perovskite("Sr", "Ti", "O", 3.9), perovskite("Ba", "Ti", "O", 4.0)]
    learned = tuple(TrainingCrystal(one, {}, str(i)) for i, one in enumerate(crystals * 4))
    data = TrainingData(learned, learned[:6], "textbook", "0" * 64, {})
    file, epochs = tmp_path_factory.mktemp("voxels") / "model.safetensors", []
    settings = TrainingSettings(
        epochs=45, batch_size=24, learning_rate=3e-3, warmup=5, average=0.9, patience=0,
        device="cpu",
    )  # fmt: skip
    train(SMALL, data, settings, file, on_epoch=epochs.append)
    return load_model(file), epochs


def drawn(model: TrainedModel, count: int, seed: int = 1, **wanted: object) -> list:
    """Return crystals of the model."""
    balance = bool(wanted.pop("charge_balance", False))
    request = SampleRequest(count, seed, Conditions(**wanted), charge_balance=balance)  # type: ignore[arg-type]
    return model.architecture.sample(model.module, model.statistics, request)


def test_training_lowers_the_loss(trained: tuple[TrainedModel, list[Epoch]]) -> None:
    """All three heads learn: composition, cell, and densities better than guessing none."""
    model, epochs = trained
    assert epochs[-1].validation < 0.5 * epochs[0].validation
    assert model.card.metrics["validation_density"].value < 0.7


def test_it_samples_crystals(trained: tuple[TrainedModel, list[Epoch]]) -> None:
    """Most densities become crystals whose atoms keep apart."""
    crystals = drawn(trained[0], 12)
    assert len(crystals) >= 6
    for crystal in crystals:
        limits = contact_limits(symbols_of(crystal), 0.549)
        matrix = np.array(crystal.lattice.matrix)
        assert contact_ratio(matrix, np.array(crystal.frac_coords), limits) >= 1


def test_the_seed_decides(trained: tuple[TrainedModel, list[Epoch]]) -> None:
    """The same request gives the same crystals, another seed others."""
    first, again, other = (drawn(trained[0], 3, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_conditions_hold(trained: tuple[TrainedModel, list[Epoch]]) -> None:
    """System, formula, elements, size and charge balance hold in every crystal."""
    model = trained[0]
    for crystal in drawn(model, 4, system=("Sr", "Ti", "O")):
        assert set(crystal.symbol_set) == {"Sr", "Ti", "O"}
    salts = drawn(model, 4, formula={"Na": 1, "Cl": 1})
    assert salts
    assert {one.composition.reduced_formula for one in salts} == {"NaCl"}
    for crystal in drawn(model, 4, elements=("Mg", "Ca", "O"), max_atoms=4, charge_balance=True):
        assert set(crystal.symbol_set) <= {"Mg", "Ca", "O"}
        assert len(crystal) <= 4
        assert is_charge_balanced(crystal.composition, "smact14")
    assert drawn(model, 2, system=("Sr", "U")) == []


def test_the_flow_moves_with_the_crystal() -> None:
    """A crystal shifted by whole coarse steps has its densities shifted: the origin is free."""
    torch.manual_seed(0)
    network = SMALL.build({"elements": ["Na", "Cl"], "formula_units": {"1": 1}})
    noisy, context = torch.randn(1, 5, 8, 8, 8), torch.randn(1, 48)
    time = torch.tensor([0.4])
    flow = network.flow.eval()
    with torch.no_grad():
        moved = flow(noisy.roll((2, 4), (2, 4)), time, context)
        assert torch.allclose(moved, flow(noisy, time, context).roll((2, 4), (2, 4)), atol=1e-4)


def test_mistakes_are_named(tmp_path: Path) -> None:
    """Grids that cannot be halved, and widths that cannot be grouped, are refused."""
    for wrong, match in (
        ({"points": 9}, "multiple of 4"),
        ({"widths": [12]}, "multiples of 8"),
        ({"share": 0.0}, "share must lie"),
        ({"context": 7}, "even"),
    ):
        with pytest.raises(ValueError, match=match):
            VoxelFlow(**wrong)  # type: ignore[arg-type]
