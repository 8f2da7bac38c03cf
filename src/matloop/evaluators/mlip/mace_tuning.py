"""MACE as it is trained: the same bonds as for inference, with a graph for the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from matloop.documents.labelled import Frame
from matloop.evaluators.mlip.mace import LoadedMace, MaceModel
from matloop.evaluators.mlip.model import Member
from matloop.evaluators.mlip.tuning import Output


class MaceTrainee:
    """A MACE for the training loop.

    Parameters
    ----------
    model
        Which file, and which head.
    weights
        Other weights to begin with.
    """

    network: torch.nn.Module

    def __init__(self, model: MaceModel, weights: Mapping[str, NDArray[Any]] | None = None) -> None:
        self._loaded = LoadedMace(model, weights)
        self.network = self._loaded.network

    def prepare(self, frame: Frame) -> Member:
        """Return the crystal with its neighbour list."""
        member = Member.from_structure(frame.structure)
        for fault in self._loaded.refreshed([member]).values():
            raise ValueError(fault)
        return member

    def output(self, inputs: Sequence[Member]) -> Output:
        """Return energies, forces and stresses."""
        members = list(inputs)
        first, second, owner, bonds = self._loaded.bonds(members)
        like: dict[str, Any] = {
            "dtype": self._loaded.dtype,
            "device": next(self.network.parameters()).device,
        }
        vectors = torch.tensor(bonds, **like).requires_grad_(True)
        ends = np.stack([np.concatenate([first, second]), np.concatenate([second, first])])
        edges = torch.cat([vectors, -vectors])
        data = self._loaded.data(members, ends, edges)
        energies = self.network(data, compute_force=False)["energy"]
        (pulls,) = torch.autograd.grad(energies.sum(), vectors, create_graph=True)
        heads, tails, owners = (
            torch.from_numpy(index).to(like["device"]) for index in (first, second, owner)
        )
        counts = [len(member.numbers) for member in members]
        forces = torch.zeros((sum(counts), 3), **like)
        forces = forces.index_add(0, heads, pulls).index_add(0, tails, -pulls)
        virials = pulls[:, :, None] * vectors[:, None, :]
        virials = 0.5 * (virials + virials.transpose(1, 2))
        sums = torch.zeros((len(members), 3, 3), **like).index_add(0, owners, virials)
        volumes = [abs(float(np.linalg.det(member.cell))) for member in members]
        return Output(
            energies / torch.tensor(counts, **like),
            forces,
            sums / torch.tensor(volumes, **like)[:, None, None],
        )

    def readout(self) -> Iterator[torch.nn.Parameter]:
        """Return the parameters of the last layers."""
        for name, parameter in self.network.named_parameters():
            if name.startswith("readouts."):
                yield parameter
