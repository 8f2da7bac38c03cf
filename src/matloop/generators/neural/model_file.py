"""A trained model as one file: weights as safetensors, with the model card in the header."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from matloop import registry
from matloop.atomic import whole_file
from matloop.documents.base import Document
from matloop.errors import ConfigurationError
from matloop.generators.neural.architecture import Architecture, Statistics

_CARD = "matloop_model_card"
_FORMAT = 1


class Metric(Document):
    """A measured number with what it was measured on.

    Attributes
    ----------
    value
        The number.
    denominator
        Crystals it was measured on.
    """

    value: float
    denominator: int


class ModelCard(Document):
    """What a model is, what it was trained on, and how good it is.

    Attributes
    ----------
    architecture
        Name under which it is registered.
    parameters
        Its hyperparameters.
    statistics
        What it took from the training data.
    data, data_sha256
        Files it was trained on, and their hash.
    licence
        Licence of the data, and whom to name.
    n_train, n_validation
        Crystals it was trained and validated on.
    left_out
        Crystals of the data that were not used, by reason.
    properties
        Properties it can be asked for.
    seed, epochs, steps, seconds, device
        How it was trained, and for how long.
    n_parameters
        Number of weights.
    metrics
        What was measured, each with its denominator.
    history
        Losses by epoch: ``epoch``, ``train``, ``validation``.
    versions
        Versions of matloop and torch.
    """

    format: int = _FORMAT
    architecture: str
    parameters: dict[str, Any]
    statistics: dict[str, Any] = Field(repr=False)
    data: str = ""
    data_sha256: str = ""
    licence: str = ""
    n_train: int = 0
    n_validation: int = 0
    left_out: dict[str, int] = Field(default_factory=dict)
    properties: tuple[str, ...] = ()
    seed: int = 0
    epochs: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    device: str = "cpu"
    n_parameters: int = 0
    metrics: dict[str, Metric] = Field(default_factory=dict)
    history: list[dict[str, float]] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class TrainedModel:
    """A model in memory, ready to be sampled.

    Attributes
    ----------
    card
        What it is.
    architecture
        Its hyperparameters.
    module
        The network with its weights, in evaluation mode.
    sha256
        Hash of its file.
    """

    card: ModelCard
    architecture: Architecture
    module: nn.Module
    sha256: str

    @property
    def statistics(self) -> Statistics:
        """What the model took from its training data."""
        return self.card.statistics


def write_model(path: Path, card: ModelCard, module: nn.Module) -> None:
    """Write a model file, whole or not at all.

    Parameters
    ----------
    path
        The file.
    card
        What the model is.
    module
        The network; its weights are stored as they are.
    """
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()
    }
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata={_CARD: card.model_dump_json()})


def read_card(path: Path) -> ModelCard:
    """Return the card of a model file.

    Raises
    ------
    ConfigurationError
        If the file is missing, or no model of this version.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path} does not exist; give a model that `matloop train` wrote")
    try:
        with safe_open(path, framework="pt") as content:
            text = (content.metadata() or {})[_CARD]
        card = ModelCard.model_validate_json(text)
    except (SafetensorError, KeyError, ValidationError, json.JSONDecodeError, OSError) as error:
        raise ConfigurationError(
            f"{path} is no model that `matloop train` wrote ({type(error).__name__})"
        ) from None
    if card.format != _FORMAT:
        raise ConfigurationError(
            f"{path} has model format {card.format}, this version reads {_FORMAT}"
        )
    return card


def load_model(path: Path) -> TrainedModel:
    """Return the model in a file; reading it executes no code.

    Raises
    ------
    ConfigurationError
        If the file is missing or damaged, or its architecture is not installed.
    """
    stat = path.stat() if path.is_file() else None
    return _load(path, stat.st_mtime_ns if stat else 0)


@lru_cache(maxsize=4)
def _load(path: Path, modified: int) -> TrainedModel:
    del modified
    card = read_card(path)
    architecture: Architecture = registry.build("architectures", card.architecture, card.parameters)
    module = architecture.build(card.statistics)
    try:
        module.load_state_dict({**module.state_dict(), **load_file(path)})
    except (RuntimeError, SafetensorError) as error:
        raise ConfigurationError(
            f"{path} does not fit its own card: {str(error).splitlines()[0]}"
        ) from None
    module.eval()
    return TrainedModel(card, architecture, module, hashlib.sha256(path.read_bytes()).hexdigest())


def model_path(name: str) -> Path:
    """Return where a model lies: one shipped with matloop by its name, else a file.

    Raises
    ------
    ConfigurationError
        If there is neither.
    """
    shipped = shipped_models()
    if name in shipped:
        return shipped[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = ", ".join(shipped) or "none"
    raise ConfigurationError(f"{name} is no model file; shipped models are: {known}")


def shipped_models() -> dict[str, Path]:
    """Return the models that come with matloop, by name."""
    folder = files("matloop.generators.neural") / "models"
    found = sorted(Path(str(folder)).glob("*.safetensors"))
    return {path.stem: path for path in found}


def hyperparameters(architecture: Architecture) -> dict[str, Any]:
    """Return an architecture's fields as the card stores them."""
    return {item.name: getattr(architecture, item.name) for item in fields(architecture)}  # type: ignore[arg-type]
