"""What a report says of two levels of theory side by side: frozen documents, numbers only."""

from __future__ import annotations

from typing import Literal

from matloop.documents.base import Document
from matloop.documents.theory import LevelOfTheory


class LevelPair(Document):
    """A crystal judged at two levels of theory.

    Attributes
    ----------
    lower, upper
        Distances to the hulls of the phases that both levels know, without itself (eV/atom).
    corrected, uncertainty
        What was expected of `upper` before it was calculated, with one standard deviation; None
        where nobody said.
    audit
        Whether it was calculated although it had been turned down or ranked low.
    """

    candidate_id: str
    formula: str
    iteration: int
    lower: float
    upper: float
    corrected: float | None = None
    uncertainty: float | None = None
    audit: bool = False


class AuditRow(Document):
    """How often candidates that were not promoted would have been discoveries.

    Attributes
    ----------
    kind
        ``rejected`` by an evaluator of the lower level; ``beyond`` or ``within`` the criterion by
        its distance, but ranked low; ``negative``, the first two together.
    others
        Candidates not promoted, the audited among them: what was drawn from.
    audited, calculated, confirmed
        Drawn by lot; with a verdict at the upper level; near enough to its hull.
    rate, low, high
        Confirmed per calculated, with the Wilson interval at 95 %.
    """

    kind: Literal["rejected", "beyond", "within", "negative"]
    others: int
    audited: int
    calculated: int
    confirmed: int
    rate: float
    low: float
    high: float


class CostPair(Document):
    """What a calculation was estimated to cost, and what it cost (core-hours)."""

    candidate_id: str
    estimated: float
    actual: float


class Fidelity(Document):
    """The two levels of theory of a campaign, side by side.

    Attributes
    ----------
    lower, upper
        Their theories.
    stage
        The stage that calculates.
    pairs
        Everything judged at both, in the order of the campaign.
    mean_difference, mae
        Upper minus lower distance, and its mean magnitude (eV/atom); None without pairs.
    foretold
        Pairs with an expectation made beforehand.
    mae_foretold, coverage
        Mean error of these expectations (eV/atom), and the share inside their 90 % interval.
    half_width
        Half width of the latest lesson's 90 % interval (eV/atom); None before the
        first lesson.
    stable_both, stable_lower_only, stable_upper_only, stable_neither
        Pairs by the discovery criterion on their distances.
    promoted
        Candidates promoted on their merits.
    audit
        One row per kind, and their sum over lower-level negatives.
    uncalculated
        Formulas of phases on the lower hull without an energy at the upper level.
    costs
        Calculations that were reserved and have a verdict, reference phases included.
    """

    lower: LevelOfTheory
    upper: LevelOfTheory
    stage: str
    pairs: tuple[LevelPair, ...]
    mean_difference: float | None
    mae: float | None
    foretold: int
    mae_foretold: float | None
    coverage: float | None
    half_width: float | None
    stable_both: int
    stable_lower_only: int
    stable_upper_only: int
    stable_neither: int
    promoted: int
    audit: tuple[AuditRow, ...]
    uncalculated: tuple[str, ...]
    costs: tuple[CostPair, ...]
