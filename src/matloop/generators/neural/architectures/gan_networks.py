"""The two networks of the Wyckoff GAN, and the differentiable geometry between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from matloop.generators.neural.architecture import Batch, Statistics

CELL_NUMBERS = 6
_FREQUENCIES = 3
_CENTRES = 16
_REACH = 3.0
_FAR = 1e6


@dataclass(frozen=True)
class Made:
    """Crystals as the generator makes them and the critic sees them, differentiable.

    Attributes
    ----------
    elements
        One-hot over the vocabulary, shape (m, orbits, elements).
    free
        Coordinates of the generating points, 0 where none is free, shape (m, orbits, 3).
    cell
        Free numbers of the conventional cell, as in `SymmetricCrystal.cell`, shape (m, 6).
    """

    elements: Tensor
    free: Tensor
    cell: Tensor

    def between(self, other: Made, share: Tensor) -> Made:
        """Return crystals on the way to others, coordinates by the shorter way around the cell.

        Parameters
        ----------
        other
            Crystals of the same templates.
        share
            How far to go, shape (m,).
        """
        apart = other.free - self.free
        wide, narrow = share[:, None, None], share[:, None]
        return Made(
            self.elements + wide * (other.elements - self.elements),
            self.free + wide * (apart - torch.round(apart)),
            self.cell + narrow * (other.cell - self.cell),
        )

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three tensors, as `torch.autograd.grad` takes them."""
        return self.elements, self.free, self.cell

    def leaves(self) -> Made:
        """Return the same crystals without history, with gradients."""
        found = [tensor.detach().requires_grad_() for tensor in self.tensors()]
        return replace(self, elements=found[0], free=found[1], cell=found[2])


class _Places(nn.Module):
    """Embeds what a template says of each orbit: group, position, size, freedom."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.group = nn.Embedding(231, width)
        self.letter = nn.Embedding(28, width)
        self.numbers = nn.Linear(4, width)

    def forward(self, batch: Batch) -> Tensor:
        numbers = torch.cat(
            [batch["size"][..., None].float().log1p(), batch["is_free"].float()], dim=-1
        )
        place = self.letter(batch["letter"]) + self.numbers(numbers)
        return torch.add(place, self.group(batch["group"])[:, None])


class Generator(nn.Module):
    """Choose elements for the orbits of a template, then, knowing them, coordinates and cell.

    Before training, elements are as frequent as in the data, and cells those of their family.
    """

    cells: Tensor

    def __init__(self, width: int, depth: int, heads: int, noise: int, statistics: Statistics):
        super().__init__()
        self.noise = noise
        n_elements = len(statistics["elements"])
        self.places = _Places(width)
        self.from_noise = nn.Linear(2 * noise, width)
        self.chooser = _encoder(width, depth, heads)
        self.to_element = nn.Linear(width, n_elements)
        frequency = torch.tensor(statistics["frequency"], dtype=torch.float32)
        self.to_element.bias.data = torch.log(frequency / frequency.sum())
        cells = torch.tensor(list(statistics["cells"].values()), dtype=torch.float32)
        self.register_buffer("cells", cells, persistent=False)
        self.from_element = nn.Linear(n_elements, width, bias=False)
        self.builder = _encoder(width, depth, heads)
        self.cell_token = nn.Parameter(torch.randn(width) * 0.1)
        self.to_free = nn.Linear(width, 6)
        self.to_cell = nn.Linear(width, CELL_NUMBERS)

    def noise_for(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return noise of the crystals and of their orbits, shape (m, orbits, 2 noise)."""
        m, orbits = batch["letter"].shape
        device = batch["letter"].device
        shared = torch.randn((m, 1, self.noise), generator=generator, device=device)
        own = torch.randn((m, orbits, self.noise), generator=generator, device=device)
        return torch.cat([shared.expand_as(own), own], dim=-1)

    def logits(self, batch: Batch, noise: Tensor) -> Tensor:
        """Return the logits of the elements of each orbit, shape (m, orbits, elements)."""
        seen = self.places(batch) + self.from_noise(noise)
        state = self.chooser(seen, src_key_padding_mask=~batch["real"])
        return torch.as_tensor(self.to_element(state))

    def build(self, batch: Batch, noise: Tensor, elements: Tensor) -> Made:
        """Return crystals of chosen elements (one-hot)."""
        seen = self.places(batch) + self.from_noise(noise) + self.from_element(elements)
        cell = self.cell_token + self.places.group(batch["group"])
        cell = cell + (seen * batch["real"][..., None]).mean(1)
        tokens = torch.cat([cell[:, None], seen], dim=1)
        hidden = torch.cat([torch.zeros_like(batch["real"][:, :1]), ~batch["real"]], dim=1)
        state = self.builder(tokens, src_key_padding_mask=hidden)
        angles = self.to_free(state[:, 1:]).unflatten(-1, (3, 2))
        free = torch.atan2(angles[..., 0], angles[..., 1] + 1e-6) / (2 * torch.pi) % 1.0
        free = torch.where(batch["is_free"], free, torch.zeros_like(free))
        mean, spread = self.cells[batch["family"]].unbind(1)
        numbers = mean + spread * self.to_cell(state[:, 0])
        return Made(elements, free, numbers * batch["cell_is_free"])

    def forward(self, batch: Batch, generator: torch.Generator) -> Made:
        """Return crystals with elements drawn by the straight-through Gumbel trick."""
        noise = self.noise_for(batch, generator)
        logits = self.logits(batch, noise)
        drawn = logits + gumbel(logits.shape, generator, logits.device)
        soft = torch.softmax(drawn, dim=-1)
        hard = torch.zeros_like(soft).scatter_(-1, drawn.argmax(-1, keepdim=True), 1.0)
        chosen = (hard + soft - soft.detach()) * batch["real"][..., None]
        return self.build(batch, noise, chosen)


