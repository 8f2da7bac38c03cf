"""A Wasserstein GAN over symmetric crystals: elements, coordinates and cell of known templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from ase.data import atomic_numbers, covalent_radii
from monty.json import MSONable
from numpy.typing import NDArray
from pymatgen.core import Structure
from torch import Tensor, nn

from matloop.generators.neural.architecture import (
    Batch,
    Condition,
    Row,
    SampleRequest,
    Statistics,
    TrainingCrystal,
)
from matloop.generators.neural.architectures.completions import CLASH
from matloop.generators.neural.architectures.gan_networks import (
    Critic,
    Generator,
    Made,
    contact_ratios,
)
from matloop.generators.neural.architectures.step_data import filled, padded
from matloop.generators.neural.architectures.transformer_architecture import check_heads
from matloop.generators.neural.data_statistics import elements_of
from matloop.generators.neural.representations.orbits import (
    FREE_CELL,
    LETTERS,
    element_order,
    free_axes,
    positions,
    symmetric,
)
from matloop.generators.volumes import ANIONS, estimated_volume
from matloop.generators.wyckoff import space_group

MOST_ORBITS = 12
"""Most occupied Wyckoff positions of a crystal that is learned from."""

_PENALISED = 0.5  # share of the critic's steps with the penalty, which costs most of the time

Array = NDArray[np.float32]


class Pair(nn.Module):
    """Generator and critic."""

    def __init__(self, generator: Generator, critic: Critic) -> None:
        super().__init__()
        self.generator, self.critic = generator, critic


@dataclass(frozen=True)
class WyckoffGan(MSONable):
    """Fill templates of known crystals: two networks, one that makes and one that tells.

    A template is a space group and its occupied Wyckoff positions, drawn as often as the training
    data has it; new templates are not made. The generator chooses the elements of its orbits, then
    free coordinates and cell. The critic sees elements, cell, and all distances between atoms, in
    any order. Every crystal has at least the symmetry of its template.

    Attributes
    ----------
    width, depth, heads
        Size of each of the generator's two transformers; the critic has the same width.
    noise
        Random numbers per crystal, and as many per orbit.
    gradient_penalty
        Weight of the penalty that keeps the critic's slope at one; it is applied at every second
        step, twice as strong, because it costs most of the time (Karras et al., CVPR 2020).
    completions
        Crystals made for each that is asked for: of those without a clash, the critic's favourite
        is kept.

    References
    ----------
    Wasserstein GAN with gradient penalty: Gulrajani et al., NeurIPS 2017. Straight-through Gumbel:
    Jang et al., ICLR 2017. Distances by continuous filters: Schütt et al., NeurIPS 2017.
    """

    supports: ClassVar[frozenset[Condition]] = frozenset(
        {"elements", "system", "formula", "space_group", "n_atoms", "charge_balance"}
    )
    parts: ClassVar[tuple[str, ...]] = ("critic", "critic", "critic", "critic", "generator")
    betas: ClassVar[tuple[float, float]] = (0.0, 0.9)

    width: int = 64
    depth: int = 1
    heads: int = 4
    noise: int = 16
    gradient_penalty: float = 10.0
    completions: int = 8

    def __post_init__(self) -> None:
        """Refuse a width the heads do not divide."""
        check_heads(self.width, self.heads)
        if self.completions < 1:
            raise ValueError("completions must be at least 1")

    def statistics(self, crystals: Sequence[TrainingCrystal]) -> Statistics:
        """Return elements and what is known of them, templates, and cells of each family."""
        elements = element_order(elements_of(crystals))
        templates: Counter[str] = Counter()
        orbits: Counter[str] = Counter()
        cells: dict[str, list[tuple[float, ...]]] = {family: [] for family in FREE_CELL}
        for one in crystals:
            written = symmetric(one.structure)
            if written is not None and len(written.orbits) <= MOST_ORBITS:
                letters = "".join(sorted(orbit.letter for orbit in written.orbits))
                templates[f"{written.space_group}:{letters}"] += 1
                orbits.update(orbit.element for orbit in written.orbits)
                cells[space_group(written.space_group).lattice_type].append(written.cell)
        table = [
            [*_volumes(symbol), symbol in ANIONS, covalent_radii[atomic_numbers[symbol]]]
            for symbol in elements
        ]
        return {
            "elements": elements,
            "table": [[float(value) for value in row] for row in table],
            "frequency": [orbits[symbol] + 1 for symbol in elements],
            "cells": {family: _moments(family, found) for family, found in cells.items()},
            "templates": dict(sorted(templates.items())),
        }

    def encode(self, crystal: TrainingCrystal, statistics: Statistics) -> Row | None:
        """Return template and content of a crystal."""
        written = symmetric(crystal.structure)
        known = set(statistics["elements"])
        if written is None or len(written.orbits) > MOST_ORBITS or not set(written.counts) <= known:
            return None
        orbits = sorted(written.orbits, key=lambda one: one.letter)
        row = template_row(written.space_group, tuple(orbit.letter for orbit in orbits))
        free = np.zeros((len(orbits), 3), np.float32)
        for index, orbit in enumerate(orbits):
            free[index, free_axes(positions(written.space_group)[orbit.letter])] = orbit.free
        cell = np.zeros(6, np.float32)
        cell[list(FREE_CELL[space_group(written.space_group).lattice_type])] = written.cell
        element = [statistics["elements"].index(orbit.element) for orbit in orbits]
        return {**row, "element": np.array(element, np.int64), "free": free, "cell": cell}

    def collate(
        self, rows: Sequence[Row], statistics: Statistics, rng: np.random.Generator | None
    ) -> Batch:
        """Return padded templates and contents; nothing is augmented."""
        del statistics, rng
        orbits = max(len(row["letter"]) for row in rows)
        atoms = max(len(row["owner"]) for row in rows)
        most = dict.fromkeys(("letter", "size", "is_free", "element", "free"), orbits)
        most |= dict.fromkeys(("owner", "rotation", "translation"), atoms)
        batch: Batch = {}
        for name in rows[0]:
            if name in most:
                batch[name] = torch.from_numpy(padded(rows, name, most[name]))
            else:
                batch[name] = torch.from_numpy(np.stack([row[name] for row in rows]))
        batch["real"] = filled(rows, "letter", orbits)
        batch["atom"] = filled(rows, "owner", atoms)
        return batch

    def build(self, statistics: Statistics) -> nn.Module:
        """Return both networks with random weights."""
        return Pair(
            Generator(self.width, self.depth, self.heads, self.noise, statistics),
            Critic(self.width, self.depth, statistics),
        )

    def loss(
        self, module: nn.Module, batch: Batch, part: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the loss of one of the two; in evaluation, how far made crystals are from real.

        A Wasserstein distance says nothing across critics, so validation compares distributions
        of made and real crystals instead, see `distance`.
        """
        assert isinstance(module, Pair)
        real = _real(batch, module.critic.elements_table.shape[0])
        if not module.training:
            if part == "critic":
                return {"loss": torch.zeros(())}
            with torch.no_grad():
                return distance(real, module.generator(batch, generator), batch, module.critic)
        if part == "generator":
            fake = module.generator(batch, generator)
            return {"loss": -module.critic(fake, batch).mean()}
        with torch.no_grad():
            fake = module.generator(batch, generator)
        gap = module.critic(fake, batch).mean() - module.critic(real, batch).mean()
        if torch.rand((), generator=generator, device=gap.device) > _PENALISED:
            return {"loss": gap}
        share = torch.rand(len(fake.cell), generator=generator, device=fake.cell.device)
        between = real.between(fake, share).leaves()
        scores = module.critic(between, batch).sum()
        slopes = torch.autograd.grad(scores, between.tensors(), create_graph=True)
        square = torch.stack([(slope.flatten(1) ** 2).sum(1) for slope in slopes]).sum(0)
        slope = torch.sqrt(square + 1e-12)
        penalty = ((slope - 1) ** 2).mean()
        return {"loss": gap + self.gradient_penalty / _PENALISED * penalty}

    def sample(
        self, module: nn.Module, statistics: Statistics, request: SampleRequest
    ) -> list[Structure]:
        """Return crystals; where all completions clash or miss a condition, one is missing."""
        from matloop.generators.neural.architectures.gan_sampling import fill_templates

        assert isinstance(module, Pair)
        return fill_templates(self, module, statistics, request)


