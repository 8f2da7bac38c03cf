"""What architectures on coordinates share: representation, network, conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from matloop.generators.neural.architecture import (
    Batch,
    Condition,
    Row,
    Statistics,
    TrainingCrystal,
)
from matloop.generators.neural.architectures.periodic_network import PeriodicNetwork
from matloop.generators.neural.architectures.transformer_architecture import (
    TransformerArchitecture,
)
from matloop.generators.neural.representations import coordinates


@dataclass(frozen=True)
class CoordinateArchitecture(TransformerArchitecture):
    """A `PeriodicNetwork` over the atoms of a crystal, and the data it learns from.

    Attributes
    ----------
    given_species
        Share of the training in which all elements are given.
    lead
        Elements are all known at time 1 / lead.
    steps
        Steps from noise to crystal.
    symmetrize
        Tolerance (Å) with which a finished crystal is moved onto the symmetry it nearly has; 0
        leaves it as it is.
    """

    supports: ClassVar[frozenset[Condition]] = frozenset(
        {
            "elements",
            "system",
            "formula",
            "space_group",
            "n_atoms",
            "properties",
            "fixed",
            "penalty",
        }
    )
    parts: ClassVar[tuple[str, ...]] = ("",)

    width: int = 128
    heads: int = 8
    dropout: float = 0.0
    given_species: float = 0.2
    lead: float = 2.0
    steps: int = 100
    symmetrize: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lead < 1 or self.steps < 1:
            raise ValueError("lead and steps must be at least 1")

    def statistics(self, crystals: Sequence[TrainingCrystal]) -> Statistics:
        """Return vocabulary, scales of cell and properties, histograms of sizes."""
        return coordinates.statistics_of(crystals, self.properties)

    def encode(self, crystal: TrainingCrystal, statistics: Statistics) -> Row | None:
        """Return elements, fractional coordinates, cell numbers and conditions of a crystal."""
        return coordinates.encode(crystal, statistics)

    def collate(
        self, rows: Sequence[Row], statistics: Statistics, rng: np.random.Generator | None
    ) -> Batch:
        """Return padded arrays; translated, inverted, and with conditions left out, in training."""
        return coordinates.collate(rows, statistics, rng, self.drop_conditions)

    def build(self, statistics: Statistics) -> nn.Module:
        """Return the network with random weights."""
        return PeriodicNetwork(self.width, self.depth, self.heads, self.dropout, statistics)
