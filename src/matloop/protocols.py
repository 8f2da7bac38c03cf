"""Who acts in a campaign: the contracts every plugin fulfils.

Plugins are frozen `MSONable` dataclasses: their fields are their parameters, of JSON types only, so
that jobflow and FireWorks can carry them. They hold no state and know nothing of jobflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from pymatgen.core import Structure

from matloop.documents.base import Scalar
from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.decision import Choice
from matloop.documents.evaluation import Evaluation
from matloop.documents.labelled import Labelled
from matloop.documents.objective import Objective
from matloop.documents.space import ChemicalSpace
from matloop.documents.theory import LevelOfTheory

if TYPE_CHECKING:
    from jobflow import Flow, Job


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
class Resources:
    """Artifact files that plugins read, by name.

    Attributes
    ----------
    paths
        Where each artifact lies on this machine.
    digests
        Sha256 of each, part of the key under which results are stored.
    segments
        Where the files lie that archives consist of, by sha256.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    segments: Mapping[str, Path] = field(default_factory=dict)


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
    resources
        Artifacts of the campaign that the generator names in a class attribute ``resources``.
    """

    space: ChemicalSpace
    count: int
    seed: int
    found: Sequence[Parent] = ()
    references: Sequence[Parent] = ()
    resources: Resources = field(default_factory=Resources)


@runtime_checkable
class Generator(Protocol):
    """Propose crystals.

    One that is best run on a GPU says so with a class attribute ``worker_kind = "gpu"``: on a
    cluster the whole portfolio then proposes there. One whose proposals do not depend on how many
    are asked for at a time says so with ``divisible = True``: of many, some thousands are asked for
    at a time, each time with another seed.
    """

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return at most `request.count` crystals; the same request gives the same crystals."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Judge candidates, each on its own unless `scope` says otherwise.

    An evaluator that returns another structure says so with a class attribute
    ``moves_atoms = True``: quantities found before it do not outlive it. One whose results depend
    on more than its parameters names the rest in a method ``identity() -> str``. One that reads
    quantities which its parameters name, where a candidate has them, lists these in a method
    ``reads() -> tuple[str, ...]``. One that is best run on a GPU says so with a class attribute
    ``worker_kind = "gpu"``. One that takes well under a millisecond per crystal, in code that
    cannot crash, says so with ``cheap = True``: it is asked in the process that holds the crystals,
    many at a time. Nobody changes the crystals he is given.

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


@runtime_checkable
class Engine(Protocol):
    """Calculate one crystal in jobs of its own: density-functional theory, or a second potential.

    An engine describes a calculation, it does not run one: the jobs run wherever the flow runs, in
    this process or on a cluster. Like every plugin it is a frozen `MSONable` dataclass. One whose
    jobs replace one another, each with a document of its own, tells the last from those before it
    with a method ``finished(document) -> bool``: a calculation that ends on an earlier one died.

    Attributes
    ----------
    produces
        Name and unit of each quantity its evaluations may report; ``energy_per_atom`` (eV/atom),
        which hull distances are made of, among them.
    """

    produces: ClassVar[Mapping[str, str]]

    def theory(self, structure: Structure) -> LevelOfTheory:
        """Return the level of theory of a crystal's energy, before anything is run.

        Crystals of different chemistry may differ in theory, as with U values; what may not meet
        on one hull has different keys.
        """
        ...

    def calculation(self, structure: Structure, name: str) -> Job | Flow:
        """Return the job or flow whose ``output`` is the engine's own task document.

        The document stays what the engine's users know, such as emmet's ``TaskDoc``.
        """
        ...

    def evaluation(self, candidate_id: str, document: Mapping[str, object] | None) -> Evaluation:
        """Return the verdict derived from the task document; None if the calculation died.

        A calculation that did not converge, or died, is a ``fail`` with the reason.
        """
        ...

    def core_hours(self, structure: Structure) -> float:
        """Return the estimated cost of a calculation (core-hours), before anything is run."""
        ...

    def problems(self) -> list[str]:
        """Return what this machine lacks to run the engine, one line each: command, files."""
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
class NextCalculation:
    """What the calculation costs that awaits a candidate on a later stage.

    Attributes
    ----------
    core_hours
        Returns the estimated cost for a crystal (core-hours); None where the engine cannot tell.
    left
        Core-hours that can still be set aside; None for no limit.
    """

    core_hours: Callable[[Structure], float | None]
    left: float | None = None


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
    resources
        Artifacts that selectors may read, as evaluators do; none outside of a campaign.
    calculation
        What the next calculation costs; None where no later stage calculates.
    """

    objective: Objective
    seed: int
    keep: int | None = None
    final: bool = True
    resources: Resources = field(default_factory=Resources)
    calculation: NextCalculation | None = None


@runtime_checkable
class Selector(Protocol):
    """Decide who goes on. Only selectors drop candidates.

    One that decides on each candidate without regard to the others has a method
    ``decides_apart(request) -> bool`` that says so: it is shown large batches piece by piece.
    """

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
    by_rung
        Its quantities at each level of theory that judged it, lowest first, by the name of the
        stage that computed its energy; empty in a campaign with one level.
    on_shared_hull
        Its distances to the hull (eV/atom) at the two lowest levels, each against the phases that
        both levels know, without itself; None unless both judged it.
    labels
        Geometries with energies and forces that calculations left of it.
    """

    proposed: Candidate
    final: Candidate
    iteration: int
    generator: str
    utility: float | None
    discovery: bool
    work: float
    by_rung: Mapping[str, Mapping[str, Quantity]] = field(default_factory=dict)
    on_shared_hull: tuple[float, float] | None = None
    labels: tuple[Labelled, ...] = ()


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
    beside
        Further artifacts that are kept but not used, by name.
    """

    content: bytes
    media_type: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)


@runtime_checkable
class Learner(Protocol):
    """Make an artifact out of what the campaign has seen.

    One that needs artifacts of the campaign itself, such as the phases or its own last lesson, has
    a method ``informed(resources) -> Learner`` that returns a learner which knows them.

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
    alarms
        Limits of diversity that it passed, per iteration; empty where nobody watched.
    """

    proposed: tuple[int, ...]
    discoveries: tuple[int, ...]
    work: tuple[float, ...]
    alarms: tuple[int, ...] = ()


@runtime_checkable
class Allocator(Protocol):
    """Share the next iteration's proposals between the generators."""

    def allocate(
        self, records: Mapping[str, Record], start: Mapping[str, float]
    ) -> dict[str, float]:
        """Return a share per generator; they add up to 1."""
        ...
