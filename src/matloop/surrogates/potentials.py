"""Weights of a potential in a file: safetensors with a model card, which executes no code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from matloop.documents.labelled import ModelCard
from matloop.errors import ConfigurationError

MEDIA_TYPE = "application/vnd.safetensors"

_CARD = "matloop_card"


def to_bytes(card: ModelCard, weights: Mapping[str, NDArray[Any]]) -> bytes:
    """Return card and weights as the content of one file; equal content, equal bytes.

    Parameters
    ----------
    card
        What the weights are.
    weights
        Named arrays; none where a card stands for a model that was not replaced.
    """
    arrays = {name: np.ascontiguousarray(weights[name]) for name in sorted(weights)}
    content: bytes = save(arrays, metadata={_CARD: card.model_dump_json()})
    return content


def read_card(path: Path) -> ModelCard:
    """Return the model card of a file.

    Raises
    ------
    ConfigurationError
        If there is no such file, or it has no card.
    """
    try:
        with safe_open(path, framework="np") as file:
            card = (file.metadata() or {}).get(_CARD)
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no file {path}; give one of `matloop finetune`"
        ) from None
    except (SafetensorError, OSError) as error:
        raise ConfigurationError(f"{path} is no safetensors file: {error}") from None
    if card is None:
        raise ConfigurationError(f"{path} has no model card; give a file of `matloop finetune`")
    return ModelCard.model_validate_json(card)


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Return the named arrays of a file; none where it holds only a card."""
    return dict(load_file(path))


def sha256_of(content: bytes) -> str:
    """Return the hash by which a level of theory names such a file."""
    return hashlib.sha256(content).hexdigest()