def distance(real: Made, fake: Made, batch: Batch, critic: Critic) -> dict[str, Tensor]:
    """Return how far made crystals are from real ones of the same templates.

    The mean over descriptors of the one-dimensional Wasserstein distance in units of the real
    spread (``loss``), and the share of made crystals in which atoms clash (``clashes``).
    Descriptors are nearest and mean contact, cell numbers, mean radius and volume of the elements.
    """
    table, found = critic.elements_table, []
    sizes = (batch["size"] * batch["real"])[..., None]
    padding = ~(batch["atom"][:, None] & batch["atom"][:, :, None])
    for made in (real, fake):
        ratio = contact_ratios(made, batch, table).masked_fill(padding, 9.0)
        nearest = ratio.amin(-1)
        mean = (nearest * batch["atom"]).sum(1) / batch["atom"].sum(1)
        each = ((made.elements @ table) * sizes).sum(1) / sizes.sum(1)
        columns = [nearest.amin(-1)[:, None], mean[:, None], made.cell[:, :3], each]
        found.append(torch.cat(columns, 1))
    ordered = [values.sort(0).values for values in found]
    spread = found[0].std(0, unbiased=False).clamp_min(0.05)
    apart = ((ordered[0] - ordered[1]).abs().mean(0) / spread).mean()
    return {"loss": apart, "clashes": (found[1][:, 0] < CLASH).float().mean()}


