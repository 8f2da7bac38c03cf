"""What evaluators that compute with a potential share: which one, and where they run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from monty.json import MSONable

from matloop.documents.theory import LevelOfTheory
from matloop.evaluators.mlip.model import load_model


@dataclass(frozen=True)
class PotentialEvaluator(MSONable):
    """An evaluator with a potential.

    Attributes
    ----------
    model
        Registered name of the potential; after a relaxation, that of the relaxation.
    model_parameters
        Parameters of the potential.
    """

    model: str = "chgnet"
    model_parameters: dict[str, bool | int | float | str] = field(default_factory=dict)

    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"
    worker_kind: ClassVar[str] = "gpu"

    def identity(self) -> str:
        """Return what the parameters do not show: the model's version, weights and settings."""
        return self.theory().key

    def theory(self) -> LevelOfTheory:
        """Return the level of theory of what is computed; loads the model."""
        return load_model(self.model, self.model_parameters).theory

    def _check_positive(self, *names: str) -> None:
        """Raise ValueError for the first of some parameters that is not positive."""
        for name in names:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")
