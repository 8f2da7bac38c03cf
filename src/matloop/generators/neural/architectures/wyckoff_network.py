"""The network behind `WyckoffTransformer`: causal attention over the steps that write a crystal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from matloop.generators.neural.architectures.causal_network import (
    Block,
    Cache,
    CausalNetwork,
    small_start,
)
from matloop.generators.neural.architectures.number_heads import MixtureHeads, SplineHeads
from matloop.generators.neural.architectures.property_embedding import PropertyEmbedding
from matloop.generators.neural.representations.orbits import LETTERS

GROUP, SITE, CELL, COORDINATE = 0, 1, 2, 3
"""Kinds of steps: choose the space group; place an element or stop; a cell number; a coordinate."""

GROUPS = 231
MOST_STEPS = 192

_HARMONICS = 8


class WyckoffNetwork(CausalNetwork):
    """Predict the content of every step from the steps before it.

    Parameters
    ----------
    width, depth, heads, dropout
        Of the transformer.
    numbers
        Densities of cell numbers and coordinates.
    statistics
        ``elements``, ``properties``, and the table of Wyckoff ``positions``.
    latent
        Length of a latent vector on which everything depends; 0 for none.
    """

    numbers: MixtureHeads | SplineHeads

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
        numbers: MixtureHeads | SplineHeads,
        statistics: dict[str, Any],
        latent: int = 0,
    ) -> None:
        super().__init__()
        self.n_elements = len(statistics["elements"])
        self.group = nn.Embedding(GROUPS, width)
        self.element = nn.Embedding(self.n_elements + 1, width)  # the last one stops
        self._embed_positions(statistics["positions"], width, absent=True)
        self.kind = nn.Embedding(4, width)
        self.axis = nn.Embedding(6, width)
        self.cell_value = nn.Linear(2 * _HARMONICS + 1, width)
        self.coordinate_value = nn.Linear(2 * _HARMONICS, width)
        self.place = nn.Embedding(MOST_STEPS, width)
        self.content = nn.Linear(width, width)
        self.composition = nn.Embedding(self.n_elements, width)
        self.system = nn.Embedding(self.n_elements, width)
        self.atoms = nn.Embedding(64, width)
        self.properties = PropertyEmbedding(len(statistics["properties"]), width)
        self.from_latent = nn.Linear(latent, width) if latent else None
        self.condition = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads, dropout, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.to_group = nn.Linear(width, GROUPS)
        self.to_element = nn.Linear(width, self.n_elements + 1)
        self.to_letter = nn.Sequential(
            nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.numbers = numbers
        self.apply(small_start)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the state from which each step is predicted, shape (m, steps, width).

        Parameters
        ----------
        batch
            ``kind``, ``element``, ``letter``, ``axis``, ``value`` of shape (m, steps), ``group`` of
            shape (m,), and what `condition_of` reads; steps marked in ``hidden``, if there, are not
            seen by those after them.
        """
        condition = self.condition_of(batch)
        content = self.content_of(batch)
        if "hidden" in batch:
            content = content * ~batch["hidden"].unsqueeze(-1)
        before = torch.cat([condition[:, None], self.content(content[:, :-1])], dim=1)
        place = torch.arange(batch["kind"].shape[1], device=content.device)[None]
        x = self.dropout(self._asked(batch, before, condition, place))
        return self._all_steps(x)

    def advance(
        self, cache: Cache, rows: Tensor, last: dict[str, Tensor], asked: dict[str, Tensor]
    ) -> Tensor:
        """Return the state from which the next step of some sequences is drawn.

        Parameters
        ----------
        cache
            Their memory, which grows by one step.
        rows
            Which sequences, shape (r,).
        last
            What their last step held, each of shape (r,); ignored at the start.
        asked
            What the next step is: ``kind``, ``element``, ``letter``, ``axis``, of shape (r,).

        Returns
        -------
        Tensor
            Shape (r, width).
        """
        condition, place = cache.condition[rows], cache.lengths[rows]
        content = self.content(self.content_of(_one_step(last)))[:, 0]
        before = torch.where((place == 0)[:, None], condition, content)
        x = self._asked(_one_step(asked), before[:, None], condition, place[:, None])
        return self._next_step(x, cache, rows)

    def content_of(self, batch: dict[str, Tensor]) -> Tensor:
        """Return what each step holds, shape (m, steps, width); `batch` as for `forward`."""
        kind, group, value = batch["kind"], batch["group"], batch["value"].unsqueeze(-1)
        is_kind = [(kind == number).unsqueeze(-1) for number in range(4)]
        content = self._site(batch) * (is_kind[SITE] | is_kind[COORDINATE])
        content = content + self.axis(batch["axis"]) * (kind >= CELL).unsqueeze(-1)
        content = content + self.group(group)[:, None] * is_kind[GROUP]
        content = content + self.cell_value(_waves(value / 2.0, value)) * is_kind[CELL]
        found: Tensor = content + self.coordinate_value(_waves(value)) * is_kind[COORDINATE]
        return found

    def _asked(
        self, batch: dict[str, Tensor], before: Tensor, condition: Tensor, place: Tensor
    ) -> Tensor:
        """Return the transformer's input: what came before, and what is to be written next."""
        kind = batch["kind"]
        about = self.kind(kind) + self.axis(batch["axis"]) * (kind >= CELL).unsqueeze(-1)
        about = about + self._site(batch) * (kind == COORDINATE).unsqueeze(-1)
        group = self.group(batch["group"])[:, None] * (kind != GROUP).unsqueeze(-1)
        found: Tensor = before + about + self.place(place) + condition[:, None] + group
        return found

    def _site(self, batch: dict[str, Tensor]) -> Tensor:
        group = batch["group"]
        rows = torch.arange(len(group), device=group.device)[:, None]
        site: Tensor = self.element(batch["element"]) + self.position(group)[rows, batch["letter"]]
        return site

    def condition_of(self, batch: dict[str, Tensor]) -> Tensor:
        """Return what is asked of each crystal, shape (m, width); zeros mean nothing is.

        Parameters
        ----------
        batch
            ``fractions`` and ``present`` of shape (m, elements), zero where not asked; ``atoms`` of
            shape (m,), 0 where not asked; ``properties`` of shape (m, properties), NaN where not;
            ``latent`` of shape (m, latent), where the network has one.
        """
        asked = batch["fractions"] @ self.composition.weight
        asked = asked + batch["present"] @ self.system.weight
        asked = asked + self.atoms(batch["atoms"].clamp(max=63))
        asked = self.properties(asked, batch["properties"])
        if self.from_latent is not None:
            asked = asked + self.from_latent(batch["latent"])
        found: Tensor = self.condition(asked)
        return found

    def position(self, group: Tensor) -> Tensor:
        """Return the embeddings of the Wyckoff positions of each group, shape (m, 27, width)."""
        return self.positions(group[:, None], torch.arange(len(LETTERS), device=group.device))

    def letter_logits(self, state: Tensor, element: Tensor, group: Tensor) -> Tensor:
        """Return logits over the letters, shape (..., 27); minus infinity where there is none.

        Parameters
        ----------
        state
            Shape (m, width), or (m, steps, width).
        element
            Element that is placed, shape (m,) or (m, steps).
        group
            Shape (m,).
        """
        asked = self.to_letter(torch.cat([state, self.element(element)], dim=-1))
        table = self.position(group)
        if state.dim() == 3:
            logits = torch.einsum("msw,mlw->msl", asked, table) / math.sqrt(asked.shape[-1])
            there = (self.sizes[group] > 0)[:, None]
        else:
            logits = torch.einsum("mw,mlw->ml", asked, table) / math.sqrt(asked.shape[-1])
            there = self.sizes[group] > 0
        return logits.masked_fill(~there, -torch.inf)


def _one_step(step: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value if name == "group" else value[:, None] for name, value in step.items()}


def _waves(value: Tensor, plain: Tensor | None = None) -> Tensor:
    """Return sines and cosines of the first harmonics of a value in periods."""
    orders = torch.arange(1, _HARMONICS + 1, device=value.device) * 2 * math.pi
    waves = [torch.sin(value * orders), torch.cos(value * orders)]
    return torch.cat(waves if plain is None else [*waves, plain], dim=-1)
