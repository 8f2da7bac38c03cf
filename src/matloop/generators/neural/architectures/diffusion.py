"""Diffusion of crystals: wrapped normal noise on coordinates, normal on cells, unknown elements."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pymatgen.core import Structure
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

_NARROWEST, _WIDEST = 0.005, 0.5  # of the noise on coordinates, in periods
_WEIGHTS = {"frac": 1.0, "cell": 1.0, "species": 0.3}
_IMAGES = 3
_OFFSET = 0.008  # of the cosine schedule


@dataclass(frozen=True)
class Diffusion(CoordinateArchitecture):
    """Learn to take noise off crystals, and take it off step by step.

    Noise on coordinates is normal, wrapped round the cell, from 0.5 periods down to 0.005; its
    score is learned, and followed by a predictor and a corrector. Cell numbers diffuse as in
    denoising diffusion with a cosine schedule. Elements are unknown at first and become known one
    after another; where the formula is given they are known from the start, which is structure
    prediction. Space group, elements and properties are conditions that are left out of most of the
    training, so that none need be given.

    The network is equivariant under permutations and invariant under translations by construction,
    see `PeriodicNetwork`; inversion is learned by augmentation.

    Attributes
    ----------
    corrector
        Size of the corrector's steps, in variances of the noise; every step asks the network
        twice.

    References
    ----------
    Coordinates, and the default of `corrector`: DiffCSP, Jiao et al., NeurIPS 2023. Cells: Ho et
    al., NeurIPS 2020, with the schedule of Nichol and Dhariwal, ICML 2021. Elements: Austin et al.,
    NeurIPS 2021.
    """

    corrector: float = 0.4

    def loss(
        self, module: nn.Module, batch: Batch, part: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the squared errors of scaled score and noise, and the elements' cross-entropy."""
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
        spread = noise(time)
        moved = spread[:, None, None] * torch.randn(frac.shape, generator=generator, device=device)
        drawn = torch.randn(cell.shape, generator=generator, device=device)
        kept = signal(time)[:, None]
        now_cell = kept.sqrt() * cell + (1 - kept).sqrt() * drawn
        guess = module(species, (frac + moved) % 1.0, now_cell, time, batch)
        goal = wrapped_score(moved, spread[:, None, None]) / score_scale(spread)[:, None, None]
        weights = (real / real.sum(1, keepdim=True))[..., None]
        goal = goal - (goal * weights).sum(1, keepdim=True)
        found = {
            "frac": ((guess.frac - goal).square() * weights).sum((1, 2)).mean() / 3,
            "cell": (guess.cell - drawn).square().mean(),
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
        """Take a batch from noise to crystals, coordinates and cells in turns."""
        warmth = math.sqrt(max(drawing.request.temperature, 0.0))
        for number in range(self.steps):
            time, later = number / self.steps, (number + 1) / self.steps
            self._put_given(drawing, time)
            now, then = noise(torch.tensor(time)), noise(torch.tensor(later))
            guess = drawing.guess(time)
            score = self._score(drawing, guess.frac * score_scale(now))
            # Predictor: one step of the reverse process (Song et al., ICLR 2021, appendix F).
            gained = now**2 - then**2
            spread = torch.sqrt(then**2 * gained / now**2)
            ahead = (drawing.frac + now**2 * score) % 1.0
            drawn = drawing.normal(*drawing.frac.shape) * warmth
            drawing.frac = (drawing.frac + gained * score + spread * drawn) % 1.0
            ahead_cell = self._cell_step(drawing, guess.cell, time, later, warmth)
            known_now, known_later = min(time * self.lead, 1), min(later * self.lead, 1)
            if known_now < 1:
                drawing.reveal(guess.logits, (known_later - known_now) / (1 - known_now))
            drawing.push(guess.logits, ahead, ahead_cell, time / self.steps)
            # Corrector: one step of Langevin dynamics at the noise that is left.
            self._put_given(drawing, later)
            guess = drawing.guess(later)
            score = self._score(drawing, guess.frac * score_scale(then))
            size = self.corrector * then**2 * (later < 1)
            drawn = drawing.normal(*drawing.frac.shape) * warmth
            drawing.frac = (drawing.frac + size * score + torch.sqrt(2 * size) * drawn) % 1.0
        # The noise that is left is taken off at once.
        score = self._score(drawing, drawing.guess(1.0).frac * score_scale(then))
        drawing.frac = (drawing.frac + then**2 * score) % 1.0

    def _cell_step(
        self, drawing: Drawing, guess: Tensor, time: float, later: float, warmth: float
    ) -> Tensor:
        """Move the cells by one step, and return where they are expected to end."""
        kept, next_kept = float(signal(torch.tensor(time))), float(signal(torch.tensor(later)))
        ahead = (drawing.cell - math.sqrt(1 - kept) * guess) / math.sqrt(kept)
        ahead = ahead.clamp(-5, 5)
        alpha = kept / next_kept
        mean = math.sqrt(next_kept) * (1 - alpha) / (1 - kept) * ahead
        mean = mean + math.sqrt(alpha) * (1 - next_kept) / (1 - kept) * drawing.cell
        spread = math.sqrt((1 - next_kept) / (1 - kept) * (1 - alpha))
        drawing.cell = mean + spread * warmth * drawing.normal(*drawing.cell.shape)
        return ahead

    def _score(self, drawing: Drawing, score: Tensor) -> Tensor:
        """Return the score; with given atoms, that of differences from them."""
        if drawing.goal_cell is None:
            return score
        given = drawing.fixed[..., None]
        share = drawing.fixed.sum(1).clamp(min=1)[:, None, None]
        return score - (score * given).sum(1, keepdim=True) / share

    def _put_given(self, drawing: Drawing, time: float) -> None:
        """Put given atoms and cells where they would be at a time, with fresh noise."""
        if drawing.goal_cell is None:
            return
        spread, kept = noise(torch.tensor(time)), float(signal(torch.tensor(time)))
        known = drawing.goal + spread * drawing.normal(*drawing.frac.shape)
        drawing.frac = torch.where(drawing.fixed[..., None], known % 1.0, drawing.frac)
        drawn = drawing.normal(*drawing.cell.shape)
        drawing.cell = math.sqrt(kept) * drawing.goal_cell + math.sqrt(1 - kept) * drawn


def noise(time: Tensor) -> Tensor:
    """Return the standard deviation (periods) of the noise on coordinates at a time."""
    return _WIDEST * (_NARROWEST / _WIDEST) ** time


def signal(time: Tensor) -> Tensor:
    """Return the share of the variance of cell numbers that is signal at a time."""

    def part(u: Tensor) -> Tensor:
        return torch.cos((u + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2

    return (part(1 - time) / part(torch.zeros_like(time))).clamp(1e-4, 1 - 1e-5)


def wrapped_score(moved: Tensor, spread: Tensor) -> Tensor:
    """Return the derivative of the log density of a wrapped normal distribution.

    Parameters
    ----------
    moved
        Displacement (periods).
    spread
        Standard deviation (periods), broadcast to it.
    """
    images = torch.arange(-_IMAGES, _IMAGES + 1, device=moved.device)
    apart = (moved - moved.round())[..., None] + images
    weights = torch.softmax(-((apart / spread[..., None]) ** 2) / 2, dim=-1)
    return -(weights * apart).sum(-1) / spread**2


def score_scale(spread: Tensor) -> Tensor:
    """Return the root mean square of the score of a wrapped normal distribution.

    Parameters
    ----------
    spread
        Standard deviation (periods), any shape.
    """
    grid = (torch.arange(400, device=spread.device) + 0.5) / 400 - 0.5
    images = torch.arange(-_IMAGES, _IMAGES + 1, device=spread.device)
    apart = (grid[:, None] + images) / spread[..., None, None]
    density = torch.exp(-(apart**2) / 2).sum(-1)
    scores = wrapped_score(grid.expand(*spread.shape, 400), spread[..., None])
    found = torch.sqrt((density * scores**2).sum(-1) / density.sum(-1))
    return torch.where(spread < 0.1, 1 / spread, found)
