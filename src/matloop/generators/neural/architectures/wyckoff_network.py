"""The network behind `WyckoffTransformer`: causal attention over the steps that write a crystal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from matloop.generators.neural.architectures.number_heads import MixtureHeads, SplineHeads

GROUP, SITE, CELL, COORDINATE = 0, 1, 2, 3
"""Kinds of steps: choose the space group; place an element or stop; a cell number; a coordinate."""

GROUPS = 231
MOST_STEPS = 192

_HARMONICS = 8


class WyckoffNetwork(nn.Module):
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

    sizes: Tensor
    freedom: Tensor
    symmetry: Tensor
    index: Tensor
    letter: nn.Embedding
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
        table = statistics["positions"]
        symmetries = sorted({name for row in table["symmetry"] for name in row})
        sizes = torch.tensor(table["multiplicity"])  # (231, 27), 0 where there is no such letter
        freedom = torch.tensor(table["freedom"])
        symmetry = torch.tensor([[symmetries.index(n) for n in row] for row in table["symmetry"]])
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("freedom", freedom, persistent=False)
        self.register_buffer("symmetry", symmetry, persistent=False)
        self.group = nn.Embedding(GROUPS, width)
        self.element = nn.Embedding(self.n_elements + 1, width)  # the last one stops
        index = torch.where(sizes > 0, torch.cumsum((sizes > 0).flatten(), 0).view_as(sizes), 0)
        self.register_buffer("index", index, persistent=False)
        self.letter = nn.Embedding(int(index.max()) + 1, width)
        self.site_symmetry = nn.Embedding(len(symmetries), width)
        self.multiplicity = nn.Linear(4, width)
        self.kind = nn.Embedding(4, width)
        self.axis = nn.Embedding(6, width)
        self.cell_value = nn.Linear(2 * _HARMONICS + 1, width)
        self.coordinate_value = nn.Linear(2 * _HARMONICS, width)
        self.place = nn.Embedding(MOST_STEPS, width)
        self.content = nn.Linear(width, width)
        self.composition = nn.Embedding(self.n_elements, width)
        self.system = nn.Embedding(self.n_elements, width)
        self.atoms = nn.Embedding(64, width)
        n_properties = max(len(statistics["properties"]), 1)
        self.properties = nn.ModuleList(
            nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(n_properties)
        )
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
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.norm(x)
        return found

    def open(self, conditions: dict[str, Tensor], capacity: int) -> Cache:
        """Return the memory of sequences that are yet to be written.

        Parameters
        ----------
        conditions
            As for `condition_of`.
        capacity
            Most steps of a sequence.
        """
        condition = self.condition_of(conditions)
        return Cache(condition, torch.zeros(len(condition), dtype=torch.long), capacity)

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
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x = block.extend(x, cache, number, rows)
        cache.lengths[rows] += 1
        state: Tensor = self.norm(x)[:, 0]
        return state

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
        for index, embed in enumerate(self.properties):
            value = batch["properties"][:, index : index + 1]
            known = torch.isfinite(value)
            asked = asked + embed(torch.nan_to_num(value)) * known
        if self.from_latent is not None:
            asked = asked + self.from_latent(batch["latent"])
        found: Tensor = self.condition(asked)
        return found

    def position(self, group: Tensor) -> Tensor:
        """Return the embeddings of the Wyckoff positions of each group, shape (m, 27, width)."""
        own = self.letter(self.index[group])
        sizes = self.sizes[group].float()
        numbers = torch.stack(
            [torch.log1p(sizes), (sizes == 1).float(), self.freedom[group].float(), sizes / 12], -1
        )
        found: Tensor = own + self.site_symmetry(self.symmetry[group]) + self.multiplicity(numbers)
        return found

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


class Block(nn.Module):
    """A layer of causal attention, before norms, for whole sequences or one step at a time.

    Parameters
    ----------
    width, heads, dropout
        Of the transformer.
    forget
        Share of the attention left out in training; 0 is much faster on a CPU.
    """

    def __init__(self, width: int, heads: int, dropout: float, forget: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, forget
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixing = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the next layer's input, shape (m, steps, width)."""
        m, steps, width = x.shape
        q, k, v = (
            part.view(m, steps, self.heads, -1).transpose(1, 2)
            for part in self.mixing(self.first(x)).chunk(3, dim=-1)
        )
        rate = self.rate if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
        return self._after(x, mixed.transpose(1, 2).reshape(m, steps, width))

    def extend(self, x: Tensor, cache: Cache, number: int, rows: Tensor) -> Tensor:
        """Return the next layer's input for one more step, shape (r, 1, width)."""
        r, _, width = x.shape
        q, k, v = (
            part.view(r, self.heads, 1, -1) for part in self.mixing(self.first(x)).chunk(3, dim=-1)
        )
        keys, values = cache.layer(number, self.heads, width // self.heads)
        place = cache.lengths[rows]
        keys[rows, :, place], values[rows, :, place] = k[:, :, 0], v[:, :, 0]
        longest = int(place.max()) + 1
        seen = torch.arange(longest, device=x.device)[None] <= place[:, None]
        mixed = functional.scaled_dot_product_attention(
            q, keys[rows, :, :longest], values[rows, :, :longest], seen[:, None, None]
        )
        return self._after(x, mixed.reshape(r, 1, width))

    def _after(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(self.out(mixed))
        found: Tensor = x + self.dropout(self.narrow(functional.gelu(self.widen(self.second(x)))))
        return found


class Cache:
    """What attention has seen of sequences of different lengths.

    Parameters
    ----------
    condition
        What is asked of each, shape (m, width).
    lengths
        Steps written so far, shape (m,).
    capacity
        Most steps of a sequence.
    """

    def __init__(self, condition: Tensor, lengths: Tensor, capacity: int) -> None:
        self.condition, self.lengths, self.capacity = condition, lengths, capacity
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def layer(self, number: int, heads: int, size: int) -> tuple[Tensor, Tensor]:
        """Return keys and values of a layer, each of shape (m, heads, capacity, size)."""
        if number not in self._layers:
            shape = (len(self.condition), heads, self.capacity, size)
            self._layers[number] = (torch.zeros(shape), torch.zeros(shape))
        return self._layers[number]

    def chosen(self, rows: Tensor, more: int) -> Cache:
        """Return the memory of some sequences with room for more steps.

        Parameters
        ----------
        rows
            Which, each as often as it is named, shape (r,).
        more
            Steps to come.
        """
        written = int(self.lengths[rows].max())
        found = Cache(self.condition[rows], self.lengths[rows], written + more)
        room = (0, 0, 0, more)
        for number, (keys, values) in self._layers.items():
            found._layers[number] = (
                functional.pad(keys[rows, :, :written], room),
                functional.pad(values[rows, :, :written], room),
            )
        return found


def _one_step(step: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value if name == "group" else value[:, None] for name, value in step.items()}


def _waves(value: Tensor, plain: Tensor | None = None) -> Tensor:
    """Return sines and cosines of the first harmonics of a value in periods."""
    orders = torch.arange(1, _HARMONICS + 1, device=value.device) * 2 * math.pi
    waves = [torch.sin(value * orders), torch.cos(value * orders)]
    return torch.cat(waves if plain is None else [*waves, plain], dim=-1)


def small_start(module: nn.Module) -> None:
    """Draw small random weights, for `nn.Module.apply`."""
    if isinstance(module, nn.Embedding | nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
