"""The three heads of the voxel model: composition, cell, and the flow of densities."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from matloop.generators.neural.architecture import Batch

MOST_OF_ONE = 20
"""Most atoms of one element in a cell."""

CELL_NUMBERS = 6
_NARROWEST = math.log(0.004)


class Contents(nn.Module):
    """Write a composition: elements in the order of electronegativity, each with its number."""

    def __init__(self, n_elements: int, width: int) -> None:
        super().__init__()
        self.n_elements, self.width = n_elements, width
        self.element = nn.Embedding(n_elements + 1, width)  # the last one begins
        self.count = nn.Embedding(MOST_OF_ONE + 1, width)
        self.memory = nn.GRU(width, width, batch_first=True)
        self.to_element = nn.Linear(width, n_elements + 1)  # the last one ends
        self.to_count = nn.Sequential(
            nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, MOST_OF_ONE + 1)
        )
        self.dropout = nn.Dropout(0.1)

    def forward(self, elements: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities of elements and of their numbers, given all that came before.

        Parameters
        ----------
        elements
            Shape (m, k); the vocabulary's length where there is none.
        counts
            Shape (m, k); 0 where there is none.

        Returns
        -------
        tuple
            Shapes (m, k + 1, elements + 1) and (m, k, numbers).
        """
        begin = elements.new_full((len(elements), 1), self.n_elements)
        before = torch.cat([begin, elements], 1)
        sizes = torch.cat([torch.zeros_like(begin), counts], 1)
        seen = self.dropout(self.element(before) + self.count(sizes))
        state = self.dropout(self.memory(seen)[0])
        which = torch.log_softmax(self.to_element(state), -1)
        pair = torch.cat([state[:, :-1], self.element(elements)], -1)
        many = self.to_count(pair)
        many[..., 0] = -torch.inf
        return which, torch.log_softmax(many, -1)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of compositions, shape ()."""
        elements, counts = batch["elements"], batch["counts"]
        which, many = self(elements, counts)
        ended = torch.cat([elements, torch.full_like(elements[:, :1], self.n_elements)], 1)
        picked = which.gather(-1, ended[..., None])[..., 0]
        length = (counts > 0).sum(1)
        real = torch.arange(picked.shape[1], device=counts.device)[None] <= length[:, None]
        total = (picked * real).sum(1)
        number = many.gather(-1, counts.clamp_min(1)[..., None])[..., 0]
        return -torch.mean(total + (number * (counts > 0)).sum(1))


class CellShape(nn.Module):
    """Write the six numbers of a cell one after the other, each as a mixture of normals.

    The first two components of each number start as copies of an earlier one: equal edges and equal
    angles are the rule in crystals, and a density over all six would blur them.
    """

    def __init__(self, width: int, components: int = 8) -> None:
        super().__init__()
        self.components = components
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width + 2 * k, width), nn.SiLU(), nn.Linear(width, 3 * components)
            )
            for k in range(CELL_NUMBERS)
        )
        copies = torch.zeros(CELL_NUMBERS, components, CELL_NUMBERS)
        for k in range(1, CELL_NUMBERS):
            first = 0 if k < 3 else 3
            if k > first:
                copies[k, 0, first] = copies[k, 1, k - 1] = 1.0
        self.copies = nn.Parameter(copies)

    def mixture(self, k: int, context: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-weights, means and log-widths of one number, each of shape (m, components)."""
        waves = torch.cat([before, (20 * before).sin()], -1)
        logits, means, widths = self.heads[k](torch.cat([context, waves], -1)).chunk(3, -1)
        copied = before @ self.copies[k, :, :k].T
        means = torch.where(self.copies[k].abs().sum(-1) > 0.5, 0.1 * means, means) + copied
        return torch.log_softmax(logits, -1), means, (widths - 2.0).clamp(_NARROWEST, 1.0)

    def loss(self, context: Tensor, cell: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of cells, shape ()."""
        total = torch.zeros(len(cell), device=cell.device)
        for k in range(CELL_NUMBERS):
            weights, means, widths = self.mixture(k, context, cell[:, :k])
            normal = -0.5 * ((cell[:, k, None] - means) / widths.exp()) ** 2 - widths
            total = total + torch.logsumexp(weights + normal, -1)
        return -total.mean()

    def draw(self, context: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Return cells, shape (m, 6)."""
        cell = torch.zeros((len(context), 0), device=context.device)
        for k in range(CELL_NUMBERS):
            weights, means, widths = self.mixture(k, context, cell)
            chosen = torch.multinomial(
                (weights / max(temperature, 1e-3)).softmax(-1).cpu(), 1, generator=generator
            ).to(context.device)
            noise = torch.randn((len(context), 1), generator=generator).to(context.device)
            value = means.gather(1, chosen) + temperature * widths.gather(1, chosen).exp() * noise
            cell = torch.cat([cell, value], 1)
        return cell


class Flow(nn.Module):
    """Tell the final densities from half-noise: a U-Net of periodic convolutions."""

    def __init__(self, channels: int, widths: list[int], context: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(17, context), nn.SiLU(), nn.Linear(context, context))
        self.enter = _conv(channels, widths[0])
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for small, large in pairwise(widths):
            self.down.append(_Block(small, small, context))
            self.shrink.append(nn.Conv3d(small, large, 2, stride=2))
            self.grow.append(nn.ConvTranspose3d(large, small, 2, stride=2))
            self.up.append(_Block(2 * small, small, context))
        self.middle = _Block(widths[-1], widths[-1], context)
        self.leave = _conv(widths[0], channels)

    def forward(self, noisy: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Return the densities expected at the end, shape (m, channels, n, n, n).

        Parameters
        ----------
        noisy
            Densities on their way, of the same shape.
        time
            0 for noise, 1 for crystals, shape (m,).
        context
            Embedding of composition and cell, shape (m, context).
        """
        waves = time[:, None] * math.pi * torch.arange(1.0, 9.0, device=time.device)
        told = context + self.time(torch.cat([time[:, None], waves.sin(), waves.cos()], -1))
        state, kept = self.enter(noisy), []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            state = block(state, told)
            kept.append(state)
            state = shrink(state)
        state = self.middle(state, told)
        for block, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            state = block(torch.cat([grow(state), kept.pop()], 1), told)
        return torch.as_tensor(self.leave(state))


class VoxelNetwork(nn.Module):
    """Composition, cell and densities, each knowing those before it."""

    def __init__(self, n_elements: int, slots: int, widths: list[int], context: int) -> None:
        super().__init__()
        self.n_elements, self.slots = n_elements, slots
        self.contents = Contents(n_elements, context)
        self.element = nn.Embedding(n_elements + 1, context, padding_idx=n_elements)
        self.number = nn.Embedding(MOST_OF_ONE + 1, context)
        self.place = nn.Linear(slots * context // 2, context)
        self.narrow = nn.Linear(context, context // 2)
        self.mix = nn.Sequential(
            nn.Linear(context, context), nn.SiLU(), nn.Linear(context, context)
        )
        self.cell_shape = CellShape(context)
        self.from_cell = nn.Sequential(
            nn.Linear(CELL_NUMBERS, context), nn.SiLU(), nn.Linear(context, context)
        )
        self.flow = Flow(slots, widths, context)

    def composition(self, elements: Tensor, counts: Tensor) -> Tensor:
        """Return the embedding of compositions, shape (m, context); the order of slots is kept."""
        tokens = self.element(elements) + self.number(counts)
        tokens = functional.silu(self.narrow(tokens)) * (counts > 0)[..., None]
        return torch.as_tensor(self.mix(self.place(tokens.flatten(1))))


class _Block(nn.Module):
    """Two convolutions around which the context scales and shifts."""

    def __init__(self, before: int, after: int, context: int) -> None:
        super().__init__()
        self.first, self.second = _conv(before, after), _conv(after, after)
        self.skip = nn.Conv3d(before, after, 1)
        self.norms = nn.ModuleList([nn.GroupNorm(8, before), nn.GroupNorm(8, after)])
        self.film = nn.Linear(context, 2 * after)

    def forward(self, state: Tensor, context: Tensor) -> Tensor:
        told = self.film(functional.silu(context))[..., None, None, None]
        scale, shift = told.chunk(2, 1)
        found = self.first(functional.silu(self.norms[0](state)))
        found = self.norms[1](found) * (1 + scale) + shift
        return torch.as_tensor(self.skip(state) + self.second(functional.silu(found)))


def _conv(before: int, after: int) -> nn.Conv3d:
    return nn.Conv3d(before, after, 3, padding=1, padding_mode="circular")
