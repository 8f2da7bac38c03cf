"""What a network must offer to be trained, stored, sampled and compared like all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure
from torch import Tensor, nn

Row = Mapping[str, NDArray[Any]]
"""One crystal as an architecture encodes it: arrays of any length, by name."""

Batch = dict[str, Tensor]
"""Rows put together, by name, the first axis over crystals."""

Statistics = dict[str, Any]
"""What an architecture takes from the training data besides the weights; JSON types only."""

Condition = Literal[
    "elements",
    "system",
    "formula",
    "space_group",
    "n_atoms",
    "properties",
    "charge_balance",
    "fixed",
    "penalty",
]
"""What can be asked of the crystals of a sample; `Conditions` and `SampleRequest` say more."""


@dataclass(frozen=True)
class TrainingCrystal:
    """A crystal to learn from.

    Attributes
    ----------
    structure
        Niggli-reduced primitive cell.
    properties
        What is known of it, in the units of the data, such as ``band_gap``.
    name
        Its name in the data.
    """

    structure: Structure
    properties: Mapping[str, float] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Conditions:
    """What every crystal of a sample must be.

    Attributes
    ----------
    elements
        The only elements that may occur; empty for all that the model knows.
    system
        Elements that must all occur, and no other; empty for no such condition.
    formula
        Atoms of each element in the reduced formula; empty for any. The number of formula units in
        the primitive cell is open.
    space_group
        International number; 0 for any.
    n_atoms
        Atoms in the primitive cell; 0 for any.
    min_atoms, max_atoms
        Fewest and most atoms in the primitive cell.
    properties
        Target value of each property the model was trained with.
    """

    elements: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    formula: Mapping[str, int] = field(default_factory=dict)
    space_group: int = 0
    n_atoms: int = 0
    min_atoms: int = 1
    max_atoms: int = 20
    properties: Mapping[str, float] = field(default_factory=dict)

    @property
    def required(self) -> frozenset[str]:
        """Elements that must occur."""
        return frozenset(self.formula or self.system)

    @property
    def allowed(self) -> frozenset[str]:
        """Elements that may occur; empty for all."""
        return self.required or frozenset(self.elements)


class Penalty(Protocol):
    """A differentiable penalty that is pushed down while a sample is drawn."""

    def __call__(self, numbers: Tensor, frac: Tensor, lattice: Tensor, owner: Tensor) -> Tensor:
        """Return one penalty per crystal, shape (m,), dimensionless.

        Parameters
        ----------
        numbers
            Atomic numbers of all atoms, shape (N,).
        frac
            Fractional coordinates, shape (N, 3).
        lattice
            Lattice vectors in rows (Å), shape (m, 3, 3).
        owner
            Crystal of each atom, shape (N,).
        """
        ...


@dataclass(frozen=True)
class SampleRequest:
    """What an architecture is asked for.

    Attributes
    ----------
    count
        Crystals to draw. Those that end in a dead end are left out of the answer.
    seed
        The only source of randomness.
    conditions
        What every crystal must be. An architecture is only given conditions it `supports`; the
        others are held after sampling, by rejection.
    temperature
        Below 1 the sample keeps to what is likely, above 1 it strays.
    guidance
        How much the conditions outweigh what is likely anyway: weight of classifier-free guidance
        (Ho and Salimans, 2022), 0 for the plain conditional model.
    charge_balance
        Only compositions that obey the SMACT rule with the oxidation states used before SMACT 3.
    fixed
        Sites and cell that stay as they are; the rest is filled in. None for whole crystals.
    penalty
        What is pushed down while the sample is drawn, with `penalty_scale`.
    penalty_scale
        Strength of the push.
    """

    count: int
    seed: int
    conditions: Conditions = field(default_factory=Conditions)
    temperature: float = 1.0
    guidance: float = 0.0
    charge_balance: bool = False
    fixed: Structure | None = None
    penalty: Penalty | None = None
    penalty_scale: float = 1.0


@runtime_checkable
class Architecture(Protocol):
    """A network by its hyperparameters: a frozen `MSONable` dataclass of JSON types.

    Attributes
    ----------
    supports
        Conditions it can hold while sampling.
    parts
        Names of the submodules that are trained in turns, each with an optimiser of its own, as in
        adversarial training; a name may stand there several times. ``("",)`` for the whole network
        at once.

    An optional class attribute ``betas`` holds the decays of Adam's two moments.
    """

    supports: ClassVar[frozenset[Condition]]
    parts: ClassVar[tuple[str, ...]]

    def statistics(self, crystals: Sequence[TrainingCrystal]) -> Statistics:
        """Return what the network takes from the training data: vocabulary, scales, histograms."""
        ...

    def encode(self, crystal: TrainingCrystal, statistics: Statistics) -> Row | None:
        """Return a crystal as arrays; None if it cannot be written in this representation."""
        ...

    def collate(
        self, rows: Sequence[Row], statistics: Statistics, rng: np.random.Generator | None
    ) -> Batch:
        """Return rows as one batch on the CPU, padded.

        Parameters
        ----------
        rows
            Encoded crystals.
        statistics
            Of the training data.
        rng
            Randomness of augmentation; None for none, as in validation.
        """
        ...

    def build(self, statistics: Statistics) -> nn.Module:
        """Return the network with random weights, drawn from torch's global generator."""
        ...

    def loss(
        self, module: nn.Module, batch: Batch, part: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the loss under ``loss``, and whatever else is worth watching, as scalars.

        Parameters
        ----------
        module
            The network, in training or evaluation mode.
        batch
            On the network's device.
        part
            Which of `parts` is trained.
        generator
            Randomness of noise and times, on the network's device.
        """
        ...

    def sample(
        self, module: nn.Module, statistics: Statistics, request: SampleRequest
    ) -> list[Structure]:
        """Return at most `request.count` crystals; the same request gives the same ones."""
        ...
