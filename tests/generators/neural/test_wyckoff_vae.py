"""The autoencoder gives crystals back, and its latent space can be walked and searched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError
from matloop.generators.neural.architecture import SampleRequest
from matloop.generators.neural.architectures.wyckoff_flow import WyckoffFlow
from matloop.generators.neural.architectures.wyckoff_vae import WyckoffVae
from matloop.generators.neural.crystals import TrainingData
from matloop.generators.neural.latent_search import LatentSearch
from matloop.generators.neural.model_file import TrainedModel, load_model
from matloop.generators.neural.sampling import draw
from matloop.generators.neural.training import train
from matloop.generators.neural.training_settings import TrainingSettings
from matloop.protocols import Parent, ProposalRequest
from matloop.structures.symmetry import space_group
from matloop.testing.conformance import check_generator

SETTINGS = TrainingSettings(
    epochs=120, batch_size=12, learning_rate=4e-3, warmup=10, patience=0, device="cpu"
)
SMALL = {"width": 48, "depth": 2, "heads": 4, "dropout": 0.0}


@pytest.fixture(scope="module")
def path(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a tiny autoencoder of a dozen textbook crystals."""
    path = tmp_path_factory.mktemp("model") / "vae.safetensors"
    vae = WyckoffVae(**SMALL, components=4, latent=8, beta=0.02, hide=0.7)
    train(vae, data, SETTINGS, path)
    return path


def _vae(model: TrainedModel) -> WyckoffVae:
    assert isinstance(model.architecture, WyckoffVae)
    return model.architecture


def test_crystals_are_given_back(path: Path, data: TrainingData) -> None:
    """Encoded and decoded, structure types come back, and formulas mostly: chance has 1 in 12."""
    model = load_model(path)
    crystals = [one.structure for one in data.train[:12]]
    vectors = _vae(model).encode_latent(model.module, model.statistics, crystals)
    points = torch.stack([vector for vector in vectors if vector is not None])
    assert len(points) == 12
    request = SampleRequest(12, seed=0, temperature=0.05)
    found = _vae(model).decode(model.module, model.statistics, request, points)
    pairs = [(a, b) for a, b in zip(crystals, found, strict=True) if b is not None]
    assert sum(space_group(a).number == space_group(b).number for a, b in pairs) >= 10
    assert sum(a.reduced_formula == b.reduced_formula for a, b in pairs) >= 5


def test_a_walk_between_two_crystals_starts_and_ends_there(path: Path, data: TrainingData) -> None:
    """On the line between two vectors the decoder goes from one crystal to the other."""
    model = load_model(path)
    ends = [data.train[0].structure, data.train[6].structure]  # MgO and SrTiO3
    first, last = _vae(model).encode_latent(model.module, model.statistics, ends)
    assert first is not None
    assert last is not None
    points = torch.stack([torch.lerp(first, last, step / 6) for step in range(7)])
    request = SampleRequest(7, seed=0, temperature=0.05)
    found = _vae(model).decode(model.module, model.statistics, request, points)
    assert found[0] is not None
    assert found[-1] is not None
    assert [space_group(one).number for one in (found[0], found[-1])] == [225, 221]


def test_search_follows_the_utility(path: Path, data: TrainingData) -> None:
    """With perovskites the best, more proposals are ternary than without a utility."""
    crystals = [one.structure for one in data.train[:12]]
    space = ChemicalSpace(elements=("Mg", "Ca", "Sr", "Ba", "Ti", "O"), max_atoms=12)
    found = [
        Parent(f"p{index}", crystal, utility=float(len(crystal) == 5))
        for index, crystal in enumerate(crystals)
        if set(crystal.symbol_set) <= set(space.allowed)
    ]
    search = LatentSearch(str(path), reach=0.2, prior_share=0.0)
    shares = []
    for parents in (found, [Parent(p.parent_id, p.structure) for p in found]):
        proposals = search.propose(ProposalRequest(space, 12, seed=3, found=parents))
        assert proposals
        ternary = [one for one in proposals if len(one.structure.symbol_set) == 3]
        shares.append(len(ternary) / len(proposals))
    assert shares[0] > shares[1]


def test_search_conforms_to_the_contract(path: Path) -> None:
    """Repeatable, inside the space, without parents too."""
    space = ChemicalSpace(elements=("Sr", "Ti", "O"), max_atoms=10)
    check_generator(LatentSearch(str(path)), ProposalRequest(space, 4, seed=1))


def test_search_needs_an_autoencoder(data: TrainingData, tmp_path: Path) -> None:
    """Another architecture is refused by name."""
    other = tmp_path / "flow.safetensors"
    short = TrainingSettings(epochs=1, batch_size=12, device="cpu")
    train(WyckoffFlow(**SMALL, components=4), data, short, other)
    space = ChemicalSpace(system="Sr-O")
    with pytest.raises(ConfigurationError, match="wyckoff_vae"):
        LatentSearch(str(other)).propose(ProposalRequest(space, 1, seed=0))


def test_a_flow_learns_and_samples(data: TrainingData, tmp_path: Path) -> None:
    """The spline flow's exact likelihood rises, and it writes sound crystals."""
    path = tmp_path / "flow.safetensors"
    short = replace(SETTINGS, epochs=40)
    card = train(WyckoffFlow(**SMALL, components=6), data, short, path)
    losses = [row["validation"] for row in card.history]
    assert min(losses) < losses[0] - 0.5
    sample = draw(load_model(path), SampleRequest(8, seed=2, temperature=0.3), distinct=False)
    assert len(sample.structures) == 8
