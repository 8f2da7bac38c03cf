"""The Wyckoff GAN: its geometry is that of crystals, both networks learn, conditions hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.data import atomic_numbers, covalent_radii
from pymatgen.core import Structure

from matloop.generators.neural.architecture import (
    Conditions,
    SampleRequest,
    Statistics,
    TrainingCrystal,
)
from matloop.generators.neural.architectures.gan_networks import contact_ratios
from matloop.generators.neural.architectures.gan_sampling import assign
from matloop.generators.neural.architectures.wyckoff_gan import WyckoffGan, _real
from matloop.generators.neural.crystals import TrainingData
from matloop.generators.neural.model_file import load_model
from matloop.generators.neural.training import train
from matloop.generators.neural.training_settings import TrainingSettings
from matloop.structures.chemistry import is_charge_balanced
from matloop.structures.symmetry import space_group

from ..conftest import perovskite, rock_salt, rutile

SMALL = WyckoffGan(width=16, depth=1, heads=2, noise=4, completions=6)
SALTS = [("Mg", "O", 4.21), ("Ca", "O", 4.81), ("Na", "Cl", 5.64), ("K", "Cl", 6.29)]
CRYSTALS: list[Structure] = [
    *(rock_salt(*one).get_primitive_structure() for one in SALTS),
    perovskite("Sr", "Ti", "O", 3.9),
    perovskite("Ba", "Ti", "O", 4.0),
    rutile("Ti", "O", 4.594, 2.959, 0.305),
    rutile("Sn", "O", 4.737, 3.186, 0.307),
    Structure.from_spacegroup(
        "P6_3mc",
        [[1.62, -2.806, 0], [1.62, 2.806, 0], [0, 0, 5.21]],
        ["Zn", "O"],
        [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.382]],
    ),
]
LEARNED = tuple(TrainingCrystal(one, {}, str(i)) for i, one in enumerate(CRYSTALS))


@pytest.fixture(scope="module")
def statistics() -> Statistics:
    """Return what the model takes from the textbook crystals."""
    return SMALL.statistics(LEARNED)


def test_contacts_are_those_of_the_crystals(statistics: Statistics) -> None:
    """Nearest distances computed for the critic are the crystal's own, on skew cells too."""
    rows = [SMALL.encode(one, statistics) for one in LEARNED]
    assert all(row is not None for row in rows)
    batch = SMALL.collate([row for row in rows if row is not None], statistics, None)
    module = SMALL.build(statistics)
    real = _real(batch, len(statistics["elements"]))
    ratios = contact_ratios(real, batch, module.critic.elements_table)
    padding = ~(batch["atom"][:, None] & batch["atom"][:, :, None])
    found = ratios.masked_fill(padding, 9.0).amin((1, 2)).numpy()
    for crystal, ratio in zip(CRYSTALS, found, strict=True):
        radii = [covalent_radii[atomic_numbers[site.specie.symbol]] for site in crystal]
        nearest = min(
            neighbour.nn_distance / (radii[index] + radii[neighbour.index])
            for index, near in enumerate(crystal.get_all_neighbors(6.0))
            for neighbour in near
        )
        assert ratio == pytest.approx(nearest, rel=0.02)


def test_the_critic_does_not_see_the_order(statistics: Statistics) -> None:
    """Orbits in another order, with padding between batches, get the same score."""
    torch.manual_seed(1)
    critic = SMALL.build(statistics).critic.eval()
    rows = [SMALL.encode(one, statistics) for one in LEARNED]
    batch = SMALL.collate(rows, statistics, None)  # type: ignore[arg-type]
    n_elements = len(statistics["elements"])
    with torch.no_grad():
        scores = critic(_real(batch, n_elements), batch)
        row = dict(rows[4])  # type: ignore[arg-type]
        order = np.array([2, 0, 1])
        for name in ("letter", "size", "is_free", "element", "free"):
            row[name] = row[name][order]
        row["owner"] = np.argsort(order)[row["owner"]]
        alone = SMALL.collate([row], statistics, None)
        again = critic(_real(alone, n_elements), alone)
    assert again[0] == pytest.approx(float(scores[4]), abs=1e-5)