@cache
def template_row(number: int, letters: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    """Return all that a template fixes, as arrays.

    Parameters
    ----------
    number
        Space group number.
    letters
        Wyckoff letter of each orbit.
    """
    group = space_group(number)
    chosen = [positions(number)[letter] for letter in letters]
    is_free = np.zeros((len(chosen), 3), bool)
    for index, position in enumerate(chosen):
        is_free[index, free_axes(position)] = True
    sizes = np.array([position.multiplicity for position in chosen])
    cell_map, cell_shift, cell_is_free = _cell_map(group.lattice_type)
    return {
        "group": np.array(number),
        "letter": np.array([LETTERS.index(letter) for letter in letters]),
        "size": sizes,
        "is_free": is_free,
        "owner": np.repeat(np.arange(len(chosen)), sizes),
        "rotation": np.concatenate([one.rotations for one in chosen]).astype(np.float32),
        "translation": np.concatenate([one.translations for one in chosen]).astype(np.float32),
        "primitive": group.primitive.astype(np.float32),
        "centring": np.array(float(group.centring), np.float32),
        "cell_map": cell_map,
        "cell_shift": cell_shift,
        "cell_is_free": cell_is_free,
        "family": np.array(list(FREE_CELL).index(group.lattice_type)),
    }


def _moments(family: str, cells: Sequence[tuple[float, ...]]) -> list[list[float]]:
    """Return means and standard deviations of the six numbers of a family's cells."""
    means, spreads = np.zeros(6), np.zeros(6)
    free = list(FREE_CELL[family])
    if cells:
        means[free] = np.mean(cells, axis=0)
        spreads[free] = np.std(cells, axis=0)
    spreads[free] = np.maximum(spreads[free], 0.02)
    return [means.tolist(), spreads.tolist()]


def _cell_map(family: str) -> tuple[Array, Array, Array]:
    """Return how the free numbers of a family make all six: matrix, shift, which are free."""
    free = np.zeros(6, np.float32)
    free[list(FREE_CELL[family])] = 1.0
    matrix, shift = np.diag(free), np.zeros(6, np.float32)
    if family == "cubic":
        matrix[1, 0] = matrix[2, 0] = 1.0
    elif family in ("tetragonal", "trigonal", "hexagonal"):
        matrix[1, 0] = 1.0
    if family in ("trigonal", "hexagonal"):
        shift[5] = 1.0  # 120°
    return matrix.astype(np.float32), shift, free


def _volumes(symbol: str) -> tuple[float, float]:
    """Return the volume of an atom in salts and in alloys (Å^3)."""
    if symbol in ANIONS:
        return estimated_volume({symbol: 1}), estimated_volume({symbol: 1})
    salt = estimated_volume({symbol: 1, "O": 1}) - estimated_volume({"O": 1})
    return salt, estimated_volume({symbol: 1})


def _real(batch: Batch, n_elements: int) -> Made:
    hot = nn.functional.one_hot(batch["element"], n_elements).float()
    return Made(hot * batch["real"][..., None], batch["free"], batch["cell"])
