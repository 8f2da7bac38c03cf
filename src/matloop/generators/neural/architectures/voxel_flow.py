"""Flow matching over voxels: element densities on a periodic grid, decoded by their peaks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from monty.json import MSONable
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
from matloop.generators.neural.architectures.voxel_network import MOST_OF_ONE, VoxelNetwork
from matloop.generators.neural.data_statistics import elements_of, formula_units
from matloop.generators.neural.representations.orbits import element_order
from matloop.generators.neural.representations.voxels import density, resolves
from matloop.generators.volumes import estimated_volume

HEIGHT = 5.0
"""Height of an atom's peak in the flow, in standard deviations of the noise it starts from."""


@dataclass(frozen=True)
class VoxelFlow(MSONable):
    """Draw a composition, then a cell, then let element densities on a grid flow out of noise.

    Each element has a channel, in the order of electronegativity. A U-Net of periodic convolutions
    carries noise into Gaussians around the atoms; random translations stand for the free origin.
    The composition says how many peaks of each channel are atoms; where the crystal is nearly
    symmetric it is put on the symmetry. Convolutions see the grid, not the cell: distances are
    learned from the cell's numbers and hold only roughly.

    Attributes
    ----------
    points
        Grid points along each axis; a multiple of 4. Crystals in which two atoms of one element
        are not 2 points apart are left out.
    slots
        Most elements in a crystal.
    widths
        Channels of the U-Net at each of its scales, multiples of 8.
    context
        Width of the embedding of composition and cell; even.
    steps
        Steps from noise to density.
    share
        Share of each batch, in training, whose densities are learned: they cost nearly all the
        time, and compositions need more examples.
    guess_weight
        Weight of the densities against the likelihood of composition and cell in the loss.

    References
    ----------
    Flow matching: Lipman et al., ICLR 2023. Crystals as voxels: Noh et al., Matter 1, 1370 (2019);
    Court et al., J. Chem. Inf. Model. 60, 4518 (2020).
    """

    supports: ClassVar[frozenset[Condition]] = frozenset(
        {"elements", "system", "formula", "n_atoms", "charge_balance"}
    )
    parts: ClassVar[tuple[str, ...]] = ("",)

    points: int = 12
    slots: int = 5
    widths: list[int] = field(default_factory=lambda: [16, 32, 64])
    context: int = 128
    steps: int = 24
    share: float = 0.25
    guess_weight: float = 20.0

    def __post_init__(self) -> None:
        """Refuse grids and widths that cannot be halved or grouped."""
        scales = 2 ** (len(self.widths) - 1)
        if self.points % scales or self.points < 2 * scales:
            raise ValueError(f"points {self.points} must be a multiple of {scales}")
        if not self.widths or any(width % 8 for width in self.widths):
            raise ValueError("widths must be multiples of 8")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], not {self.share:g}")
        if self.context % 2 or self.steps < 1 or self.slots < 1:
            raise ValueError("context must be even; steps and slots at least 1")

    def statistics(self, crystals: Sequence[TrainingCrystal]) -> Statistics:
        """Return the elements, and how often cells of each size hold how many formula units."""
        return {
            "elements": element_order(elements_of(crystals)),
            "formula_units": formula_units(crystals),
        }

    def encode(self, crystal: TrainingCrystal, statistics: Statistics) -> Row | None:
        """Return composition, cell and places; None where the grid cannot tell the atoms apart."""
        structure, known = crystal.structure, statistics["elements"]
        counts = Counter(site.specie.symbol for site in structure)
        if len(counts) > self.slots or not set(counts) <= set(known):
            return None
        order = element_order(sorted(counts))
        channel = np.array([order.index(site.specie.symbol) for site in structure], np.int64)
        frac = np.array(structure.frac_coords, dtype=float)
        if max(counts.values()) > MOST_OF_ONE or not resolves(frac, channel, self.points):
            return None
        elements = np.full(self.slots, len(known), np.int64)
        numbers = np.zeros(self.slots, np.int64)
        elements[: len(order)] = [known.index(name) for name in order]
        numbers[: len(order)] = [counts[name] for name in order]
        edge = estimated_volume(counts) ** (1 / 3)
        lattice = structure.lattice
        cell = [*np.log(np.array(lattice.abc) / edge), *((np.array(lattice.angles) - 90) / 30)]
        return {
            "elements": elements,
            "counts": numbers,
            "cell": np.array(cell, np.float32),
            "frac": frac,
            "channel": channel,
        }

    def collate(
        self, rows: Sequence[Row], statistics: Statistics, rng: np.random.Generator | None
    ) -> Batch:
        """Return densities; in training of a `share`, each moved by a random translation."""
        del statistics
        batch: Batch = {
            name: torch.from_numpy(np.stack([row[name] for row in rows]))
            for name in ("elements", "counts", "cell")
        }
        grown = np.arange(len(rows))
        if rng is not None:
            grown = rng.permutation(len(rows))[: math.ceil(self.share * len(rows))]
        grids = []
        for index in grown.tolist():
            row, shift = rows[index], np.zeros(3) if rng is None else rng.random(3)
            grids.append(density(row["frac"] + shift, row["channel"], self.slots, self.points))
        batch["grown"] = torch.from_numpy(grown)
        batch["density"] = HEIGHT * torch.from_numpy(np.stack(grids))
        return batch

    def build(self, statistics: Statistics) -> nn.Module:
        """Return the network with random weights."""
        return VoxelNetwork(
            len(statistics["elements"]), self.slots, list(self.widths), self.context
        )

    def loss(
        self, module: nn.Module, batch: Batch, part: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the negative log-likelihoods of composition and cell, and the densities' error.

        The error is that of the final densities guessed on the way, relative to guessing none.
        """
        del part
        assert isinstance(module, VoxelNetwork)
        final, device = batch["density"], batch["density"].device
        time = torch.rand(len(final), generator=generator, device=device)
        noise = torch.randn(final.shape, generator=generator, device=device)
        grown = batch["grown"]
        used = (batch["counts"][grown] > 0)[..., None, None, None]
        wide = time[:, None, None, None, None]
        noisy = ((1 - wide) * noise + wide * final) * used
        composition = module.composition(batch["elements"], batch["counts"])
        context = (composition + module.from_cell(batch["cell"]))[grown]
        error = ((module.flow(noisy, time, context) - final) ** 2 * used).flatten(1).sum(1)
        guess = (error / (final**2).flatten(1).sum(1).clamp_min(1e-6)).mean()
        contents = module.contents.loss(batch)
        cell = module.cell_shape.loss(composition, batch["cell"])
        total = contents + cell + self.guess_weight * guess
        return {"loss": total, "contents": contents, "cell": cell, "density": guess}

    def sample(
        self, module: nn.Module, statistics: Statistics, request: SampleRequest
    ) -> list[Structure]:
        """Return crystals; where too few peaks stand out, one is missing."""
        from matloop.generators.neural.architectures.voxel_sampling import grow

        assert isinstance(module, VoxelNetwork)
        return grow(self, module, statistics, request)