def test_both_networks_learn(statistics: Statistics) -> None:
    """Against a generator that stands still the critic learns to tell; then that one to deceive."""
    torch.manual_seed(0)
    module, generator = SMALL.build(statistics), torch.Generator().manual_seed(0)
    rows = [SMALL.encode(one, statistics) for one in LEARNED] * 3
    batch = SMALL.collate(rows, statistics, None)  # type: ignore[arg-type]
    real = _real(batch, len(statistics["elements"]))

    def gap() -> float:
        with torch.no_grad():
            fake = module.generator(batch, generator)
            return float((module.critic(real, batch) - module.critic(fake, batch)).mean())

    def learn(part: str, steps: int) -> None:
        network = module.get_submodule(part)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, betas=SMALL.betas)
        for _ in range(steps):
            optimizer.zero_grad()
            SMALL.loss(module, batch, part, generator)["loss"].backward()
            optimizer.step()

    before = gap()
    learn("critic", 40)
    told = gap()
    assert told > before + 0.05
    learn("generator", 40)
    assert gap() < 0.7 * told


def test_a_trained_model_samples_crystals(tmp_path: Path) -> None:
    """From the common training loop: crystals of known templates, without clashes, by the seed."""
    data = TrainingData(LEARNED * 4, LEARNED, "textbook", "0" * 64, {})
    settings = TrainingSettings(
        epochs=6, batch_size=36, learning_rate=1e-3, warmup=2, average=0.9, patience=0,
        device="cpu",
    )  # fmt: skip
    train(SMALL, data, settings, tmp_path / "model.safetensors")
    model = load_model(tmp_path / "model.safetensors")

    def drawn(count: int, seed: int = 1, *, balance: bool = False, **wanted: object) -> list:
        request = SampleRequest(count, seed, Conditions(**wanted), charge_balance=balance)  # type: ignore[arg-type]
        return model.architecture.sample(model.module, model.statistics, request)

    crystals = drawn(12)
    assert len(crystals) >= 8
    assert crystals == drawn(12) != drawn(12, 2)
    for crystal in crystals:
        assert space_group(crystal, 1e-3).number >= 99  # at least the symmetry of its template
        assert crystal.distance_matrix[np.triu_indices(len(crystal), 1)].min() > 0.5
    rutiles = drawn(4, space_group=136, system=("Sn", "O"))
    assert {one.composition.reduced_formula for one in rutiles} <= {"SnO2", "Sn2O"}
    salts = drawn(4, formula={"K": 1, "Cl": 1}, n_atoms=2)
    assert salts
    assert {one.composition.formula for one in salts} == {"K1 Cl1"}
    for crystal in drawn(4, elements=("Ca", "O", "Ti"), balance=True):
        assert set(crystal.symbol_set) <= {"Ca", "O", "Ti"}
        assert is_charge_balanced(crystal.composition, "smact14")
    assert drawn(2, space_group=2) == []


def test_elements_are_assigned_to_orbits() -> None:
    """A formula gets its exact counts, a system all its elements, at the best sum of scores."""
    elements, sizes = ["Sr", "Ti", "O"], [1, 1, 3]
    scores = np.array([[2.0, 1.0, 3.0], [1.5, 1.2, 3.0], [0.0, 0.0, 3.0]])
    formula = Conditions(formula={"Sr": 1, "Ti": 1, "O": 3})
    assert assign(scores, sizes, elements, formula) == [0, 1, 2]
    assert assign(scores, sizes, elements, Conditions(formula={"Sr": 1, "O": 2})) is None
    assert assign(scores, sizes, elements, Conditions(system=("Ti", "O"))) == [2, 1, 2]
    assert assign(scores, sizes, elements, Conditions()) == [2, 2, 2]
