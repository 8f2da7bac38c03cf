"""A relaxation that writes down what it was paid for, so that tests can count."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from monty.json import MSONable

from matloop.documents.candidate import Candidate
from matloop.documents.evaluation import Evaluation
from matloop.evaluators.mlip.relaxation import Relaxation
from matloop.protocols import Resources


@dataclass(frozen=True)
class CountedRelaxation(MSONable):
    """Relax with effective medium theory, and append every candidate's name to a file.

    Attributes
    ----------
    log_variable
        Environment variable that names the file.
    fmax
        Largest force of a converged crystal (eV/Å).
    max_steps
        Steps after which a candidate is rejected.
    """

    log_variable: str = "COUNTED_RELAXATION_LOG"
    fmax: float = 0.05
    max_steps: int = 150

    produces: ClassVar[Mapping[str, str]] = Relaxation.produces
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"
    moves_atoms: ClassVar[bool] = True

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Relax the candidates as `Relaxation` does."""
        names = "".join(f"{candidate.candidate_id}\n" for candidate in candidates)
        if self.log_variable in os.environ:
            with open(os.environ[self.log_variable], "a", encoding="utf-8") as file:
                file.write(names)
        relaxation = Relaxation(model="ase", fmax=self.fmax, max_steps=self.max_steps)
        return relaxation.evaluate(candidates, resources)
