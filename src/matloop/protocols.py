"""Who acts in a campaign: the contracts every plugin fulfils.

Plugins are frozen `MSONable` dataclasses: their fields are their parameters, of JSON types only, so
that jobflow and FireWorks can carry them. They hold no state and know nothing of jobflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

from pymatgen.core import Structure

from matloop.documents.base import Scalar
from matloop.documents.candidate import Candidate
from matloop.documents.decision import Choice
from matloop.documents.evaluation import Evaluation
from matloop.documents.objective import Objective
from matloop.documents.space import ChemicalSpace


@dataclass(frozen=True)
class Proposal:
    """A crystal as a generator returns it.

    Attributes
    ----------
    structure
        The crystal, ordered, as a primitive or conventional cell.
    parents
        Ids of the candidates or phases it was made from.
    parameters
        What was chosen for this one: operator, space group, substitution.
    """

    structure: Structure
    parents: tuple[str, ...] = ()
    parameters: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Parent:
    """A known crystal that generators may build on.

    Attributes
    ----------
    parent_id
        Candidate id, or phase id of a reference.
    structure
        The crystal, relaxed where it was found.
    utility
        Utility of a found crystal; None for a reference from outside the campaign's space.
    """

    parent_id: str
    structure: Structure
    utility: float | None = None


@dataclass(frozen=True)
class ProposalRequest:
    """What a generator is asked for.

    Attributes
    ----------
    space
        Chemical space the proposals should lie in; strays are rejected later, with a reason.
    count
        How many are wanted. Fewer is allowed and is counted against the generator.
    seed
        The only source of randomness.
    found
        The ledger's best crystals, best first; empty in the first iteration and without feedback.
    references
        Reference phases and templates, of any chemical system.
    """

    space: ChemicalSpace
    count: int
    seed: int
    found: Sequence[Parent] = ()
    references: Sequence[Parent] = ()


@runtime_checkable
class Generator(Protocol):
    """Propose crystals."""

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return at most `request.count` crystals; the same request gives the same crystals."""
        ...


@dataclass(frozen=True)
class Resources:
    """Artifact files that an evaluator reads, by name.

    Attributes
    ----------
    paths
        Where each artifact lies on this machine.
    digests
        Sha256 of each, part of the key under which results are stored.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Evaluator(Protocol):
    """Judge candidates, each on its own unless `scope` says otherwise.

    An evaluator that returns another structure says so with a class attribute
    ``moves_atoms = True``: quantities found before it do not outlive it. One whose results depend
    on more than its parameters names the rest in a method ``identity() -> str``.

    Attributes
    ----------
    produces
        Name and unit of each quantity it may report.
    requires
        Quantities it reads from the candidates.
    resources
        Names of the artifacts it reads: ``phases``, ``archive``, ``surrogate``.
    scope
        ``batch`` if the verdict depends on the other candidates of the batch (uniqueness), so
        that a batch may not be split.
    """

    produces: ClassVar[Mapping[str, str]]
    requires: ClassVar[tuple[str, ...]]
    resources: ClassVar[tuple[str, ...]]
    scope: ClassVar[Literal["candidate", "batch"]]

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Return one evaluation per candidate, in order; a bad candidate never raises."""
        ...


@dataclass(frozen=True)
class Judged:
    """A candidate with everything the stage at hand said of it.

    Attributes
    ----------
    candidate
        The candidate after the stage's evaluations: structure and quantities are up to date.
    evaluations
        The stage's evaluations, in the order of the campaign file.
    """

    candidate: Candidate
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True)
class SelectionRequest:
    """What a selector is asked for.

    Attributes
    ----------
    objective
        Utility and feasible set of the campaign.
    seed
        The only source of randomness.
    keep
        Most candidates that may pass; None if the stage sets no limit.
    final
        Whether no later stage moves the atoms. Only then do the candidates' quantities count for
        the objective's constraints; before, they are those of a crystal that will change.
    """

    objective: Objective
    seed: int
    keep: int | None = None
    final: bool = True


@runtime_checkable
class Selector(Protocol):
    """Decide who goes on. Only selectors drop candidates."""

    def select(self, batch: Sequence[Judged], request: SelectionRequest) -> list[Choice]:
        """Return one choice per candidate, in order."""
        ...


@dataclass(frozen=True)
class Observation:
    """One candidate as the ladder left it, for learners.

    Attributes
    ----------
    proposed
        The candidate as proposed.
    final
        The candidate as it stands: relaxed, with all quantities known.
    iteration
        Iteration that proposed it.
    generator
        Portfolio member that proposed it.
    utility
        Its utility; None where a quantity is missing.
    discovery
        Whether it met the campaign's discovery criterion.
    work
        Deterministic cost spent on it in all stages (atoms times force evaluations).
    """

    proposed: Candidate
    final: Candidate
    iteration: int
    generator: str
    utility: float | None
    discovery: bool
    work: float


@dataclass(frozen=True)
class Lesson:
    """What a learner made: one artifact, and numbers for the report.

    Attributes
    ----------
    content
        Bytes of the artifact; reading them executes no code.
    media_type
        How to read them.
    metrics
        Measured quality, each with its denominator among them.
    """

    content: bytes
    media_type: str
    metrics: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Learner(Protocol):
    """Make an artifact out of what the campaign has seen.

    Attributes
    ----------
    resource
        Name under which evaluators find the artifact.
    """

    resource: ClassVar[str]

    def learn(
        self, history: Sequence[Observation], objective: Objective, seed: int
    ) -> Lesson | None:
        """Return the lesson of all results so far; None while there are too few."""
        ...


@dataclass(frozen=True)
class Record:
    """What one portfolio member has done so far, oldest iteration first.

    Attributes
    ----------
    proposed, discoveries
        Counts per iteration.
    work
        Deterministic cost per iteration (atoms times force evaluations).
    """

    proposed: tuple[int, ...]
    discoveries: tuple[int, ...]
    work: tuple[float, ...]


@runtime_checkable
class Allocator(Protocol):
    """Share the next iteration's proposals between the generators."""

    def allocate(
        self, records: Mapping[str, Record], start: Mapping[str, float]
    ) -> dict[str, float]:
        """Return a share per generator; they add up to 1."""
        ...
