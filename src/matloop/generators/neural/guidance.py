"""Penalties pushed down while a crystal is drawn: distances, volume, properties, energy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from ase.data import atomic_masses, covalent_radii
from monty.json import MSONable
from numpy.typing import NDArray
from torch import Tensor

from matloop import registry
from matloop.errors import ConfigurationError
from matloop.generators.neural.architecture import Penalty

_GRAMS = 1.66053906660  # g/cm³ in one dalton/Å³


@dataclass(frozen=True)
class MinimumDistance(MSONable):
    """Atoms that sit closer than a fraction of their bond length push each other away.

    The penalty of a pair is the square of what is missing, as a share of the distance allowed;
    pairs and the nearest periodic images are summed over.

    Attributes
    ----------
    scale
        Fraction of the sum of two covalent radii (Cordero et al., Dalton Trans. 2008) below which
        a pair is penalised.
    weight
        Penalty of two atoms on the same place.
    """

    scale: float = 0.8
    weight: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 2:
            raise ConfigurationError(f"MinimumDistance: scale {self.scale} must lie in (0, 2]")

    def __call__(self, numbers: Tensor, frac: Tensor, lattice: Tensor, owner: Tensor) -> Tensor:
        """Return one penalty per crystal, shape (m,)."""
        first, second = (owner[:, None] == owner[None]).nonzero().unbind(1)
        limits = self.scale * (_radii(frac)[numbers[first]] + _radii(frac)[numbers[second]])
        apart = frac[second] - frac[first]
        steps = torch.tensor([-1.0, 0.0, 1.0], device=frac.device, dtype=frac.dtype)
        images = torch.cartesian_prod(steps, steps, steps)
        apart = (apart - apart.detach().round())[:, None] + images
        squares = torch.einsum("pkx,pxy->pky", apart, lattice[owner[first]]).square().sum(-1)
        itself = (first == second)[:, None] & (images == 0).all(1)
        squares = torch.where(itself, 1e6, squares)
        missing = (1 - torch.sqrt(squares + 1e-8) / limits[:, None]).clamp(min=0)
        per_pair = self.weight * missing.square().sum(1) / 2
        return torch.zeros(len(lattice), device=frac.device, dtype=frac.dtype).index_add(
            0, owner[first], per_pair
        )


@dataclass(frozen=True)
class Volume(MSONable):
    """Pull the volume per atom towards a target.

    Attributes
    ----------
    target
        Volume per atom (Å^3).
    weight
        Penalty at a factor e from the target.
    """

    target: float
    weight: float = 10.0

    def __call__(self, numbers: Tensor, frac: Tensor, lattice: Tensor, owner: Tensor) -> Tensor:
        """Return one penalty per crystal, shape (m,)."""
        count = torch.bincount(owner, minlength=len(lattice))
        volume = torch.linalg.det(lattice).abs() / count
        return self.weight * torch.log(volume / self.target).square()


@dataclass(frozen=True)
class Density(MSONable):
    """Pull the mass density towards a target.

    Attributes
    ----------
    target
        Density (g/cm^3).
    weight
        Penalty at a factor e from the target.
    """

    target: float
    weight: float = 10.0

    def __call__(self, numbers: Tensor, frac: Tensor, lattice: Tensor, owner: Tensor) -> Tensor:
        """Return one penalty per crystal, shape (m,)."""
        masses = torch.tensor(atomic_masses, device=frac.device, dtype=frac.dtype)[numbers]
        total = torch.zeros(len(lattice), device=frac.device, dtype=frac.dtype)
        total = total.index_add(0, owner, masses)
        density = _GRAMS * total / torch.linalg.det(lattice).abs()
        return self.weight * torch.log(density / self.target).square()


@dataclass(frozen=True)
class PropertyTarget:
    """Pull what a differentiable surrogate predicts towards a target.

    Attributes
    ----------
    surrogate
        Takes the arguments of a `Penalty` and returns one value per crystal, shape (m,).
    target
        Value wanted, in the surrogate's units.
    scale
        Deviation whose penalty is one, in the same units.
    """

    surrogate: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    target: float
    scale: float = 1.0

    def __call__(self, numbers: Tensor, frac: Tensor, lattice: Tensor, owner: Tensor) -> Tensor:
        """Return one penalty per crystal, shape (m,)."""
        value = self.surrogate(numbers, frac, lattice, owner)
        return ((value - self.target) / self.scale).square()


@dataclass(frozen=True)
class PotentialEnergy(MSONable):
    """Let the forces and the stress of a registered potential move atoms and cell.

    The potential's own forces and stresses are the gradient, so any model registered under
    ``matloop.models`` will do, differentiable or not. A crystal it cannot compute is not moved.

    Attributes
    ----------
    model
        Name of the potential.
    parameters
        Its parameters.
    weight
        Penalty of one eV.
    """

    model: str = "chgnet"
    parameters: dict[str, Any] = field(default_factory=dict)
    weight: float = 0.1

    def __call__(self, numbers: Tensor, frac: Tensor, lattice: Tensor, owner: Tensor) -> Tensor:
        """Return the energy times the weight, shape (m,)."""
        loaded = registry.build("models", self.model, self.parameters).load()
        energy: Tensor = _Energy.apply(frac, lattice, numbers, owner, loaded)  # type: ignore[no-untyped-call]
        return self.weight * energy


@dataclass(frozen=True)
class Together(MSONable):
    """Add several penalties.

    Attributes
    ----------
    penalties
        What is added.
    """

    penalties: Sequence[Penalty]

    def __call__(self, numbers: Tensor, frac: Tensor, lattice: Tensor, owner: Tensor) -> Tensor:
        """Return the sum of the penalties of each crystal, shape (m,)."""
        found = [penalty(numbers, frac, lattice, owner) for penalty in self.penalties]
        return torch.stack(found).sum(0)


NAMED: Mapping[str, Callable[[float], Penalty]] = {
    "minimum_distance": MinimumDistance,
    "volume": Volume,
    "density": Density,
}
"""Penalties of one number, by the name that campaign files and the command line use."""


def named_penalty(numbers: Mapping[str, float], potential: str = "") -> Penalty | None:
    """Return the sum of penalties by name; None for none.

    Parameters
    ----------
    numbers
        The number of each of `NAMED`: ``minimum_distance`` in sums of covalent radii, ``volume``
        per atom in Å^3, ``density`` in g/cm^3.
    potential
        Potential whose energy is added; empty for none.

    Raises
    ------
    ConfigurationError
        If a name is unknown or a number is not positive.
    """
    found: list[Penalty] = []
    for name, value in numbers.items():
        if name not in NAMED:
            raise ConfigurationError(f"no penalty is called {name!r}; there are {', '.join(NAMED)}")
        if not value > 0:
            raise ConfigurationError(f"penalty {name}: {value} must be positive")
        found.append(NAMED[name](value))
    if potential:
        found.append(PotentialEnergy(potential))
    return found[0] if len(found) == 1 else Together(found) if found else None


@dataclass
class _Member:
    # What a registered potential reads of a crystal; the potentials live in a room beside this one.
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    scratch: object | None = None


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, frac: Tensor, lattice: Tensor, numbers: Tensor, owner: Tensor, loaded: Any
    ) -> Tensor:
        members = []
        for index, matrix in enumerate(lattice.detach().double().cpu().numpy()):
            chosen = owner == index
            places = frac[chosen].detach().double().cpu().numpy()
            members.append(_Member(numbers[chosen].cpu().numpy(), places @ matrix, matrix))
        found = loaded.predict(members)

        def tensor(array: NDArray[np.float64]) -> Tensor:
            return torch.from_numpy(np.nan_to_num(array)).to(frac)

        ctx.save_for_backward(lattice, owner, tensor(found.forces), tensor(found.stresses))
        return tensor(found.energies)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        lattice, owner, forces, stresses = ctx.saved_tensors
        slope = slopes[0]
        moved = torch.einsum("nx,nyx->ny", -forces, lattice[owner]) * slope[owner][:, None]
        volume = torch.linalg.det(lattice).abs()[:, None, None]
        strained = torch.linalg.inv(lattice).transpose(1, 2) @ stresses * volume
        return moved, strained * slope[:, None, None], None, None, None


@cache
def _covalent() -> Tensor:
    return torch.tensor(covalent_radii)


def _radii(like: Tensor) -> Tensor:
    return _covalent().to(like)