class Critic(nn.Module):
    """Score crystals by their atoms and the distances between them; the order does not matter."""

    elements_table: Tensor

    def __init__(self, width: int, depth: int, statistics: Statistics) -> None:
        super().__init__()
        table = torch.tensor(statistics["table"], dtype=torch.float32)
        self.register_buffer("elements_table", table, persistent=False)
        self.places = _Places(width)
        self.embed = nn.Linear(len(table), width)
        self.filters = nn.ModuleList(nn.Linear(_CENTRES, width) for _ in range(depth))
        self.updates = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.cell = nn.Linear(2 * CELL_NUMBERS, width)
        self.group = nn.Embedding(231, width)
        self.coordinates = nn.Linear(6 * _FREQUENCIES, width)
        self.score = nn.Sequential(
            nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, made: Made, batch: Batch) -> Tensor:
        """Return one score per crystal, shape (m,)."""
        real = batch["atom"]
        waves = (
            2 * torch.pi * made.free[..., None] * torch.arange(1, _FREQUENCIES + 1).to(made.free)
        )
        shape = torch.cat([waves.sin(), waves.cos()], -1) * batch["is_free"][..., None]
        orbits = self.embed(made.elements) + self.places(batch)
        orbits = orbits + self.coordinates(shape.flatten(-2))
        state = _of_atoms(orbits, batch) * real[..., None]
        ratio = contact_ratios(made, batch, self.elements_table)
        near = _radial(ratio) * (real[:, None] & real[:, :, None])[..., None]
        for weigh, update in zip(self.filters, self.updates, strict=True):
            message = torch.einsum("mijc,mjc->mic", weigh(near), state) / 4.0
            state = state + update(torch.cat([state, message], -1)) * real[..., None]
        mean = state.sum(1) / real.sum(1, keepdim=True)
        # Composition decides on charges: the mean of squares tells mixtures from averages.
        spread = (state**2).sum(1) / real.sum(1, keepdim=True)
        cell = self.cell(torch.cat([made.cell, batch["cell_is_free"]], -1))
        whole = cell + self.group(batch["group"])
        return torch.as_tensor(self.score(torch.cat([mean, spread, whole], -1)))[:, 0]


