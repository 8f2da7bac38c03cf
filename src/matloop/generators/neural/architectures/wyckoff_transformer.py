"""An autoregressive transformer that writes symmetric crystals: group, sites, cell, coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
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
from matloop.generators.neural.architectures.number_heads import MixtureHeads
from matloop.generators.neural.architectures.step_data import (
    LOSS_SCALE,
    SUPPORTS,
    content_row,
    filled,
    given_conditions,
    padded,
    statistics_of,
)
from matloop.generators.neural.architectures.transformer_architecture import (
    TransformerArchitecture,
)
from matloop.generators.neural.architectures.wyckoff_drafts import MOST_SITES
from matloop.generators.neural.architectures.wyckoff_network import (
    CELL,
    COORDINATE,
    GROUP,
    MOST_STEPS,
    SITE,
    WyckoffNetwork,
)
from matloop.generators.neural.representations.orbits import (
    FREE_CELL,
    LETTERS,
    SymmetricCrystal,
    free_axes,
    positions,
    symmetric,
)
from matloop.generators.wyckoff import space_group


@dataclass(frozen=True)
class WyckoffTransformer(TransformerArchitecture):
    """Write a crystal step by step: space group, sites, stop, cell, free coordinates.

    Only what symmetry leaves open is written, so every crystal has the symmetry it was begun with.
    A site is an element, in the order of electronegativity, and a Wyckoff position. Cell numbers
    and coordinates come after all sites are known; their densities are mixtures of normal and of
    von Mises distributions. A penalty is not pushed down but chooses: of several completions of the
    same sites the one with the lowest is kept.

    Attributes
    ----------
    components
        Components of each mixture density.
    noise
        Standard deviation of the noise on numbers that were already written, in training: a sample
        must go on from numbers that are not quite right.

    References
    ----------
    The decomposition is that of CrystalFormer (Cao et al., arXiv:2403.15734) and of Wyckoff
    transformers (Kazeev et al., ICML 2025); classifier-free guidance: Ho and Salimans, 2022.
    """

    supports: ClassVar[frozenset[Condition]] = SUPPORTS
    parts: ClassVar[tuple[str, ...]] = ("",)

    components: int = 8
    noise: float = 0.01

    def statistics(self, crystals: Sequence[TrainingCrystal]) -> Statistics:
        """Return elements, scales of the properties, table of positions, cells by formula units."""
        return statistics_of(crystals, self.properties)

    def encode(self, crystal: TrainingCrystal, statistics: Statistics) -> Row | None:
        """Return the steps that write a crystal."""
        written = symmetric(crystal.structure)
        known = set(statistics["elements"])
        if written is None or len(written.orbits) > MOST_SITES or not set(written.counts) <= known:
            return None
        row = steps_of(written, statistics["elements"])
        if len(row["kind"]) > MOST_STEPS:
            return None
        return {**row, **content_row(crystal, written.counts, statistics)}

    def collate(
        self, rows: Sequence[Row], statistics: Statistics, rng: np.random.Generator | None
    ) -> Batch:
        """Return padded steps; conditions are left out at random in training, in validation all."""
        del statistics
        steps = max(len(row["kind"]) for row in rows)
        batch: Batch = {"group": torch.tensor([int(row["group"]) for row in rows])}
        for name in ("kind", "element", "letter", "axis", "value"):
            batch[name] = torch.from_numpy(padded(rows, name, steps))
        batch["real"] = filled(rows, "kind", steps)
        counts = torch.from_numpy(np.stack([row["counts"] for row in rows]))
        total = counts.sum(1)
        kept, asked = given_conditions(rows, rng, self.drop_conditions)
        batch["fractions"] = counts / total[:, None] * kept[:, :1]
        batch["present"] = (counts > 0).float() * kept[:, 1:2]
        batch["atoms"] = (total * kept[:, 2]).long()
        batch["properties"] = asked
        return batch

    def build(self, statistics: Statistics) -> nn.Module:
        """Return the network with random weights."""
        numbers = MixtureHeads(self.width, self.components)
        return WyckoffNetwork(self.width, self.depth, self.heads, self.dropout, numbers, statistics)

    def loss(
        self, module: nn.Module, batch: Batch, part: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the negative log-likelihood per crystal (10 nats), and its parts."""
        del part
        assert isinstance(module, WyckoffNetwork)
        seen = dict(batch)
        if module.training and self.noise:
            drawn = torch.randn(
                batch["value"].shape, generator=generator, device=batch["value"].device
            )
            seen["value"] = batch["value"] + self.noise * drawn
        state = module(seen)
        density = step_log_density(module, state, batch)
        real, kind = batch["real"], batch["kind"]
        found = {}
        for name, wanted in (
            ("group", GROUP),
            ("sites", SITE),
            ("cell", CELL),
            ("xyz", COORDINATE),
        ):
            chosen = real & (kind == wanted)
            found[name] = -density[chosen].sum() / len(kind) / LOSS_SCALE
        return {"loss": torch.stack(list(found.values())).sum(), **found}

    def sample(
        self, module: nn.Module, statistics: Statistics, request: SampleRequest
    ) -> list[Structure]:
        """Return crystals that end within the allowed steps."""
        from matloop.generators.neural.architectures.wyckoff_decoding import decode

        assert isinstance(module, WyckoffNetwork)
        found = decode(module, statistics, request)
        return [structure for structure in found if structure is not None]


