"""Flow matching on the torus: noise moves along straight lines to a crystal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pymatgen.core import Structure
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from matloop.generators.neural.architecture import (
    Batch,
    SampleRequest,
    Statistics,
)
from matloop.generators.neural.architectures.coordinate_architecture import (
    CoordinateArchitecture,
)
from matloop.generators.neural.architectures.coordinate_sampling import Drawing, draw
from matloop.generators.neural.architectures.masked_species import (
    known_share,
    mask,
    species_loss,
)
from matloop.generators.neural.architectures.periodic_network import PeriodicNetwork

_SPEED = 0.22  # usual velocity of a coordinate, in periods
_WEIGHTS = {"frac": 1.0, "cell": 0.5, "species": 0.3}


@dataclass(frozen=True)
class FlowMatching(CoordinateArchitecture):
    """Learn the velocity with which noise becomes a crystal, and follow it.

    Coordinates start uniform in the cell and go the shortest way round the torus; cell numbers
    start normal, with the mean and the spread of the data. Elements are unknown at first and become
    known one after another; where the formula is given they are known from the start, which is
    structure prediction. Space group, elements and properties are conditions that are left out of
    most of the training, so that none need be given.

    The network is equivariant under permutations and invariant under translations by construction,
    see `PeriodicNetwork`; inversion is learned by augmentation.

    Attributes
    ----------
    anneal
        Coordinates go ``1 + anneal * t`` times as fast as learned at time t, never past their goal:
        they settle on the nearest likely crystal. A temperature divides it.

    References
    ----------
    Flow matching: Lipman et al., ICLR 2023. On crystals, with faster late velocities: FlowMM,
    Miller et al., ICML 2024. Noise is assigned to the nearest atoms of its element, which shortens
    the ways: equivariant flow matching, Klein et al., NeurIPS 2023.
    """

    anneal: float = 5.0

    def loss(
        self, module: nn.Module, batch: Batch, part: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the squared errors of scaled velocities and the cross-entropy of elements."""
        del part
        assert isinstance(module, PeriodicNetwork)
        frac, cell, real = batch["frac"], batch["cell"], batch["real"]
        device = frac.device
        time = torch.rand(len(frac), generator=generator, device=device)
        species, hidden = mask(
            batch["species"],
            known_share(time, self.lead),
            self.given_species,
            module.n_elements,
            generator,
        )
        start = torch.rand(frac.shape, generator=generator, device=device)
        start = _nearest(start, frac, batch["species"], real)
        start_cell = torch.randn(cell.shape, generator=generator, device=device)
        way = frac - start
        way = way - way.round()
        now = (start + time[:, None, None] * way) % 1.0
        now_cell = start_cell + time[:, None] * (cell - start_cell)
        guess = module(species, now, now_cell, time, batch)
        weights = (real / real.sum(1, keepdim=True))[..., None]
        way = way - (way * weights).sum(1, keepdim=True)
        off = (guess.frac - way / _SPEED).square() * weights
        found = {
            "frac": off.sum((1, 2)).mean() / 3,
            "cell": (guess.cell - (cell - start_cell)).square().mean(),
            "species": species_loss(guess.logits, batch["species"], hidden, real),
        }
        loss = torch.stack([_WEIGHTS[name] * value for name, value in found.items()]).sum()
        return {"loss": loss, **found}

    def sample(
        self, module: nn.Module, statistics: Statistics, request: SampleRequest
    ) -> list[Structure]:
        """Return crystals; those that came out flat, or without the asked group, are missing."""
        assert isinstance(module, PeriodicNetwork)
        return draw(module, statistics, request, self.symmetrize, self._follow)

    def _follow(self, drawing: Drawing) -> None:
        """Take a batch from noise to crystals."""
        start, start_cell = drawing.frac, drawing.cell
        given = drawing.fixed[..., None]
        ways = drawing.goal - start
        ways = (ways - ways.round()) * given
        share = drawing.fixed.sum(1).clamp(min=1)[:, None, None]
        hurry = self.anneal / max(drawing.request.temperature, 1e-3)
        for number in range(self.steps):
            time, step = number / self.steps, 1 / self.steps
            guess = drawing.guess(time)
            velocity = guess.frac * _SPEED
            # The network knows differences only: given atoms say where the others are.
            velocity = velocity + ((ways - velocity) * given).sum(1, keepdim=True) / share
            left = 1 - time
            ahead = (drawing.frac + left * velocity) % 1.0
            ahead_cell = drawing.cell + left * guess.cell
            pace = min(step * (1 + hurry * time), left)
            drawing.frac = (drawing.frac + pace * velocity) % 1.0
            drawing.cell = drawing.cell + step * guess.cell
            if drawing.goal_cell is not None:
                later = time + step
                known = (start + later * ways) % 1.0
                drawing.frac = torch.where(given, known, drawing.frac)
                drawing.cell = start_cell + later * (drawing.goal_cell - start_cell)
                ahead, ahead_cell = torch.where(given, drawing.goal, ahead), drawing.goal_cell
            known_now, known_later = min(time * self.lead, 1), min((time + step) * self.lead, 1)
            if known_now < 1:
                drawing.reveal(guess.logits, (known_later - known_now) / (1 - known_now))
            drawing.push(guess.logits, ahead, ahead_cell, time * step)


def _nearest(start: Tensor, frac: Tensor, species: Tensor, real: Tensor) -> Tensor:
    """Return noise whose places within each element are exchanged for the shortest ways."""
    apart = start[:, :, None] - frac[:, None]
    apart = apart - apart.round()
    cost = apart.square().sum(-1) + 100.0 * (species[:, :, None] != species[:, None])
    costs, sizes = cost.detach().cpu().numpy(), real.sum(1).tolist()
    order = np.tile(np.arange(frac.shape[1]), (len(frac), 1))
    for index, n in enumerate(sizes):
        rows, columns = linear_sum_assignment(costs[index, :n, :n])
        order[index, columns] = rows
    places = torch.from_numpy(order).to(frac.device)
    return start.gather(1, places[..., None].expand_as(start))