def metric_tensor(made: Made, batch: Batch, table: Tensor) -> Tensor:
    """Return the metric tensors of the primitive cells (Å²), shape (m, 3, 3).

    Parameters
    ----------
    made
        Crystals.
    batch
        Their templates.
    table
        Volume in salts, volume in alloys (Å^3), whether it is an anion, and covalent radius (Å) of
        each element, shape (elements, 4).
    """
    each = made.elements @ table
    sizes = batch["size"] * batch["real"]
    total = (each * sizes[..., None]).sum(1)
    volume = torch.where(total[:, 2] > 0.5, total[:, 0], total[:, 1])
    edge = (volume * batch["centring"]).clamp_min(1.0) ** (1 / 3)
    numbers = torch.einsum("mij,mj->mi", batch["cell_map"], made.cell) + batch["cell_shift"]
    lengths = edge[:, None] * numbers[:, :3].clamp(-3.0, 3.0).exp()
    cosines = torch.cos(torch.deg2rad(90.0 + 30.0 * numbers[:, 3:].clamp(-2.0, 2.0)))
    alpha, beta, gamma = cosines.unbind(-1)
    one = torch.ones_like(alpha)
    angles = torch.stack([one, gamma, beta, gamma, one, alpha, beta, alpha, one], -1)
    conventional = angles.reshape(-1, 3, 3) * lengths[:, :, None] * lengths[:, None]
    primitive = batch["primitive"]
    return torch.matmul(primitive @ conventional, primitive.transpose(1, 2))


def contact_ratios(made: Made, batch: Batch, table: Tensor) -> Tensor:
    """Return the distance of each two atoms over the sum of their covalent radii.

    The nearest of 27 images counts, for an atom and itself the nearest but itself; shape
    (m, atoms, atoms).
    """
    points = _of_atoms(made.free, batch)
    frac = torch.einsum("maij,maj->mai", batch["rotation"], points) + batch["translation"]
    metric = metric_tensor(made, batch, table)
    steps = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, device=frac.device)] * 3)
    apart = frac[:, :, None] - frac[:, None]
    apart = apart - torch.round(apart).detach()
    with torch.no_grad():  # which image is nearest has no gradient
        images = apart[..., None, :] + steps
        squares = torch.einsum("mijka,mab,mijkb->mijk", images, metric, images)
        itself = torch.eye(frac.shape[1], dtype=torch.bool, device=frac.device)
        squares[:, itself, 13] = _FAR
        nearest = steps[squares.argmin(-1)]
    apart = apart + nearest
    square = torch.einsum("mija,mab,mijb->mij", apart, metric, apart)
    radii = _of_atoms(made.elements @ table[:, 3:], batch)[..., 0]
    both = (radii[:, :, None] + radii[:, None]).clamp_min(0.2)
    return torch.sqrt(square.clamp_min(1e-4)) / both


def gumbel(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return noise that turns the largest logit into a draw."""
    uniform = torch.rand(shape, generator=generator, device=device)
    return -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))


def _of_atoms(orbits: Tensor, batch: Batch) -> Tensor:
    """Return what belongs to each atom's orbit, shape (m, atoms, k)."""
    owner = batch["owner"][..., None].expand(-1, -1, orbits.shape[-1])
    return orbits.gather(1, owner)


def _radial(ratio: Tensor) -> Tensor:
    centres = torch.linspace(0.2, _REACH, _CENTRES, device=ratio.device)
    width = (_REACH - 0.2) / (_CENTRES - 1)
    return torch.exp(-0.5 * ((ratio[..., None] - centres) / width) ** 2)


def _encoder(width: int, depth: int, heads: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
