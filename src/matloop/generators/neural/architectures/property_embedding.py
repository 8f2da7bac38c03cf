"""How networks are told the properties that a crystal is to have."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PropertyEmbedding(nn.ModuleList):
    """A small network for each property.

    Parameters
    ----------
    count
        How many properties; there is one network at least.
    width
        Of the embedding.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__(
            nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(max(count, 1))
        )

    def forward(self, asked: Tensor, values: Tensor) -> Tensor:
        """Return what is asked otherwise and what properties are asked for, shape (m, width).

        Parameters
        ----------
        asked
            Embedding of the other conditions, shape (m, width).
        values
            Standardised values, shape (m, properties); NaN where a property is left open.
        """
        for index, embed in enumerate(self):
            value = values[:, index : index + 1]
            asked = asked + embed(torch.nan_to_num(value)) * torch.isfinite(value)
        return asked
