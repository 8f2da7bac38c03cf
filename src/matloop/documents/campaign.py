"""A campaign as its file declares it, and as it proceeds."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from matloop.documents.artifact import Artifact
from matloop.documents.base import Document
from matloop.documents.candidate import Candidate
from matloop.documents.diversity import Alarm, Diversity, Watch
from matloop.documents.objective import Objective
from matloop.documents.space import ChemicalSpace

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]


class PluginUse(Document):
    """A plugin with its parameters; a bare name stands for one with its defaults.

    Attributes
    ----------
    use
        Registered name, as ``matloop plugins`` lists them.
    parameters
        Parameters of the plugin, written ``with`` in the campaign file.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_alias=True, validate_by_name=True
    )

    use: str
    parameters: dict[str, JsonValue] = Field(default_factory=dict, alias="with")


def _bare_name(value: Any) -> Any:
    return {"use": value} if isinstance(value, str) else value


Plugin = Annotated[PluginUse, BeforeValidator(_bare_name)]


class GeneratorEntry(PluginUse):
    """One member of the proposal portfolio.

    Attributes
    ----------
    use
        Registered name of the generator.
    parameters
        Its parameters, written ``with``.
    name
        Name in reports, where one generator is used twice; by default its registered name.
    share
        Weight among the members at the start.
    """

    name: str = ""
    share: float = Field(1.0, gt=0, le=1_000_000)

    @property
    def label(self) -> str:
        """Name in reports."""
        return self.name or self.use


def _refuse_two_limits(budget: Stage | Budget) -> None:
    hours = [name for name in ("core_hours", "gpu_hours") if getattr(budget, name) is not None]
    if budget.seconds is not None and hours:
        raise ValueError(f"seconds and {hours[0]} say one limit in two ways; give one of them")


class Stage(Document):
    """One rung of the fidelity ladder.

    Attributes
    ----------
    name
        Name in reports.
    evaluate
        Evaluators that judge every candidate of the stage, in order.
    select
        Selector that decides who goes on.
    keep
        Most candidates that pass per iteration; empty for no limit.
    seconds
        Budget of this stage over the whole campaign, in seconds of evaluation cost; candidates that
        find it exhausted are held. Empty for no limit.
    core_hours, gpu_hours
        The same in hours of processor cores and of accelerators. What earlier campaigns have paid
        for is free. A calculation is not submitted unless its estimated core-hours still fit; the
        reference phases that it needs are paid from the same budget.
    workers
        Worker processes, one thread each; ``auto`` is one per core, and 0 evaluates in the
        campaign's own process, which suits cheap evaluators.
    chunk
        Candidates evaluated and recorded together: what a kill can lose. Results do not depend on
        the number of workers, because the chunks do not.
    calculate
        Engine that calculates every candidate in jobs of its own, before the evaluators judge:
        density-functional theory.
    worker_kind
        Kind of worker, as the site file names them, that runs this stage on a cluster; empty for
        the kind its plugins ask for (``cpu``, ``gpu`` or ``dft``), and for ``cpu`` where the site
        has no such kind.
    quorum
        Fraction of the candidates that must have been judged before the stage may close without the
        rest. With less than 1 the stage closes as soon as the quorum is there; the rest is held,
        and joins the next iteration.
    deadline
        Hours after which the stage closes with what it has, counted from its first attempt; empty
        for none. What is late is held, and joins the next iteration.
    """

    name: Name
    evaluate: tuple[Plugin, ...] = ()
    select: Plugin = PluginUse(use="gate")
    keep: int | None = Field(None, ge=1)
    seconds: float | None = Field(None, gt=0)
    core_hours: float | None = Field(None, gt=0)
    gpu_hours: float | None = Field(None, gt=0)
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=256)] = 0
    chunk: int = Field(64, ge=1, le=10_000)
    calculate: Plugin | None = None
    worker_kind: Name | Literal[""] = ""
    quorum: float = Field(1.0, gt=0, le=1)
    deadline: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_limit(self) -> Stage:
        _refuse_two_limits(self)
        return self


