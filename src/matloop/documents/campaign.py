"""A campaign as its file declares it, and as it proceeds."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from matloop.documents.artifact import Artifact
from matloop.documents.base import Document
from matloop.documents.candidate import Candidate
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
    workers
        Worker processes, one thread each; ``auto`` is one per core, and 0 evaluates in the
        campaign's own process, which suits cheap evaluators.
    chunk
        Candidates evaluated and recorded together: what a kill can lose. Results do not depend on
        the number of workers, because the chunks do not.
    """

    name: Name
    evaluate: tuple[Plugin, ...] = ()
    select: Plugin = PluginUse(use="gate")
    keep: int | None = Field(None, ge=1)
    seconds: float | None = Field(None, gt=0)
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=256)] = 0
    chunk: int = Field(64, ge=1, le=10_000)


class References(Document):
    """Phases that span the hull, and templates for substitution.

    Attributes
    ----------
    embedded
        Use the textbook elements and compounds that matloop carries.
    files
        Structure files or folders of the user's own reference phases (CIF, POSCAR, extxyz, JSON).
    materials_project
        Ask the Materials Project for the phases of the system; needs the ``mp`` extra and a key.
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
    """

    iterations: int = Field(5, ge=1, le=100_000)
    candidates: int = Field(100, ge=1, le=100_000)
    seconds: float | None = Field(None, gt=0)


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

        Paths are `References.files` and every generator parameter called ``paths``.
        """
        files = tuple(str((base / file).resolve()) for file in self.references.files)
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
                "references": self.references.model_copy(update={"files": files}),
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
    created_at: datetime
    schema_version: int = 1
