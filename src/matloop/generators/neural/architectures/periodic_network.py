"""The network behind flow matching and diffusion: attention over the atoms of a cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from matloop.generators.neural.architectures.property_embedding import PropertyEmbedding
from matloop.generators.neural.representations.coordinates import lattices

GROUPS = 231
"""Space groups, and 0 for none asked."""

_HARMONICS = 5
_SHELLS = 20
_REACH = 8.0  # Å
_PAIR = 32
_MOST_ATOMS = 64
_CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))


@dataclass(frozen=True)
class Guess:
    """What the network makes of a noisy crystal.

    Attributes
    ----------
    frac
        A vector for each atom on the axes of the cell, shape (m, n, 3), which sums to zero over the
        atoms of a crystal.
    cell
        Six numbers, shape (m, 6).
    logits
        Over the elements, for each atom, shape (m, n, elements).
    """

    frac: Tensor
    cell: Tensor
    logits: Tensor


class PeriodicNetwork(nn.Module):
    """See a crystal through the differences of its atoms' coordinates, and guess what it was.

    Atoms carry no place in a sequence, so the network is equivariant under their permutation, by
    construction. It is given the differences of fractional coordinates only, as waves of whole
    periods, and the distance to the nearest image, so it is invariant under translations and under
    moves by whole cells, by construction as well. Rotations do not arise: coordinates are on the
    axes of the cell, and the cell is six numbers that do not know its orientation. The choice of
    axes is that of the Niggli cell.

    Parameters
    ----------
    width, depth, heads, dropout
        Of the transformer.
    statistics
        Of `representations.coordinates.statistics_of`.

    References
    ----------
    Adaptive norms that start as the identity: Peebles and Xie, ICCV 2023. Waves of coordinate
    differences: Jiao et al., DiffCSP, NeurIPS 2023.
    """

    mean: Tensor
    spread: Tensor
    corners: Tensor

    def __init__(
        self, width: int, depth: int, heads: int, dropout: float, statistics: dict[str, Any]
    ) -> None:
        super().__init__()
        self.n_elements = len(statistics["elements"])
        self.heads, self.depth = heads, depth
        self.register_buffer("mean", torch.tensor(statistics["cell_mean"]), persistent=False)
        self.register_buffer("spread", torch.tensor(statistics["cell_spread"]), persistent=False)
        self.register_buffer("corners", torch.tensor(_CORNERS).float(), persistent=False)
        self.species = nn.Embedding(self.n_elements + 1, width)  # the last one is not known yet
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.cell = nn.Sequential(nn.Linear(6, width), nn.SiLU(), nn.Linear(width, width))
        self.atoms = nn.Embedding(_MOST_ATOMS, width)
        self.group = nn.Embedding(GROUPS, width)
        self.system = nn.Linear(self.n_elements, width, bias=False)
        self.contents = nn.Linear(width, width)
        self.properties = PropertyEmbedding(len(statistics["properties"]), width)
        self.condition = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.pair = nn.Linear(6 * _HARMONICS + _SHELLS, 2 * _PAIR)
        self.pair_condition = nn.Linear(width, 2 * _PAIR)
        self.pair_out = nn.Linear(2 * _PAIR, _PAIR)
        self.bias = nn.Linear(_PAIR, heads * depth)
        self.modulation = nn.Linear(width, 6 * width)  # one for all blocks, each adds its own
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.final = nn.Linear(width, 2 * width)
        self.left, self.right = nn.Linear(width, 2 * _PAIR), nn.Linear(width, 2 * _PAIR)
        self.between = nn.Linear(_PAIR, 2 * _PAIR)
        self.to_pair_frac = nn.Linear(2 * _PAIR, 3, bias=False)
        self.to_frac = nn.Linear(width, 3, bias=False)
        self.to_cell = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 6))
        self.to_species = nn.Linear(width, self.n_elements)
        for layer in (self.modulation, self.final, self.to_frac, self.to_pair_frac):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.zeros_(self.final.bias)

    def forward(
        self,
        species: Tensor,
        frac: Tensor,
        cell: Tensor,
        time: Tensor,
        batch: dict[str, Tensor],
    ) -> Guess:
        """Return what was asked of the network in training, for each atom and cell.

        Parameters
        ----------
        species
            Places in the vocabulary, its length where unknown, shape (m, n).
        frac
            Noisy fractional coordinates, shape (m, n, 3).
        cell
            Noisy standardised cell numbers, shape (m, 6).
        time
            From 0, all noise, to 1, the crystal, shape (m,).
        batch
            ``real`` and the conditions, as `representations.coordinates.collate` returns them.
        """
        real = batch["real"]
        x = self.species(species) * real[..., None]
        condition = self._condition(x, cell, time, batch)
        pair = self._pairs(frac, cell, real, condition)
        bias = self.bias(pair).unflatten(-1, (self.depth, self.heads)).permute(3, 0, 4, 1, 2)
        bias = bias.masked_fill(~real[:, None, None, :], -1e4)
        shared = self.modulation(condition)
        for block, own in zip(self.blocks, bias, strict=True):
            x = block(x, pair, own, shared)
        scale, shift = self.final(condition)[:, None].chunk(2, dim=-1)
        x = self.norm(x) * (1 + scale) + shift
        weights = (real / real.sum(1, keepdim=True))[..., None]
        hidden = self.left(x)[:, :, None] + self.right(x)[:, None] + self.between(pair)
        hidden = (functional.silu(hidden) * weights[:, None]).sum(2)
        velocity = self.to_frac(x) + self.to_pair_frac(hidden)
        velocity = (velocity - (velocity * weights).sum(1, keepdim=True)) * real[..., None]
        pooled = (x * weights).sum(1) + condition
        return Guess(velocity, self.to_cell(pooled), self.to_species(x))

    def lattices(self, cell: Tensor, n_atoms: Tensor) -> Tensor:
        """Return lattice vectors in rows (Å), shape (m, 3, 3)."""
        return lattices(cell, n_atoms, self.mean, self.spread)

    def _condition(self, x: Tensor, cell: Tensor, time: Tensor, batch: dict[str, Tensor]) -> Tensor:
        count = batch["real"].sum(1)
        orders = torch.exp(torch.linspace(0.0, math.log(100.0), 32, device=time.device))
        waves = time[:, None] * orders * math.pi / 2
        asked = self.time(torch.cat([torch.sin(waves), torch.cos(waves)], dim=-1))
        asked = asked + self.cell(cell) + self.atoms(count.clamp(max=_MOST_ATOMS - 1))
        asked = asked + self.contents(x.sum(1) / count[:, None])
        asked = asked + self.system(batch["present"])
        asked = asked + self.group(batch["group"]) * (batch["group"] > 0)[:, None]
        asked = self.properties(asked, batch["properties"])
        found: Tensor = self.condition(asked)
        return found

    def _pairs(self, frac: Tensor, cell: Tensor, real: Tensor, condition: Tensor) -> Tensor:
        """Return what is between each two atoms, shape (m, n, n, pair width)."""
        apart = frac[:, None, :, :] - frac[:, :, None, :]
        apart = apart - apart.round()
        orders = torch.arange(1, _HARMONICS + 1, device=frac.device) * 2 * math.pi
        waves = (apart[..., None] * orders).flatten(-2)
        matrix = self.lattices(cell, real.sum(1))
        # In a reduced cell the nearest image is at a corner of the box around the difference.
        images = (
            apart[..., None, :] - torch.where(apart > 0, 1.0, -1.0)[..., None, :] * self.corners
        )
        squares = torch.einsum("mijkx,mxy->mijky", images, matrix).square().sum(-1).amin(-1)
        distance = torch.sqrt(squares + 1e-6)
        centres = torch.linspace(0.0, _REACH, _SHELLS, device=frac.device)
        shells = torch.exp(-(((distance[..., None] - centres) * _SHELLS / _REACH) ** 2) / 2)
        seen = torch.cat([torch.sin(waves), torch.cos(waves), shells], dim=-1)
        hidden = self.pair(seen) + self.pair_condition(condition)[:, None, None]
        found: Tensor = self.pair_out(functional.silu(hidden))
        return found


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.first = nn.LayerNorm(width, elementwise_affine=False)
        self.second = nn.LayerNorm(width, elementwise_affine=False)
        self.own = nn.Parameter(torch.zeros(6 * width))
        self.mixing = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.out_pair = nn.Linear(heads * _PAIR, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, pair: Tensor, bias: Tensor, shared: Tensor) -> Tensor:
        parts = (shared + self.own)[:, None].chunk(6, dim=-1)
        scale, shift, gate, scale_after, shift_after, gate_after = parts
        y = self.first(x) * (1 + scale) + shift
        q, k, v = self.mixing(y).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
        weights = torch.softmax(weights, dim=-1)
        mixed = self.out((weights @ v).transpose(1, 2).flatten(2))
        mixed = mixed + self.out_pair((weights.transpose(1, 2) @ pair).flatten(2))
        x = x + (1 + gate) * self.dropout(mixed)
        y = self.second(x) * (1 + scale_after) + shift_after
        found: Tensor = x + (1 + gate_after) * self.dropout(
            self.narrow(functional.gelu(self.widen(y)))
        )
        return found
