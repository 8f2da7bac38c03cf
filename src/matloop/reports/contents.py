"""What a report says of a campaign: frozen documents, numbers only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from matloop.documents.account import Account
from matloop.documents.base import Crystal, Document, Scalar
from matloop.documents.campaign import CampaignRecord
from matloop.documents.candidate import Quantity
from matloop.documents.decision import Outcome
from matloop.documents.diversity import Alarm, Diversity
from matloop.documents.theory import LevelOfTheory
from matloop.reports.arms import Arm, Versus
from matloop.reports.comparison import Fidelity
from matloop.reports.front import Front
from matloop.reports.predictions import Parity


class Spent(Document):
    """What a set of evaluations cost.

    An evaluation that several candidates share is counted once, at the first of them in the order
    of the campaign. What another campaign had paid before this one began is counted all the same,
    so that campaigns compare, and is listed apart.

    Attributes
    ----------
    seconds
        Worker time (s).
    work
        Atoms times force evaluations.
    calls
        Force evaluations.
    evaluations
        Distinct evaluations.
    relaxations
        Distinct evaluations by methods that move atoms, failed ones included.
    calculations
        Distinct evaluations by engines, failed ones included.
    core_hours, gpu_hours
        The same cost in hours of processor cores and of accelerators.
    reused_seconds
        Share of `seconds` that was paid before the campaign began.
    """

    seconds: float = 0.0
    work: float = 0.0
    calls: int = 0
    evaluations: int = 0
    relaxations: int = 0
    calculations: int = 0
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    reused_seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        """Return the sum, field by field."""
        own, more = self.model_dump(), other.model_dump()
        return Spent(**{name: value + more[name] for name, value in own.items()})


class ReasonCount(Document):
    """How often one reason was given; numbers that differ are shown as a range."""

    outcome: Outcome
    reason: str
    count: int


class FunnelRow(Document):
    """One stage in one iteration.

    ``entered = passed + rejected + failed + held + pending``, and what passed one stage entered
    the next.

    Attributes
    ----------
    iteration
        Counted from 0; None for all iterations together.
    entered
        Candidates that reached the stage.
    pending
        Those not yet decided; 0 once the iteration is complete.
    reasons
        Reasons by count, most frequent first.
    spent
        Cost of the stage's decided candidates.
    """

    iteration: int | None
    stage: str
    entered: int
    passed: int
    rejected: int
    failed: int
    held: int
    pending: int
    reasons: tuple[ReasonCount, ...] = ()
    spent: Spent = Spent()


class Finding(Document):
    """A crystal worth showing.

    Attributes
    ----------
    candidate_id
        The candidate.
    formula
        Reduced formula.
    structure
        As the last evaluation left it.
    space_group, space_group_number
        Of that structure, at the tolerance the summary states; empty and 0 if none was found.
    discovery
        Passed the last stage, met the discovery criterion when judged and meets it on the final
        hull, matches no reference phase and no earlier discovery.
    fate
        Last stage it reached, and what was decided there.
    utility
        Utility under the campaign's objective, larger is better; with several goals less the number
        of relaxed candidates that dominate it.
    e_above_hull
        Distance to the hull when it was judged (eV/atom).
    e_above_hull_final
        Distance to the final hull of reference and found phases at the highest level of theory
        (eV/atom); None without energy there.
    e_above_hull_lower
        Distance to the hull of the lowest level of theory when it was judged there (eV/atom); None
        where the campaign has one level.
    quantities
        All quantities known of it.
    predicted
        What the surrogate said before the relaxation, by name of the quantity predicted.
    novelty
        ``withheld``: matches a withheld phase; ``composition``: no reference or withheld phase has
        its formula; ``polymorph``: some have its formula, none its structure.
    matches
        Name of the phase it matches.
    generator, operator, parents
        Origin.
    iteration
        Iteration that proposed it.
    found_after
        Cost of the campaign up to and including this candidate, in proposal order.
    """

    candidate_id: str
    formula: str
    structure: Crystal
    space_group: str
    space_group_number: int
    discovery: bool
    fate: str
    utility: float | None
    e_above_hull: float | None
    e_above_hull_final: float | None
    e_above_hull_lower: float | None = None
    quantities: dict[str, Quantity]
    predicted: dict[str, Quantity]
    novelty: Literal["withheld", "composition", "polymorph"]
    matches: str = ""
    generator: str
    operator: dict[str, Scalar] = Field(default_factory=dict)
    parents: tuple[str, ...] = ()
    iteration: int
    found_after: Spent


class Rediscovery(Document):
    """A withheld phase, and the best crystal of the campaign that matches it.

    Attributes
    ----------
    phase_id, formula, source
        The withheld phase.
    space_group
        Of the withheld crystal.
    candidate_id
        Matching candidate of least distance to the hull; empty if the phase was not found.
    discovery
        Whether that candidate is also a discovery.
    rms
        Root-mean-square displacement of the match, divided by the cube root of the volume per atom.
    e_above_hull
        Distance to the final hull (eV/atom).
    iteration, relaxations
        When it was found.
    """

    phase_id: str
    formula: str
    source: str
    space_group: str
    candidate_id: str = ""
    discovery: bool = False
    rms: float | None = None
    e_above_hull: float | None = None
    iteration: int | None = None
    relaxations: int | None = None


class HullPoint(Document):
    """One energy on the composition axes.

    Attributes
    ----------
    fractions
        Atomic fraction of each element.
    e_form
        Formation energy from the elemental references (eV/atom).
    e_above_hull
        Distance to the final hull (eV/atom); 0 for phases on it.
    source
        ``reference``, ``found`` (part of the final hull), or ``candidate``.
    """

    point_id: str
    formula: str
    fractions: dict[str, float]
    e_form: float
    e_above_hull: float
    source: Literal["reference", "found", "candidate"]


class Hull(Document):
    """The final hull, with every energy the campaign computed.

    Attributes
    ----------
    elements
        Elements of the campaign's space, the axes.
    theory
        Level of theory of all energies.
    points
        Phases and candidates.
    """

    elements: tuple[str, ...]
    theory: LevelOfTheory
    points: tuple[HullPoint, ...]


class ProgressPoint(Document):
    """Discoveries after a cost: the start, each discovery, and the end of each iteration."""

    iteration: int
    spent: Spent
    discoveries: int
    candidate_id: str = ""


class GeneratorRow(Document):
    """One portfolio member in one iteration.

    Attributes
    ----------
    share
        Share of the proposals it was allotted; None if none was recorded.
    proposed, valid, relaxed, discoveries
        Candidates proposed, that passed the first stage, that were relaxed, and discoveries.
    spent
        Cost of its candidates.
    """

    iteration: int
    generator: str
    share: float | None
    proposed: int
    valid: int
    relaxed: int
    discoveries: int
    spent: Spent


class CampaignSummary(Document):
    """Everything a report says.

    Attributes
    ----------
    record
        The campaign as declared, with versions and machine.
    status, reason
        Where it stands.
    iterations
        Iterations begun.
    updated_at
        When the latest state was written (UTC).
    funnel, totals
        One row per iteration and stage; one per stage over all iterations.
    spent
        Cost of everything decided.
    findings
        Discoveries in the order they were made, then the best others, best first.
    known_again
        Candidates that met the discovery criterion but match a reference phase.
    duplicates
        Candidates that meet the discovery criterion but match an earlier discovery.
    superseded
        Candidates that met it when judged, but not on the final hull.
    known_crystals
        Crystals in the reference set against which discoveries are new.
    rediscoveries
        One row per withheld phase.
    hull
        None without phases at a level of theory.
    progress
        Discoveries against cost.
    generators
        One row per iteration and portfolio member.
    parities
        One per predicted quantity.
    arms
        Yields per relaxation.
    versus
        Comparison with a baseline campaign.
    theories
        Levels of theory of the campaign's evaluations.
    metrics
        What learners measured, per iteration.
    diversity
        What each generator offered, per iteration.
    alarms
        Limits of diversity that were passed, and what the campaign did about it.
    fidelity
        Comparison of the levels of theory; None where there is one.
    front
        The Pareto front; None with one goal, or before a crystal was judged in all of several.
    accounts
        What each stage and the whole have spent, reserved and left; empty where nothing is limited
        and nothing calculated.
    """

    record: CampaignRecord
    status: Literal["running", "finished"]
    reason: str
    iterations: int
    updated_at: datetime
    funnel: tuple[FunnelRow, ...]
    totals: tuple[FunnelRow, ...]
    spent: Spent
    findings: tuple[Finding, ...]
    known_again: int
    duplicates: int
    superseded: int
    known_crystals: int
    rediscoveries: tuple[Rediscovery, ...]
    hull: Hull | None
    progress: tuple[ProgressPoint, ...]
    generators: tuple[GeneratorRow, ...]
    parities: tuple[Parity, ...]
    arms: tuple[Arm, ...]
    versus: Versus | None = None
    theories: tuple[LevelOfTheory, ...]
    metrics: tuple[dict[str, float], ...]
    diversity: tuple[Diversity, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    fidelity: Fidelity | None = None
    front: Front | None = None
    accounts: tuple[Account, ...] = ()

    @property
    def discoveries(self) -> tuple[Finding, ...]:
        """Discoveries, in the order they were made."""
        return tuple(finding for finding in self.findings if finding.discovery)
