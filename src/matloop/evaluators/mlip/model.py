"""What a potential must offer: energies, forces and stresses of many crystals at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop import registry
from matloop.documents.base import Scalar
from matloop.documents.theory import LevelOfTheory

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass
class Member:
    """One crystal of a batch, as it stands now.

    Attributes
    ----------
    numbers
        Atomic numbers, shape (n,).
    positions
        Cartesian positions (Å), shape (n, 3).
    cell
        Lattice vectors as rows (Å), shape (3, 3).
    scratch
        What a model wants to keep from one prediction to the next, such as a neighbour list. It
        belongs to the model that wrote it.
    """

    numbers: Integers
    positions: Floats
    cell: Floats
    scratch: object | None = None

    @classmethod
    def from_structure(cls, structure: Structure) -> Member:
        """Return a crystal as plain arrays; raise ValueError if it is disordered."""
        if not structure.is_ordered:
            raise ValueError("the structure is disordered")
        return cls(
            np.array([site.specie.Z for site in structure], dtype=np.int64),
            np.array(structure.cart_coords, dtype=np.float64),
            np.array(structure.lattice.matrix, dtype=np.float64),
        )


@dataclass(frozen=True)
class Prediction:
    """Energies, forces and stresses of a batch of m crystals with N atoms in all.

    Attributes
    ----------
    energies
        Total energies (eV), shape (m,).
    forces
        Forces (eV/Å), shape (N, 3), atoms of the first member first.
    stresses
        Symmetric Cauchy stresses (eV/Å^3), positive when the crystal wants to contract, shape
        (m, 3, 3).
    faults
        Why a member could not be computed, by its place in the batch; its rows hold NaN.
    """

    energies: Floats
    forces: Floats
    stresses: Floats
    faults: Mapping[int, str] = field(default_factory=dict)


class LoadedModel(Protocol):
    """A model in memory, ready to predict.

    Attributes
    ----------
    theory
        Level of theory of its energies.
    elements
        Atomic numbers it knows.
    device
        ``cpu`` or the name of the accelerator.
    """

    @property
    def theory(self) -> LevelOfTheory: ...  # noqa: D102

    @property
    def elements(self) -> frozenset[int]: ...  # noqa: D102

    @property
    def device(self) -> str: ...  # noqa: D102

    def predict(self, members: Sequence[Member]) -> Prediction:
        """Return energies, forces and stresses; a member that cannot be computed harms no other.

        Raises
        ------
        MemoryError
            If the batch does not fit; the caller tries a smaller one.
        """
        ...


@runtime_checkable
class BatchedModel(Protocol):
    """A potential by its parameters: a frozen `MSONable` dataclass, registered as a model."""

    def load(self) -> LoadedModel:
        """Return the model in memory, the same object each time in one process."""
        ...


def load_model(name: str, parameters: Mapping[str, Scalar]) -> LoadedModel:
    """Return a registered model in memory, loaded once per process.

    Raises
    ------
    ConfigurationError
        If the name or a parameter is unknown.
    """
    return _load(name, json.dumps(dict(parameters), sort_keys=True))


@cache
def _load(name: str, parameters: str) -> LoadedModel:
    model: BatchedModel = registry.build("models", name, json.loads(parameters))
    return model.load()
