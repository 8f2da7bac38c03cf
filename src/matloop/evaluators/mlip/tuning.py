"""Tune a network on labelled crystals: shift of element energies, and a compact training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop.documents.labelled import Frame
from matloop.errors import ConfigurationError
from matloop.evaluators.mlip.model import LoadedModel, Member
from matloop.evaluators.mlip.single_points import single_points
from matloop.potentials import Predicted, Tuning
from matloop.surrogates.potentials import read_card, read_weights

Weights = dict[str, NDArray[Any]]


@dataclass
class Output:
    """What a network says of a batch of m crystals with N atoms, open to differentiation.

    Attributes
    ----------
    energies
        Energies per atom (eV/atom), shape (m,).
    forces
        Forces (eV/Å), shape (N, 3).
    stresses
        Cauchy stresses (eV/Å^3), shape (m, 3, 3).
    """

    energies: torch.Tensor
    forces: torch.Tensor
    stresses: torch.Tensor


class Trainee(Protocol):
    """A network as the loop sees it."""

    network: torch.nn.Module

    def prepare(self, frame: Frame) -> Any:
        """Return a crystal's input, made once."""
        ...

    def output(self, inputs: Sequence[Any]) -> Output:
        """Return what the network says, with a graph for the loss."""
        ...

    def readout(self) -> Iterator[torch.nn.Parameter]:
        """Return the parameters of the last layers."""
        ...


def train(trainee: Trainee, frames: Sequence[Frame], settings: Tuning, seed: int) -> None:
    """Train a network in place.

    Adam with a learning rate along half a cosine, gradients clipped to norm 1, and Huber losses
    with a width of 0.01 in their units, so that single wild labels do not dominate. Crystals come
    in batches drawn without replacement, one epoch after another.

    Parameters
    ----------
    trainee
        The network.
    frames
        Labels.
    settings
        How.
    seed
        The only source of randomness.
    """
    device = torch.device(settings.device)
    trainee.network.to(device).train()
    for parameter in trainee.network.parameters():
        parameter.requires_grad_(settings.layers == "all")
    moving = list(trainee.network.parameters() if settings.layers == "all" else trainee.readout())
    for parameter in moving:
        parameter.requires_grad_(True)
    inputs = [trainee.prepare(frame) for frame in frames]
    optimizer = torch.optim.Adam(moving, lr=settings.rate)
    rng = np.random.default_rng(seed)
    order: list[int] = []
    for step in range(settings.steps):
        if not order:
            order = rng.permutation(len(frames)).tolist()
        batch, order = order[: settings.batch], order[settings.batch :]
        progress = step / max(settings.steps - 1, 1)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        optimizer.zero_grad()
        found = trainee.output([inputs[index] for index in batch])
        loss = _loss(found, [frames[index] for index in batch], settings)
        if not bool(torch.isfinite(loss)):
            continue  # a batch that blows up teaches nothing
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
    trainee.network.eval()


def tuned(
    trainee: Trainee, frames: Sequence[Frame], settings: Tuning, seed: int, references: str
) -> Weights:
    """Return weights trained on labels; the element energies stay as they are.

    Parameters
    ----------
    trainee, frames, settings, seed
        As for `train`.
    references
        Name of the element energies among the weights.
    """
    before = state(trainee.network)[references]
    train(trainee, frames, settings, seed)
    return {**state(trainee.network), references: before}


def _loss(found: Output, frames: Sequence[Frame], settings: Tuning) -> torch.Tensor:
    like: dict[str, Any] = {"dtype": found.energies.dtype, "device": found.energies.device}
    huber: Callable[..., torch.Tensor] = torch.nn.HuberLoss(delta=0.01)
    energies = torch.tensor([f.energy / len(f.structure) for f in frames], **like)
    forces = torch.tensor([force for f in frames for force in f.forces], **like)
    loss = settings.energy_weight * huber(found.energies, energies)
    loss = loss + settings.force_weight * huber(found.forces, forces)
    stressed = [index for index, frame in enumerate(frames) if frame.stress is not None]
    if stressed and settings.stress_weight:
        stresses = torch.tensor([frames[index].stress for index in stressed], **like)
        loss = loss + settings.stress_weight * huber(found.stresses[stressed], stresses)
    return loss


def state(network: torch.nn.Module) -> Weights:
    """Return the tensors of a network as named arrays."""
    return {
        name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()
    }


def restored(network: torch.nn.Module, weights: Mapping[str, NDArray[Any]] | None) -> None:
    """Put named arrays into a network.

    Raises
    ------
    ValueError
        If they are not those of such a network.
    """
    if weights is None:
        return
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the weights are of another network: {str(error)[:300]}") from None


def predicted(model: LoadedModel, structures: Sequence[Structure]) -> list[Predicted]:
    """Return what a model says of crystals; its energy is NaN where it cannot say.

    Parameters
    ----------
    model
        In memory.
    structures
        Ordered crystals.
    """
    members = [Member.from_structure(structure) for structure in structures]
    return [
        Predicted(math.nan if point.fault else point.energy, point.forces, point.stress)
        for point in single_points(model, members, batch_atoms=384)
    ]


def tuned_file(name: str, model: str) -> Path:
    """Return the path of a file of tuned weights.

    Parameters
    ----------
    name
        The path as given.
    model
        Registered name of the model they should be of.

    Raises
    ------
    ConfigurationError
        If it is not there, of another model, or holds a card without weights.
    """
    path = Path(name).expanduser()
    card = read_card(path)
    if card.model != model:
        raise ConfigurationError(f"{path} holds weights of {card.model}, not of {model}")
    if not read_weights(path):
        raise ConfigurationError(f"{path} holds a card without weights: {card.reason}")
    return path
