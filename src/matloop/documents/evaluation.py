"""What one method says of one candidate, and what that cost."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from matloop.documents.base import Crystal, Document
from matloop.documents.candidate import Quantity
from matloop.documents.labelled import Frame
from matloop.documents.theory import LevelOfTheory

Verdict = Literal["pass", "reject", "fail"]


class Cost(Document):
    """What an evaluation cost.

    Attributes
    ----------
    seconds
        Wall time this candidate took of one worker (s); shared batch time is divided by work.
    work
        Deterministic measure of the same: atoms times force evaluations. Decisions use this one,
        so that they do not depend on how busy the machine was.
    calls
        Force evaluations of the model.
    device
        ``cpu`` or the name of the accelerator.
    threads
        Threads the worker was allowed to use.
    """

    seconds: float = 0.0
    work: float = 0.0
    calls: int = 0
    device: str = "cpu"
    threads: int = 1

    @property
    def core_hours(self) -> float:
        """Wall time times threads on processors (h); 0 on an accelerator, whose hours count."""
        return self.seconds * self.threads / 3600 if self.device == "cpu" else 0.0

    @property
    def gpu_hours(self) -> float:
        """Wall time on an accelerator (h); the cores that feed it come with it."""
        return 0.0 if self.device == "cpu" else self.seconds / 3600


class RelaxationEnd(Document):
    """Where a relaxation ended, with what is too large for the ledger.

    Attributes
    ----------
    converged
        Whether the largest force fell below the limit.
    steps
        Steps taken.
    max_force
        Largest norm over atomic forces and rows of the cell's force (eV/Å).
    forces
        Forces (eV/Å), one row per atom; None where there are none.
    stress
        Cauchy stress (eV/Å^3), positive when the crystal wants to contract, three rows.
    """

    converged: bool
    steps: int
    max_force: float | None = None
    forces: tuple[tuple[float, float, float], ...] | None = None
    stress: tuple[tuple[float, float, float], ...] | None = None


class Evaluation(Document):
    """One method's verdict on one candidate, as an `Evaluator` returns it.

    Attributes
    ----------
    candidate_id
        The candidate judged.
    verdict
        ``pass``; ``reject`` if the method finds against it; ``fail`` if the method could not judge.
    reason
        One clause in plain words, never empty.
    quantities
        Numbers found, by name.
    structure
        The crystal after a relaxation; None if the method does not move atoms.
    theory
        Level of theory of the energies among the quantities.
    frames
        Geometries with energies and forces at `theory`, where a calculation leaves them: what
        potentials learn from.
    cost
        What it took.
    end
        Forces and stress at the end of a relaxation. They reach whoever called the evaluator, and
        are not recorded.
    """

    candidate_id: str
    verdict: Verdict
    reason: str = Field(min_length=1)
    quantities: dict[str, Quantity] = Field(default_factory=dict)
    structure: Crystal | None = None
    theory: LevelOfTheory | None = None
    frames: tuple[Frame, ...] = ()
    cost: Cost = Cost()
    end: RelaxationEnd | None = Field(default=None, exclude=True, repr=False)


class EvaluationRecord(Document):
    """An evaluation as the ledger keeps it: found again by every campaign under its key.

    Attributes
    ----------
    key
        Hash of (structure, method with parameters, package version and resources, inputs).
    structure_digest
        The structure judged.
    evaluator
        Registered name of the method.
    method
        Hash of the method alone, for counting and comparing.
    evaluation
        What it said. The candidate id is that of the first candidate that asked.
    recorded_at
        When it was stored (UTC).
    """

    key: str
    structure_digest: str
    evaluator: str
    method: str
    evaluation: Evaluation
    recorded_at: datetime
    schema_version: int = 1
