"""Causal attention over the steps that write a crystal, for whole sequences or one at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class CausalNetwork(nn.Module):
    """What networks that predict every step from those before it share.

    A Wyckoff position is embedded by itself, its site symmetry, multiplicity and freedom.
    """

    sizes: Tensor
    freedom: Tensor
    symmetry: Tensor
    index: Tensor
    letter: nn.Embedding
    blocks: nn.ModuleList
    norm: nn.LayerNorm

    def condition_of(self, batch: dict[str, Tensor]) -> Tensor:
        """Return what is asked of each sequence, shape (m, width)."""
        raise NotImplementedError

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

    def positions(self, group: Tensor, letter: Tensor) -> Tensor:
        """Return the embeddings of Wyckoff positions.

        Parameters
        ----------
        group, letter
            Space groups, and places of letters among `orbits.LETTERS`, broadcast to one shape.

        Returns
        -------
        Tensor
            Of that shape and (width,).
        """
        sizes = self.sizes[group, letter].float()
        freedom = self.freedom[group, letter].float()
        numbers = [torch.log1p(sizes), (sizes == 1).float(), freedom, sizes / 12]
        own = self.letter(self.index[group, letter])
        own = own + self.site_symmetry(self.symmetry[group, letter])
        found: Tensor = own + self.multiplicity(torch.stack(numbers, -1))
        return found

    def _embed_positions(self, table: dict[str, Any], width: int, *, absent: bool) -> None:
        """Make the embeddings of Wyckoff positions.

        Parameters
        ----------
        table
            Multiplicity, freedom and site symmetry of every letter of every group.
        width
            Of the network.
        absent
            Whether letters that a group lacks have an embedding of their own.
        """
        names = sorted({name for row in table["symmetry"] for name in row})
        sizes = torch.tensor(table["multiplicity"])  # (231, 27), 0 where there is no such letter
        symmetry = torch.tensor([[names.index(n) for n in row] for row in table["symmetry"]])
        number = torch.cumsum((sizes > 0).flatten(), 0).view_as(sizes) - (0 if absent else 1)
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("freedom", torch.tensor(table["freedom"]), persistent=False)
        self.register_buffer("symmetry", symmetry, persistent=False)
        self.register_buffer("index", torch.where(sizes > 0, number, 0), persistent=False)
        self.letter = nn.Embedding(int(self.index.max()) + 1, width)
        self.site_symmetry = nn.Embedding(len(names), width)
        self.multiplicity = nn.Linear(4, width)

    def _all_steps(self, x: Tensor) -> Tensor:
        """Return the states of all steps, shape (m, steps, width)."""
        for block in self.blocks:
            x = block(x)
        state: Tensor = self.norm(x)
        return state

    def _next_step(self, x: Tensor, cache: Cache, rows: Tensor) -> Tensor:
        """Return the states of one more step, (r, width), from its inputs, (r, 1, width)."""
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x = block.extend(x, cache, number, rows)
        cache.lengths[rows] += 1
        state: Tensor = self.norm(x)[:, 0]
        return state


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


def small_start(module: nn.Module) -> None:
    """Draw small random weights, for `nn.Module.apply`."""
    if isinstance(module, nn.Embedding | nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
