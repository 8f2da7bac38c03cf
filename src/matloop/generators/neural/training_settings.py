"""How a network is trained, and on what: settings, threads, device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from matloop.errors import ConfigurationError


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained.

    Attributes
    ----------
    epochs
        Most passes over the data.
    batch_size
        Crystals per step.
    learning_rate
        Highest learning rate; it warms up over `warmup` steps and falls as a cosine to a hundredth.
    weight_decay
        Decoupled weight decay of AdamW (Loshchilov and Hutter, ICLR 2019).
    warmup
        Steps until the learning rate is reached.
    average
        Decay per step of the running average of the weights, which is what is kept.
    clip
        Largest norm of the gradient.
    patience
        Epochs without a better validation loss after which training ends; 0 for never.
    minutes
        Time after which training ends; the learning rate falls towards it. 0 for no limit.
    seed
        The only source of randomness.
    device
        ``auto``, ``cpu``, or ``cuda`` with an optional index.
    threads
        Threads on a CPU. More than one seldom pays for small networks; on a busy machine threads
        that wait for each other cost many times what they bring.
    """

    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 200
    average: float = 0.999
    clip: float = 1.0
    patience: int = 6
    minutes: float = 0.0
    seed: int = 0
    device: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1")
        if self.learning_rate <= 0:
            raise ConfigurationError("learning_rate must be positive")
        if not 0 <= self.average < 1:
            raise ConfigurationError("average must lie in [0, 1)")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_device(name: str) -> torch.device:
    """Return a device by name; ``auto`` is an accelerator where there is one.

    Raises
    ------
    ConfigurationError
        If it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigurationError(f"device {name!r} is none of: auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"device {name!r} is not there; use cpu, or auto")
    return device