class TaskCollection(Document):
    """A MongoDB collection of task documents: atomate2's own, or the outputs of a job store.

    Attributes
    ----------
    database, collection
        Where it is.
    uri_variable
        Environment variable that holds the server's URI.
    mixing
        Published scheme that puts the energies on one scale, such as ``mp2020``; empty for none.
    """

    database: str
    collection: str
    uri_variable: str = "MATLOOP_MONGODB_URI"
    mixing: str | None = None


class References(Document):
    """Phases that span the hull, and templates for substitution.

    Attributes
    ----------
    embedded
        Use the textbook elements and compounds that matloop carries.
    files
        Structure files or folders of the user's own reference phases (CIF, POSCAR, extxyz, JSON).
    known
        Libraries of crystals that are known to exist, as `matloop known` makes them: novelty is
        judged against them too. They need no energies and take no part in the hull.
    entries
        Files of computed entries (pymatgen's ``ComputedStructureEntry`` as JSON) at their own level
        of theory: they join the hull of the stage that calculates at the same level.
    tasks
        Collections of task documents, used like `entries`.
    materials_project
        Ask the Materials Project for the phases of the system; needs the ``mp`` extra and a key.
        Their energies are used like `entries`.
    max_elements
        Reference phases with more elements are withheld: known to the report, which checks whether
        they were rediscovered, and to nothing else. Empty withholds none.
    withhold
        Formulas withheld in the same way.
    templates
        Offer reference crystals of other chemical systems as parents for substitution.
    """

    embedded: bool = True
    files: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    tasks: tuple[TaskCollection, ...] = ()
    materials_project: bool = False
    max_elements: int | None = Field(None, ge=1)
    withhold: tuple[str, ...] = ()
    templates: bool = True


class Feedback(Document):
    """What the loop learns after each iteration.

    Attributes
    ----------
    learn
        Learners refitted on all results, such as ``surrogate``.
    allocate
        How proposals are shared between generators from the second iteration on.
    parents
        How many of the best crystals generators may build on; 0 gives them none.
    """

    learn: tuple[Plugin, ...] = (PluginUse(use="surrogate"),)
    allocate: Plugin = PluginUse(use="bandit")
    parents: int = Field(20, ge=0)


class Budget(Document):
    """What the campaign may spend.

    Attributes
    ----------
    iterations
        Turns of the loop.
    candidates
        Proposals per iteration.
    seconds
        Evaluation cost of the whole campaign (s, summed over workers); checked between iterations.
    core_hours, gpu_hours
        Hours of processor cores and of accelerators that the whole campaign may take, reference
        calculations included. Nothing is begun that does not fit, and the campaign ends when they
        are spent.
    core_hours_per_day, core_hours_per_week
        On a cluster: core-hours taken within the last 24 hours or 7 days after which no further
        iteration is started until they have passed; empty for no limit.
    weight
        On a cluster: share of the workers, relative to the weights of the other campaigns.
    """

    iterations: int = Field(5, ge=1, le=100_000)
    candidates: int = Field(100, ge=1, le=100_000)
    seconds: float | None = Field(None, gt=0)
    core_hours: float | None = Field(None, gt=0)
    gpu_hours: float | None = Field(None, gt=0)
    core_hours_per_day: float | None = Field(None, gt=0)
    core_hours_per_week: float | None = Field(None, gt=0)
    weight: float = Field(1.0, gt=0, le=1000)

    @model_validator(mode="after")
    def _one_limit(self) -> Budget:
        _refuse_two_limits(self)
        return self


class Stop(Document):
    """When a campaign ends before its budget does.

    Attributes
    ----------
    discoveries
        Enough discoveries.
    patience
        Iterations in a row without a discovery.
    """

    discoveries: int | None = Field(None, ge=1)
    patience: int | None = Field(None, ge=1)


