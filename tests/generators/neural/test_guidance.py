"""Penalties that guide sampling: their values, and gradients that are what they claim."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from matloop.generators.neural.architecture import Penalty
from matloop.generators.neural.guidance import (
    Density,
    MinimumDistance,
    PotentialEnergy,
    PropertyTarget,
    Together,
    Volume,
)

NUMBERS = torch.tensor([29, 29, 47])
OWNER = torch.tensor([0, 0, 1])
FRAC = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.6, 0.9], [0.0, 0.0, 0.0]], dtype=torch.float64)
LATTICE = torch.stack(
    [
        torch.tensor([[3.0, 0.1, 0.0], [0.2, 2.9, 0.3], [0.0, 0.4, 3.2]], dtype=torch.float64),
        torch.tensor([[0.0, 2.0, 2.1], [2.0, 0.0, 2.0], [2.0, 2.1, 0.0]], dtype=torch.float64),
    ]
)
PENALTIES: list[Penalty] = [
    MinimumDistance(scale=1.2),
    Volume(12.0),
    Density(7.0),
    PropertyTarget(lambda numbers, frac, lattice, owner: torch.linalg.det(lattice), 20.0, 5.0),
    PotentialEnergy("ase", {"calculator": "emt"}, weight=0.5),
    Together([MinimumDistance(), Volume(12.0)]),
]


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda one: type(one).__name__)
def test_gradients_are_slopes(penalty: Penalty) -> None:
    """Small steps of an atom and of a cell change the penalty as its gradient says."""
    frac, lattice = FRAC.clone().requires_grad_(), LATTICE.clone().requires_grad_()
    value = penalty(NUMBERS, frac, lattice, OWNER)
    assert value.shape == (2,)
    slopes = torch.autograd.grad(value.sum(), (frac, lattice), allow_unused=True)
    generator = torch.Generator().manual_seed(0)
    for index, slope in enumerate(slopes):
        step = 1e-4 * torch.randn((FRAC, LATTICE)[index].shape, generator=generator).double()
        forth, back = _moved(penalty, index, step), _moved(penalty, index, -step)
        expected = 0.0 if slope is None else float((slope * step).sum())
        assert float((forth - back).sum()) / 2 == pytest.approx(expected, rel=2e-3, abs=1e-8)


def _moved(penalty: Penalty, index: int, step: Tensor) -> Tensor:
    frac = FRAC + step if index == 0 else FRAC
    lattice = LATTICE + step if index == 1 else LATTICE
    return penalty(NUMBERS, frac, lattice, OWNER)


def test_only_short_distances_are_penalised() -> None:
    """Copper at its own lattice constant is free of charge, and pays when it is squeezed."""
    copper = torch.tensor([[[0.0, 1.805, 1.805], [1.805, 0.0, 1.805], [1.805, 1.805, 0.0]]])
    found = [
        float(
            MinimumDistance(scale=0.9)(
                torch.tensor([29]), torch.zeros(1, 3), scale * copper, torch.tensor([0])
            )
        )
        for scale in (1.0, 0.8)
    ]
    assert found[0] == 0.0
    assert found[1] > 0.1
