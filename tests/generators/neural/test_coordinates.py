"""Flow matching and diffusion on coordinates: what they keep, what they hold, what they learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from matloop.errors import ConfigurationError
from matloop.generators.neural.architecture import Conditions, SampleRequest, TrainingCrystal
from matloop.generators.neural.architectures.diffusion import (
    Diffusion,
    score_scale,
    wrapped_score,
)
from matloop.generators.neural.architectures.flow_matching import FlowMatching
from matloop.generators.neural.architectures.periodic_network import PeriodicNetwork
from matloop.generators.neural.crystals import TrainingData
from matloop.generators.neural.guidance import Density, MinimumDistance, Together, Volume
from matloop.generators.neural.model_file import TrainedModel, load_model
from matloop.generators.neural.representations import coordinates
from matloop.generators.neural.training import train
from matloop.generators.neural.training_settings import TrainingSettings
from matloop.structures.geometry import density, volume_per_atom
from matloop.structures.symmetry import space_group

SETTINGS = TrainingSettings(
    epochs=70, batch_size=8, learning_rate=6e-3, warmup=10, average=0.98, patience=0, device="cpu"
)


def _cubic(group: int, edge: float, symbols: list[str], sites: list[list[float]]) -> Structure:
    found = Structure.from_spacegroup(group, Lattice.cubic(edge), symbols, sites)
    return found.get_primitive_structure().get_reduced_structure()


HALVES = [[0.0, 0, 0], [0.5, 0.5, 0.5]]
STRUCTURES = [
    _cubic(225, 4.21, ["Mg", "O"], HALVES),
    _cubic(225, 4.81, ["Ca", "O"], HALVES),
    _cubic(225, 5.64, ["Na", "Cl"], HALVES),
    _cubic(221, 4.12, ["Cs", "Cl"], HALVES),
    _cubic(221, 3.905, ["Sr", "Ti", "O"], [*HALVES, [0.5, 0.5, 0]]),
    _cubic(221, 3.84, ["Ca", "Ti", "O"], [*HALVES, [0.5, 0.5, 0]]),
]
CRYSTALS = tuple(
    TrainingCrystal(one, {"density": float(one.density)}, str(index))
    for index, one in enumerate(STRUCTURES * 4)
)
DATA = TrainingData(CRYSTALS, CRYSTALS[:6], "textbook", "0" * 64, {})

ARCHITECTURES = [
    FlowMatching(width=32, depth=2, heads=4, steps=20, properties=["density"]),
    Diffusion(width=32, depth=2, heads=4, steps=20, properties=["density"]),
]


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda one: type(one).__name__)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> TrainedModel:
    """Return a tiny model of six textbook crystals."""
    path: Path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    train(request.param, DATA, SETTINGS, path, properties=["density"])
    return load_model(path)


def _sample(model: TrainedModel, request: SampleRequest) -> list[Structure]:
    return model.architecture.sample(model.module, model.statistics, request)


def test_training_reduces_the_loss_and_samples_are_crystals(trained: TrainedModel) -> None:
    """The validation loss falls by a fifth, and the same seed gives the same sane crystals."""
    losses = [epoch["validation"] for epoch in trained.card.history]
    assert min(losses) < 0.8 * losses[0]
    request = SampleRequest(6, seed=3, conditions=Conditions(max_atoms=5))
    found = _sample(trained, request)
    assert found == _sample(trained, request)
    assert len(found) >= 4
    distances = [one.distance_matrix[np.triu_indices(len(one), 1)] for one in found]
    sane = [one.volume > 1 and (d > 0.5).all() for one, d in zip(found, distances, strict=True)]
    assert sum(sane) >= len(found) / 2


def test_composition_is_held(trained: TrainedModel) -> None:
    """Denied elements never occur; system, formula and number of atoms come out as asked."""
    allowed = Conditions(elements=("Mg", "Ca", "Cl"), max_atoms=6)
    for one in _sample(trained, SampleRequest(12, 0, allowed)):
        assert set(one.symbol_set) <= {"Mg", "Ca", "Cl"}
    system = Conditions(system=("Ca", "Ti", "O"), n_atoms=5)
    found = _sample(trained, SampleRequest(8, 0, system, guidance=1.0))
    assert found
    for one in found:
        assert set(one.symbol_set) == {"Ca", "Ti", "O"}
        assert len(one) == 5
    formula = Conditions(formula={"Ca": 1, "Ti": 1, "O": 3}, properties={"density": 4.0})
    found = _sample(trained, SampleRequest(4, 0, formula))
    assert found
    assert {one.reduced_formula for one in found} == {"CaTiO3"}
    with pytest.raises(ConfigurationError, match="no cell of 1 to 4 atoms"):
        _sample(trained, SampleRequest(1, 0, replace(formula, max_atoms=4)))


def test_a_space_group_is_held(trained: TrainedModel) -> None:
    """What is returned has the group asked for, whatever else was drawn."""
    conditions = Conditions(space_group=221, max_atoms=5)
    found = _sample(trained, SampleRequest(24, 0, conditions))
    assert {space_group(one).number for one in found} <= {221}
    assert len(found) < 24


def test_given_sites_and_cell_stay(trained: TrainedModel) -> None:
    """A partial perovskite in a cell that is not reduced keeps its sites, and oxygen is added."""
    lattice = Lattice(STRUCTURES[4].lattice.matrix @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]))
    skew = Lattice(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ lattice.matrix)
    fixed = Structure(skew, ["Sr", "Ti"], [[0.1, 0.2, 0.3], [0.1, 0.7, 0.8]])
    asked = Conditions(formula={"Sr": 1, "Ti": 1, "O": 3})
    found = _sample(trained, SampleRequest(3, 1, asked, fixed=fixed))
    assert len(found) == 3
    for one in found:
        assert one.lattice == skew
        assert one[:2] == fixed[:]
        assert one.composition.formula == "Sr1 Ti1 O3"


def test_penalties_push_atoms_apart_and_cells_to_their_volume(trained: TrainedModel) -> None:
    """With a penalty on short distances they grow; volume and density come near their targets."""
    asked = SampleRequest(8, 5, Conditions(n_atoms=4))
    plain = _sample(trained, asked)
    pushing = Together([MinimumDistance(scale=0.9), Volume(20.0)])
    pushed = _sample(trained, replace(asked, penalty=pushing))
    assert np.mean([_closest(one) for one in pushed]) > np.mean([_closest(one) for one in plain])
    off = [abs(np.log(volume_per_atom(one) / 20.0)) for one in pushed]
    assert np.median(off) < 0.05
    dense = _sample(trained, replace(asked, penalty=Density(5.0)))
    assert np.median([abs(np.log(density(one) / 5.0)) for one in dense]) < 0.05


def test_the_network_sees_neither_order_nor_origin_nor_padding() -> None:
    """Permuted atoms give permuted answers; a translation, whole cells and padding change none."""
    model, statistics = ARCHITECTURES[0], ARCHITECTURES[0].statistics(CRYSTALS)
    torch.manual_seed(0)
    network = model.build(statistics).eval()
    assert isinstance(network, PeriodicNetwork)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    row = model.encode(CRYSTALS[4], statistics)
    assert row is not None
    batch = model.collate([row], statistics, None)
    time, frac = torch.tensor([0.3]), batch["frac"] + 0.05 * torch.rand(1, 5, 3)
    with torch.no_grad():
        plain = network(batch["species"], frac, batch["cell"], time, batch)
        order = torch.tensor([3, 1, 4, 0, 2])
        swapped = network(batch["species"][:, order], frac[:, order], batch["cell"], time, batch)
        moved = frac + torch.tensor([0.3, 0.7, -0.2]) + torch.randint(-2, 3, frac.shape)
        shifted = network(batch["species"], moved, batch["cell"], time, batch)
        wide = {**batch, "real": torch.nn.functional.pad(batch["real"], (0, 2))}
        padded = network(
            torch.nn.functional.pad(batch["species"], (0, 2), value=network.n_elements),
            torch.nn.functional.pad(frac, (0, 0, 0, 2), value=0.4),
            batch["cell"],
            time,
            wide,
        )
    assert plain.frac.abs().max() > 1e-3
    for name in ("frac", "logits"):
        answer = getattr(plain, name)
        torch.testing.assert_close(getattr(swapped, name), answer[:, order], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(getattr(shifted, name), answer, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(getattr(padded, name)[:, :5], answer, rtol=1e-3, atol=1e-3)
    for other in (swapped, shifted, padded):
        torch.testing.assert_close(other.cell, plain.cell, rtol=1e-3, atol=1e-3)


def test_six_numbers_are_a_cell() -> None:
    """Any lattice is given back from its cell numbers, up to its orientation."""
    lattice = Lattice.from_parameters(3.1, 4.7, 6.2, 71, 95, 112)
    numbers = coordinates.cell_numbers(lattice.matrix, 7)
    matrix = coordinates.lattices(
        torch.tensor(numbers)[None],
        torch.tensor([7]),
        torch.zeros(6, dtype=torch.float64),
        torch.ones(6, dtype=torch.float64),
    )[0]
    assert Lattice(matrix.numpy()).parameters == pytest.approx(lattice.parameters, rel=1e-6)


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
def test_the_score_is_that_of_a_wrapped_normal(spread: float) -> None:
    """The score is the slope of the log density, and its scale the root of its mean square."""
    place = torch.linspace(-0.5, 0.5, 4001, dtype=torch.float64)
    images = torch.arange(-6, 7)
    density_ = torch.exp(-(((place[:, None] + images) / spread) ** 2) / 2).sum(-1)
    slope = torch.gradient(torch.log(density_), spacing=(place,))[0]
    wide = torch.tensor(spread, dtype=torch.float64)
    score = wrapped_score(place, wide)
    scale = float(torch.sqrt((density_ * score**2).sum() / density_.sum()))
    inner = place.abs() < 0.49
    torch.testing.assert_close(score[inner], slope[inner], rtol=1e-2, atol=0.05 * scale)
    assert float(score_scale(wide)) == pytest.approx(scale, rel=0.01)


def _closest(structure: Structure) -> float:
    """Return the shortest distance between two atoms, images included (Å)."""
    found = structure.get_neighbor_list(r=8.0)[3]
    return float(found.min()) if len(found) else 8.0