class Campaign(Document):
    """A declared closed loop.

    Attributes
    ----------
    name
        Short name: lower-case letters, digits, dashes.
    description
        One sentence for the report.
    seed
        Seed of everything random.
    space
        Chemical space searched.
    objective
        What to look for.
    references
        What the hull is built from.
    generators
        Proposal portfolio.
    stages
        Fidelity ladder, cheapest first.
    feedback
        What is learned between iterations; ``off`` for none at all.
    budget
        What may be spent.
    stop
        When to end early.
    watch
        Limits beyond which a generator is taken to have collapsed.
    """

    name: Name
    description: str = ""
    seed: int = Field(0, ge=0, lt=10**18)
    space: ChemicalSpace
    objective: Objective
    references: References = References()
    generators: tuple[Annotated[GeneratorEntry, BeforeValidator(_bare_name)], ...] = Field(
        min_length=1
    )
    stages: tuple[Stage, ...] = Field(min_length=1)
    feedback: Feedback | Literal["off"] = Feedback()
    budget: Budget = Budget()
    stop: Stop = Stop()
    watch: Watch = Watch()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Campaign:
        for what, labels in (
            ("stage", [stage.name for stage in self.stages]),
            ("generator", [entry.label for entry in self.generators]),
        ):
            twice = sorted({label for label in labels if labels.count(label) > 1})
            if twice:
                raise ValueError(f"two {what}s are called {twice[0]!r}; give each its own name")
        return self

    def located(self, base: Path) -> Campaign:
        """Return the campaign with paths made absolute, as seen from the folder of its file.

        Paths are those of `References`, and every generator parameter called ``paths``.
        """
        files = tuple(str((base / file).resolve()) for file in self.references.files)
        entries = tuple(str((base / file).resolve()) for file in self.references.entries)
        generators = []
        for entry in self.generators:
            paths = entry.parameters.get("paths")
            if not isinstance(paths, list):
                generators.append(entry)
                continue
            found = [str((base / str(path)).resolve()) for path in paths]
            parameters = {**entry.parameters, "paths": found}
            generators.append(entry.model_copy(update={"parameters": parameters}))
        return self.model_copy(
            update={
                "references": self.references.model_copy(
                    update={"files": files, "entries": entries}
                ),
                "generators": tuple(generators),
            }
        )


class CampaignRecord(Document):
    """A campaign as the ledger keeps it.

    Attributes
    ----------
    campaign_id
        Unique name in the database.
    campaign
        What was declared.
    versions
        Packages and models it started with.
    machine
        Where it started: system, processor, cores.
    created_at
        When (UTC).
    """

    campaign_id: str
    campaign: Campaign
    versions: dict[str, str]
    machine: dict[str, str]
    created_at: datetime
    schema_version: int = 1


class CandidateRecord(Document):
    """A candidate as the ledger keeps it: as proposed, with its place in the campaign."""

    campaign_id: str
    iteration: int
    index: int
    candidate: Candidate
    schema_version: int = 1


class IterationState(Document):
    """What travels from one iteration to the next; written once, never changed.

    The campaign's current state is the one with the highest iteration. Writing it is the
    compare-and-swap of `advance`: the second writer of the same iteration changes nothing.

    Attributes
    ----------
    iteration
        The iteration this state starts.
    status
        ``running``, or ``finished`` when no further iteration follows.
    reason
        Why it finished.
    resources
        Artifacts that evaluators read during the iteration: ``phases``, ``archive``, ``surrogate``.
    shares
        Share of each generator in the iteration's proposals.
    parents
        Ids of the found crystals that generators may build on, best first.
    metrics
        What learners measured, as ``learner.metric``.
    diversity
        What each generator offered in the iteration before.
    alarms
        Limits of the campaign's `watch` that were passed there, and what follows.
    created_at
        When (UTC).
    """

    campaign_id: str
    iteration: int
    status: Literal["running", "finished"]
    reason: str = ""
    resources: dict[str, Artifact] = Field(default_factory=dict)
    shares: dict[str, float] = Field(default_factory=dict)
    parents: tuple[str, ...] = ()
    metrics: dict[str, float] = Field(default_factory=dict)
    diversity: tuple[Diversity, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    created_at: datetime
    schema_version: int = 1
