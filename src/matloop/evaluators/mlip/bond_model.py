"""Models that see a crystal as its bonds: neighbour lists, pieces, forces and stresses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from matloop.evaluators.mlip.bonds import Gatherer, forces_and_stresses, lonely_members
from matloop.evaluators.mlip.memory import Budget, predict_in_pieces
from matloop.evaluators.mlip.model import Floats, Integers, Member, Prediction
from matloop.evaluators.mlip.neighbours import Neighbours, find_neighbours, outdated

SKIN = 0.5
"""How far neighbour lists reach beyond the cutoffs (Å)."""


class BondModel(ABC):
    """A model in memory that needs neighbour lists.

    Parameters
    ----------
    device
        Where it computes.
    cutoff
        Longest bond (Å).
    short_cutoff
        Longest bond that forms angles (Å); minus infinity for none.
    budget
        How much is computed in one go, in messages: directed bonds and ordered angles.

    Attributes
    ----------
    device
        ``cpu`` or the name of the accelerator.
    budget
        As given.
    """

    def __init__(
        self, device: torch.device, cutoff: float, short_cutoff: float, budget: Budget
    ) -> None:
        self._device = device
        self.device = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self._cutoff, self._short_cutoff = cutoff, short_cutoff
        self.budget = budget
        self._gather = Gatherer()

    def predict(self, members: Sequence[Member]) -> Prediction:
        """Return energies, forces and stresses of all members, in pieces that fit the budget."""
        faults = self.refreshed(members)
        return predict_in_pieces(
            members, self.messages(members), faults, self.budget, self._compute
        )

    def refreshed(self, members: Sequence[Member]) -> dict[int, str]:
        """Renew the neighbour lists that need it; return what is wrong with members, by place."""
        return {place: fault for place, one in enumerate(members) if (fault := self._refresh(one))}

    def messages(self, members: Sequence[Member]) -> list[int]:
        """Return how many messages each member has, as its neighbour list stands."""
        return [_messages(member.scratch) for member in members]

    @abstractmethod
    def _compute(self, members: list[Member]) -> Prediction:
        """Predict one piece."""

    @abstractmethod
    def _explosion(self, messages: int, atoms: int) -> str:
        """Return what is wrong with a crystal of so many messages; empty if nothing is."""

    def _refresh(self, member: Member) -> str:
        if not (np.isfinite(member.positions).all() and np.isfinite(member.cell).all()):
            return "positions or cell are not finite"
        found = member.scratch
        if isinstance(found, Neighbours) and not outdated(found, member, self._cutoff, SKIN):
            return ""
        found = find_neighbours(member, self._cutoff, self._short_cutoff, SKIN)
        fault = self._explosion(_messages(found), len(member.numbers))
        member.scratch = None if fault else found
        return f"neighbour explosion: {fault}" if fault else ""

    def _prediction(
        self,
        members: list[Member],
        site_energies: Floats,
        first: Integers,
        second: Integers,
        owner: Integers,
        vectors: Floats,
        pulls: Floats,
    ) -> Prediction:
        """Return what atoms and bonds add up to; arguments as for `forces_and_stresses`."""
        owners = np.repeat(np.arange(len(members)), [len(member.numbers) for member in members])
        energies = np.bincount(owners, site_energies, len(members)).astype(np.float64)
        forces, stresses = forces_and_stresses(members, first, second, owner, vectors, pulls)
        fault = f"an atom has no neighbour within {self._cutoff:g} Å"
        lonely = lonely_members(members, first, second)
        return Prediction(energies, forces, stresses, dict.fromkeys(lonely, fault))

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)


def _messages(found: object) -> int:
    if not isinstance(found, Neighbours):
        return 0
    return 2 * (len(found.first) + len(found.left))
