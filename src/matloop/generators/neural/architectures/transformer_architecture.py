"""What architectures on transformers share: sizes, and conditions that are left out in training."""

from __future__ import annotations

from dataclasses import dataclass, field

from monty.json import MSONable


@dataclass(frozen=True)
class TransformerArchitecture(MSONable):
    """A transformer, and what it is asked for.

    Attributes
    ----------
    width, depth, heads
        Size of the transformer.
    dropout
        Share of activations left out in training.
    properties
        Properties the crystals can be asked for; each is left out of half of the training, so that
        it need not be given.
    drop_conditions
        Share of the training in which none of the other conditions is given.
    """

    width: int = 160
    depth: int = 6
    heads: int = 5
    dropout: float = 0.1
    properties: list[str] = field(default_factory=list)
    drop_conditions: float = 0.6

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError for a width that the heads of the attention do not divide."""
    if width % heads:
        raise ValueError(f"width {width} must be a multiple of heads {heads}")
