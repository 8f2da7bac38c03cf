"""What a registered potential may offer besides energies: tuning, and features of crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop.documents.labelled import Frame
from matloop.documents.theory import LevelOfTheory


@dataclass(frozen=True)
class Tuning:
    """How a potential is tuned.

    Attributes
    ----------
    steps
        Optimiser steps.
    batch
        Crystals per step.
    rate
        Learning rate at the start; it falls to a hundredth along a half cosine.
    energy_weight, force_weight, stress_weight
        Weights of the Huber losses of energy (eV/atom), forces (eV/Å) and stress (eV/Å^3).
    layers
        Which parameters move: ``all``, or the ``readout`` alone.
    device
        ``cpu`` or ``cuda``.
    """

    steps: int = 200
    batch: int = 8
    rate: float = 1e-4
    energy_weight: float = 10.0
    force_weight: float = 1.0
    stress_weight: float = 10.0
    layers: Literal["all", "readout"] = "all"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1 or not self.rate > 0:
            raise ValueError("steps must not be negative, batch and rate must be positive")
        weights = (self.energy_weight, self.force_weight, self.stress_weight)
        if min(weights) < 0 or not sum(weights) > 0:
            raise ValueError("weights must not be negative, and one of them positive")


@dataclass(frozen=True)
class Predicted:
    """What a potential says of a crystal.

    Attributes
    ----------
    energy
        Total energy (eV); NaN where it cannot say.
    forces
        Forces (eV/Å), shape (n, 3).
    stress
        Cauchy stress (eV/Å^3), positive when the crystal wants to contract, shape (3, 3).
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]


@runtime_checkable
class Finetunable(Protocol):
    """A potential, registered as a model, that can be tuned on labelled crystals.

    Its weights travel as named arrays, so that a file of them executes no code when it is read.
    """

    def theory(self, weights: str = "") -> LevelOfTheory:
        """Return the level of theory of its energies, with other weights of a given hash."""
        ...

    def predict(
        self, structures: Sequence[Structure], weights: Mapping[str, NDArray[Any]] | None = None
    ) -> list[Predicted]:
        """Return what it says of crystals, with its own weights or with others."""
        ...

    def shifted(
        self, energies: Mapping[int, float], weights: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Return weights with an energy (eV) added per atom of each atomic number."""
        ...

    def tuned(
        self,
        labels: Sequence[Frame],
        settings: Tuning,
        seed: int,
        weights: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Return weights trained on labels, starting from its own or from others."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """A potential, registered as a model, whose latent features describe crystals."""

    def theory(self, weights: str = "") -> LevelOfTheory:
        """Return the level of theory of its energies, which names the model file by its hash."""
        ...

    def embed(self, structures: Sequence[Structure]) -> tuple[NDArray[np.float64], dict[int, str]]:
        """Return features, one row per crystal, NaN where there are none, and the reasons by row.

        They depend on the crystal alone, not on its cell, its orientation or the others.
        """
        ...