def steps_of(crystal: SymmetricCrystal, elements: list[str]) -> dict[str, np.ndarray]:
    """Return the steps that write a crystal, each an array of shape (steps,), and its group.

    Parameters
    ----------
    crystal
        The crystal.
    elements
        The vocabulary; its length stands for the stop.
    """
    family = space_group(crystal.space_group).lattice_type
    steps: list[tuple[int, int, int, int, float]] = [(GROUP, 0, 0, 0, 0.0)]
    sites = [(elements.index(one.element), LETTERS.index(one.letter)) for one in crystal.orbits]
    steps += [(SITE, element, letter, 0, 0.0) for element, letter in sites]
    steps.append((SITE, len(elements), 0, 0, 0.0))
    steps += [
        (CELL, 0, 0, axis, value)
        for axis, value in zip(FREE_CELL[family], crystal.cell, strict=True)
    ]
    by_letter = positions(crystal.space_group)
    for orbit, (element, letter) in zip(crystal.orbits, sites, strict=True):
        axes = free_axes(by_letter[orbit.letter])
        steps += [
            (COORDINATE, element, letter, axis, value)
            for axis, value in zip(axes, orbit.free, strict=True)
        ]
    kind, element_, letter_, axis_, value_ = zip(*steps, strict=True)
    return {
        "kind": np.array(kind, np.int64),
        "element": np.array(element_, np.int64),
        "letter": np.array(letter_, np.int64),
        "axis": np.array(axis_, np.int64),
        "value": np.array(value_, np.float32),
        "group": np.array(crystal.space_group, np.int64),
    }


def step_log_density(module: WyckoffNetwork, state: Tensor, batch: Batch) -> Tensor:
    """Return the log density of what each step holds, shape (m, steps); zero in the padding.

    Parameters
    ----------
    module
        The network.
    state
        What it returned for the batch.
    batch
        The steps.
    """
    real, kind, element = batch["real"], batch["kind"], batch["element"]
    density = torch.zeros(kind.shape, device=kind.device)
    groups = torch.log_softmax(module.to_group(state[:, 0]), -1)
    density[:, 0] = groups.gather(1, batch["group"][:, None])[:, 0]
    chosen = real & (kind == SITE)
    owner = chosen.nonzero()[:, 0]
    placed = element[chosen]
    which = torch.log_softmax(module.to_element(state[chosen]), -1)
    site = which.gather(1, placed[:, None])[:, 0]
    atoms = placed < module.n_elements
    letters = module.letter_logits(
        state[chosen][atoms], placed[atoms], batch["group"][owner[atoms]]
    )
    letter = torch.log_softmax(letters, -1).gather(1, batch["letter"][chosen][atoms][:, None])[:, 0]
    density[chosen] = site.index_add(0, atoms.nonzero()[:, 0], letter)
    for wanted in (CELL, COORDINATE):
        chosen = real & (kind == wanted)
        density[chosen] = module.numbers.log_density(
            state[chosen], batch["value"][chosen], periodic=wanted == COORDINATE
        )
    return density
