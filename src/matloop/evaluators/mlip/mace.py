"""MACE for many crystals at once, from any model file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monty.json import MSONable
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop.documents.labelled import Frame
from matloop.documents.theory import LevelOfTheory
from matloop.errors import ConfigurationError
from matloop.evaluators.mlip.bond_model import SKIN, BondModel
from matloop.evaluators.mlip.mace_file import read_model
from matloop.evaluators.mlip.memory import Budget, memory_errors
from matloop.evaluators.mlip.model import Floats, Integers, Member, Prediction
from matloop.evaluators.mlip.tuning import predicted, restored, state, tuned, tuned_file
from matloop.potentials import Predicted, Tuning
from matloop.surrogates.potentials import read_weights

ENERGIES = "atomic_energies_fn.atomic_energies"
"""Name of the element energies among the weights, shape (heads, elements) or (elements,)."""

LEAST_VOLUME = 2.0
"""Volume per atom (Å^3) around atoms that have collapsed onto each other; diamond has 5.7."""


@dataclass(frozen=True)
class MaceModel(MSONable):
    """MACE, an equivariant network of higher body order, from a file of yours.

    A ``.model`` file is a pickle. Only the file named here is ever opened, and what it may hold is
    limited to the classes MACE consists of; see `trusted`.

    Attributes
    ----------
    path
        Model file, as mace's training writes it or as its foundation models are published; absolute
        where a campaign runs on a cluster.
    device
        ``cpu``, or ``cuda`` with an optional index.
    dtype
        ``float32``, ``float64``, or ``file`` for the precision the weights were saved in.
    head
        Output head of a model with several; empty if it has one, or one called default.
    batch_edges
        Most edges computed in one go; 0 chooses for the device. Free memory, as measured, may allow
        fewer.
    weights
        File of a fine-tuned model, as `matloop finetune` and the learner ``mace_finetune`` write
        it: its weights take the place of those of the file at `path`. Empty for none.
    trusted
        Unpickle the file unchecked. For files that hold more than MACE's own classes: do it only if
        you would also run a program from the same source.

    References
    ----------
    Batatia et al., NeurIPS 2022, arXiv:2206.07697.
    """

    path: str
    device: str = "cpu"
    dtype: Literal["file", "float32", "float64"] = "file"
    head: str = ""
    batch_edges: int = 0
    weights: str = ""
    trusted: bool = False

    def load(self) -> LoadedMace:
        """Return the model in memory, the same object each time in one process.

        Raises
        ------
        ConfigurationError
            If the file is not there, is no MACE with energies, or lacks the head.
        """
        return _load(self)

    def theory(self, weights: str = "") -> LevelOfTheory:
        """Return the level of theory of its energies, with other weights of a given hash."""
        own = self.load().theory
        return _tuned_theory(own, weights) if weights else own

    def predict(
        self, structures: Sequence[Structure], weights: Mapping[str, NDArray[Any]] | None = None
    ) -> list[Predicted]:
        """Return what it says of crystals, with its own weights or with others."""
        model = self.load() if weights is None else LoadedMace(self, weights)
        return predicted(model, structures)

    def embed(self, structures: Sequence[Structure]) -> tuple[Floats, dict[int, str]]:
        """Return the mean of each crystal's invariant features, and why some have none."""
        from matloop.evaluators.mlip.mace_embedding import embed

        return embed(self.load(), structures)

    def shifted(
        self, energies: Mapping[int, float], weights: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Return weights with an energy (eV) added per atom of each atomic number."""
        arrays = state(self.load().network) if weights is None else dict(weights)
        return {**arrays, ENERGIES: self.load().with_offsets(arrays[ENERGIES], energies)}

    def tuned(
        self,
        labels: Sequence[Frame],
        settings: Tuning,
        seed: int,
        weights: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Return weights trained on labels, starting from its own or from others."""
        from matloop.evaluators.mlip.mace_tuning import MaceTrainee

        trainee = MaceTrainee(replace(self, device=settings.device), weights)
        return tuned(trainee, labels, settings, seed, ENERGIES)


class LoadedMace(BondModel):
    """MACE in memory.

    The network sees each bond as a vector of its own, so that one way back through it, without a
    graph of second order, gives forces and stress; geometry and sums are in double precision.

    Parameters
    ----------
    model
        Which file, and where.
    weights
        Other weights than its own.

    Attributes
    ----------
    network
        The network.
    dtype
        Precision of its weights.
    """

    network: Any
    dtype: torch.dtype

    def __init__(self, model: MaceModel, weights: Mapping[str, NDArray[Any]] | None = None) -> None:
        path = Path(model.path).expanduser()
        if not path.is_file():
            raise ConfigurationError(f"model mace: there is no file {path}; set its parameter path")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        network: Any = read_model(path, trusted=model.trusted)
        if not hasattr(network, "atomic_energies_fn") or not hasattr(network, "r_max"):
            raise ConfigurationError(
                f"model mace: {path} holds a {type(network).__name__}, which has no energies"
            )
        if hasattr(network, "joint_embedding"):
            raise ConfigurationError(
                f"model mace: {path} needs charges or spins, which crystals here do not have"
            )
        self._head, name = _head(network, model.head, path)
        if model.dtype != "file":
            network = network.to(getattr(torch, model.dtype))
        self.dtype = next(network.parameters()).dtype
        device = torch.device(model.device)
        self.network = network.to(device).eval().requires_grad_(False)
        default = 4_000 if device.type == "cpu" else 1_000_000
        budget = Budget(device, model.batch_edges or default)
        super().__init__(device, float(self.network.r_max), -math.inf, budget)
        numbers = self.network.atomic_numbers.cpu().numpy()
        self.elements = frozenset(numbers.tolist())
        self._place = np.full(int(numbers.max()) + 1, -1)
        self._place[numbers] = np.arange(len(numbers))
        self.theory = LevelOfTheory(
            kind="mlip",
            code="mace",
            version=version("mace-torch"),
            model=path.stem,
            model_sha256=sha256,
            settings={"head": name, "dtype": str(self.dtype).removeprefix("torch.")},
        )
        if weights is None and model.weights:
            file = tuned_file(model.weights, "mace")
            weights = read_weights(file)
            self.theory = _tuned_theory(self.theory, hashlib.sha256(file.read_bytes()).hexdigest())
        restored(self.network, weights)

    def _explosion(self, messages: int, atoms: int) -> str:
        each = messages // atoms
        if each * LEAST_VOLUME <= 4.0 / 3.0 * math.pi * (self._cutoff + SKIN) ** 3:
            return ""
        return f"{each} edges per atom"

    def bonds(self, members: list[Member]) -> tuple[Integers, Integers, Integers, Floats]:
        """Return first atom, second atom, crystal and vector (Å) of each bond, each bond once."""
        candidates = self._gather(members)
        vectors = candidates.vectors(members)
        bonded = np.einsum("ij,ij->i", vectors, vectors) < self._cutoff**2
        return (
            candidates.first[bonded],
            candidates.second[bonded],
            candidates.owner[bonded],
            vectors[bonded],
        )

    def with_offsets(self, energies: NDArray[Any], offsets: Mapping[int, float]) -> NDArray[Any]:
        """Return element energies with some (eV) added, by atomic number, in the head in use."""
        found = np.array(energies)
        for number, offset in offsets.items():
            found[..., self._head if found.ndim > 1 else slice(None), self._place[number]] += offset
        return found

    def _compute(self, members: list[Member]) -> Prediction:
        first, second, owner, vectors = self.bonds(members)
        edges = np.concatenate([vectors, -vectors])
        ends = np.stack([np.concatenate([first, second]), np.concatenate([second, first])])
        with memory_errors():
            energies, slopes = self._energies_and_slopes(members, ends, edges)
        pulls = slopes[: len(first)] - slopes[len(first) :]
        return self._prediction(members, energies, first, second, owner, vectors, pulls)

    def _energies_and_slopes(
        self, members: list[Member], ends: np.ndarray, edges: Floats
    ) -> tuple[Floats, Floats]:
        """Return the energy of each atom (eV), and dE/d(vector) of each edge (eV/Å)."""
        vectors = self._tensor(edges).to(self.dtype).requires_grad_(True)
        data = self.data(members, ends, vectors)
        found = self.network(data, compute_force=False)
        slopes = np.zeros_like(edges)
        if len(edges):
            (gradient,) = torch.autograd.grad(found["energy"].sum(), vectors)
            slopes = gradient.cpu().numpy().astype(np.float64)
        energies = found["node_energy"].detach().cpu().numpy().astype(np.float64)
        return energies, slopes

    def data(
        self, members: list[Member], ends: np.ndarray, vectors: torch.Tensor
    ) -> dict[str, Any]:
        """Return the network's input: both directions of each bond, with the vectors as given."""
        counts = np.array([len(member.numbers) for member in members])
        owners = np.repeat(np.arange(len(members)), counts)
        places = self._tensor(self._place[np.concatenate([m.numbers for m in members])])
        return {
            # All atoms at one point, and each edge's vector as its shift.
            "positions": vectors.new_zeros((len(owners), 3)),
            "shifts": vectors,
            "unit_shifts": torch.zeros_like(vectors, requires_grad=False),
            "edge_index": self._tensor(ends),
            "node_attrs": torch.nn.functional.one_hot(places, len(self.elements)).to(self.dtype),
            "cell": self._tensor(np.concatenate([m.cell for m in members])).to(self.dtype),
            "batch": self._tensor(owners),
            "ptr": self._tensor(np.concatenate([[0], np.cumsum(counts)])),
            "head": torch.full((len(members),), self._head, device=self._device),
        }

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        """Return floating-point values on the device, in the precision of the weights."""
        return self._tensor(values).to(self.dtype)


def _tuned_theory(base: LevelOfTheory, sha256: str) -> LevelOfTheory:
    """Return the level of theory of a model whose weights were replaced."""
    settings = {**base.settings, "tuned_from": base.model_sha256}
    return base.model_copy(
        update={
            "model": f"{base.model.removesuffix('-tuned')}-tuned",
            "model_sha256": sha256,
            "settings": settings,
        }
    )


def _head(network: torch.nn.Module, wanted: str, path: Path) -> tuple[int, str]:
    """Return which output to read, and its name."""
    heads = [str(head) for head in getattr(network, "heads", None) or ["Default"]]
    if wanted:
        chosen = [head for head in heads if head == wanted]
    else:
        chosen = heads if len(heads) == 1 else [h for h in heads if h.lower() == "default"]
    if len(chosen) != 1:
        raise ConfigurationError(
            f"model mace: {path} has the heads {', '.join(heads)}; set the parameter head to one"
        )
    return heads.index(chosen[0]), chosen[0]


@cache
def _load(model: MaceModel) -> LoadedMace:
    return LoadedMace(model)
