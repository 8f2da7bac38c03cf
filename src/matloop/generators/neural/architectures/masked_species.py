"""Elements that are unknown at first and become known one after another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def known_share(time: Tensor, lead: float) -> Tensor:
    """Return the expected share of the atoms whose element is known, at times from 0 to 1.

    Parameters
    ----------
    time
        0 for all noise, 1 for the crystal.
    lead
        Elements are all known at time 1 / lead, so that the rest of the way is spent on positions.
    """
    return (time * lead).clamp(max=1.0)


def mask(
    species: Tensor, share: Tensor, given: float, unknown: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return elements of which some are unknown, and which those are.

    It is the absorbing state of discrete diffusion (Austin et al., NeurIPS 2021), and the masked
    source of discrete flow matching (Gat et al., NeurIPS 2024), which train alike.

    Parameters
    ----------
    species
        Places in the vocabulary, shape (m, n).
    share
        Expected share that stays known, shape (m,).
    given
        Share of the crystals that keep all elements: structure prediction.
    unknown
        What stands for an unknown element.
    generator
        Randomness.
    """
    device = species.device
    drawn = torch.rand(species.shape, generator=generator, device=device)
    whole = torch.rand(len(species), generator=generator, device=device) < given
    hidden = (drawn >= share[:, None]) & ~whole[:, None]
    return torch.where(hidden, unknown, species), hidden


def species_loss(logits: Tensor, species: Tensor, hidden: Tensor, real: Tensor) -> Tensor:
    """Return the mean cross-entropy (nats) of the unknown elements.

    Parameters
    ----------
    logits
        Shape (m, n, elements).
    species
        The truth, shape (m, n).
    hidden, real
        Which are unknown, and which are no padding, shape (m, n).
    """
    chosen = hidden & real
    total = functional.cross_entropy(logits[chosen], species[chosen], reduction="sum")
    return total / chosen.sum().clamp(min=1)
