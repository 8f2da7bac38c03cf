"""CHGNet for many crystals at once, for inference alone: the numbers of chgnet, faster."""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monty.json import MSONable
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop.documents.labelled import Frame
from matloop.documents.theory import LevelOfTheory
from matloop.evaluators.mlip.bond_model import BondModel
from matloop.evaluators.mlip.chgnet_graph import Graph, cut
from matloop.evaluators.mlip.chgnet_network import Network
from matloop.evaluators.mlip.memory import Budget, memory_errors
from matloop.evaluators.mlip.model import Floats, Member, Prediction
from matloop.evaluators.mlip.tuning import predicted, tuned, tuned_file
from matloop.potentials import Predicted, Tuning
from matloop.surrogates.potentials import read_weights

MAX_MESSAGES = 2000
"""Most messages (directed bonds and ordered angles, skin included) per atom.

Real crystals have 100 to 1,500; beyond, atoms have collapsed onto each other.
"""

_WEIGHTS = {"0.3.0": "0.3.0/chgnet_0.3.0_", "r2scan": "r2scan/chgnet_r2scan_"}
_FUNCTIONALS = {"0.3.0": "PBE/PBE+U with MP2020 corrections", "r2scan": "r2SCAN"}


@dataclass(frozen=True)
class ChgnetModel(MSONable):
    """CHGNet, a universal graph network trained on the Materials Project.

    Attributes
    ----------
    version
        ``0.3.0``, trained on PBE and PBE+U with corrections, or ``r2scan``.
    device
        ``cpu``, or ``cuda`` with an optional index.
    batch_messages
        Most messages computed in one go; 0 chooses for the device: few enough for a processor's
        caches, or as many as fill an accelerator. Free memory, as measured, may allow fewer.
    weights
        File of a fine-tuned model, as `matloop finetune` and the learner ``chgnet_finetune`` write
        it; empty for the weights that chgnet carries. Its level of theory is its own.

    References
    ----------
    Deng et al., Nature Machine Intelligence 5, 1031 (2023).
    """

    version: Literal["0.3.0", "r2scan"] = "0.3.0"
    device: str = "cpu"
    batch_messages: int = 0
    weights: str = ""

    def load(self) -> LoadedChgnet:
        """Return the model in memory, the same object each time in one process."""
        return _load(self)

    def theory(self, weights: str = "") -> LevelOfTheory:
        """Return the level of theory of its energies, with other weights of a given hash."""
        if not weights and self.weights:
            weights = hashlib.sha256(tuned_file(self.weights, "chgnet").read_bytes()).hexdigest()
        own = hashlib.sha256(weights_path(self.version).read_bytes()).hexdigest()
        return LevelOfTheory(
            kind="mlip",
            code="chgnet",
            version=version("chgnet"),
            model=f"chgnet-{self.version}{'-tuned' if weights else ''}",
            model_sha256=weights or own,
            settings={"trained_on": _FUNCTIONALS[self.version]},
        )

    def predict(
        self, structures: Sequence[Structure], weights: Mapping[str, NDArray[Any]] | None = None
    ) -> list[Predicted]:
        """Return what it says of crystals, with its own weights or with others."""
        model = self.load() if weights is None else LoadedChgnet(self, weights)
        return predicted(model, structures)

    def shifted(
        self, energies: Mapping[int, float], weights: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Return weights with an energy (eV) added per atom of each atomic number."""
        from matloop.evaluators.mlip.chgnet_tuning import shift

        return shift(self._arrays(weights), energies)

    def tuned(
        self,
        labels: Sequence[Frame],
        settings: Tuning,
        seed: int,
        weights: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Return weights trained on labels, starting from its own or from others."""
        from matloop.evaluators.mlip.chgnet_tuning import REFERENCES, ChgnetTrainee

        trainee = ChgnetTrainee(self.version, self._arrays(weights))
        return tuned(trainee, labels, settings, seed, REFERENCES)

    def _arrays(self, weights: Mapping[str, NDArray[Any]] | None) -> dict[str, NDArray[Any]]:
        if weights is not None:
            return dict(weights)
        if self.weights:
            return read_weights(tuned_file(self.weights, "chgnet"))
        path = weights_path(self.version)
        state = torch.load(path, map_location="cpu", weights_only=False)["model"]["state_dict"]
        return {name: tensor.numpy() for name, tensor in state.items()}


class LoadedChgnet(BondModel):
    """CHGNet in memory.

    Parameters
    ----------
    model
        Which one, and where.
    weights
        Other weights than its own.
    """

    def __init__(
        self, model: ChgnetModel, weights: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        self.theory = model.theory()
        device = torch.device(model.device)
        path = weights_path(model.version)
        state = torch.load(path, map_location="cpu", weights_only=False)["model"]
        arguments, tensors = state["model_args"], state["state_dict"]
        if weights is None and model.weights:
            weights = read_weights(tuned_file(model.weights, "chgnet"))
        if weights is not None:
            tensors = {name: torch.from_numpy(np.array(weights[name])) for name in tensors}
        cutoff, short_cutoff = arguments["atom_graph_cutoff"], arguments["bond_graph_cutoff"]
        default = 30_000 if device.type == "cpu" else 4_000_000
        budget = Budget(device, model.batch_messages or default)
        super().__init__(device, float(cutoff), float(short_cutoff), budget)
        self._network = Network(
            tensors, self._cutoff, self._short_cutoff, arguments["cutoff_coeff"], device
        )
        self._references = tensors["composition_model.fc.weight"][0].double().numpy()
        self.elements = frozenset(range(1, len(self._references) + 1))

    def _explosion(self, messages: int, atoms: int) -> str:
        if messages <= MAX_MESSAGES * atoms:
            return ""
        return f"{messages // atoms} bonds and angles per atom"

    def _compute(self, members: list[Member]) -> Prediction:
        graph = cut(self._gather(members), members, self._cutoff, self._short_cutoff, self._device)
        with memory_errors():
            energies, pulls = self._energies_and_pulls(members, graph)
        energies += self._references[np.concatenate([m.numbers for m in members]) - 1]
        return self._prediction(
            members, energies, graph.first, graph.second, graph.owner, graph.vectors, pulls
        )

    def _energies_and_pulls(self, members: list[Member], graph: Graph) -> tuple[Floats, Floats]:
        """Return the energy of each atom (eV), and dE/d(bond vector) of each bond (eV/Å)."""
        with np.errstate(divide="ignore", invalid="ignore"):  # coinciding atoms give NaN
            directions = graph.vectors / graph.lengths[:, None]
        short = graph.short
        ways = np.concatenate([directions[:short], -directions[:short]])
        left, right = ways[graph.left], ways[graph.right]
        cosines = np.einsum("ij,ij->i", left, right)
        damped = cosines * (1.0 - 1e-6)  # as CHGNet keeps the arc cosine differentiable
        found = self._network(
            self._tensor(np.concatenate([member.numbers for member in members])),
            graph,
            self._tensor(graph.lengths.astype(np.float32)),
            self._tensor(np.arccos(damped).astype(np.float32)),
        )
        pulls = found.lengths.cpu().numpy().astype(np.float64)[:, None] * directions
        if len(cosines):
            slopes = found.angles.cpu().numpy() * (-(1.0 - 1e-6)) / np.sqrt(1.0 - damped * damped)
            lengths = np.concatenate([graph.lengths[:short]] * 2)
            on_left = (slopes / lengths[graph.left])[:, None] * (right - cosines[:, None] * left)
            on_right = (slopes / lengths[graph.right])[:, None] * (left - cosines[:, None] * right)
            ends = np.concatenate([graph.left, graph.right])
            for axis in range(3):
                along = np.concatenate([on_left[:, axis], on_right[:, axis]])
                total = np.bincount(ends, along, 2 * short)
                pulls[:short, axis] += total[:short] - total[short:]
        return found.site_energies.cpu().numpy().astype(np.float64), pulls


def weights_path(name: str) -> Path:
    """Return the weights file that chgnet's own package carries."""
    stem = f"chgnet/pretrained/{_WEIGHTS[name]}"
    for file in distribution("chgnet").files or ():
        if str(file).startswith(stem):
            return Path(str(file.locate()))
    raise FileNotFoundError(f"chgnet is installed without its weights {name}")


def _keep_freed_memory() -> None:
    """Ask the allocator not to return memory to the system between predictions.

    A prediction frees and allocates the same arrays again and again; glibc would give the large
    ones back each time, and faulting their pages in again took a fifth of the time.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # not glibc
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)
    mallopt(mmap_threshold, 2**30)


@cache
def _load(model: ChgnetModel) -> LoadedChgnet:
    if torch.device(model.device).type == "cpu":
        _keep_freed_memory()
    return LoadedChgnet(model)
