"""What became of a candidate at one stage, and why."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from matloop.documents.base import Document

Outcome = Literal["passed", "rejected", "failed", "held"]

RANDOM_ARM = "arm"
"""Name of the evidence by which a selector marks a candidate it drew by lot, value 1."""

AUDIT = "audit"
"""Name of the evidence by which a selector marks a candidate that goes on although it was turned
down or ranked low, drawn by lot to measure how often that is wrong; value 1."""

TURNED_DOWN = "rejected"
"""Name of the evidence that an evaluator of the stage had rejected an audited candidate; value 1,
or 0 if it only ranked low."""


class Choice(Document):
    """A selector's word on one candidate.

    Attributes
    ----------
    candidate_id
        The candidate.
    outcome
        ``passed`` goes on; ``rejected`` was found wanting; ``failed`` could not be judged; ``held``
        is good enough but had no place or budget in this iteration.
    reason
        One clause in plain words, never empty.
    evidence
        The numbers the choice rests on.
    """

    candidate_id: str
    outcome: Outcome
    reason: str = Field(min_length=1)
    evidence: dict[str, float] = Field(default_factory=dict)


class Decision(Document):
    """A choice as the ledger keeps it: one per campaign, candidate, stage and iteration.

    A candidate meets a stage in one iteration only, unless its result was late: then it is held in
    this one and judged again in the next.

    Attributes
    ----------
    late
        Whether it is held because the stage closed before it was judged.
    selection
        Hash of the artifact with the `Selection` it was made in; empty in ledgers of before there
        was one, and for what the selector was not asked about.
    """

    campaign_id: str
    iteration: int
    stage: str
    candidate_id: str
    outcome: Outcome
    reason: str = Field(min_length=1)
    selector: str
    evidence: dict[str, float] = Field(default_factory=dict)
    evaluations: tuple[str, ...] = ()
    late: bool = False
    selection: str = ""
    schema_version: int = 1


class Selection(Document):
    """What a selector was asked at one stage of one iteration: all that its choices rest on.

    With the evaluations named by the decisions, the same question can be asked again, of the same
    selector or of another. One document per stage and iteration, kept as an artifact.

    Attributes
    ----------
    selector
        Registered name.
    parameters
        All its parameters, defaults included.
    version
        Version of the package that brought it.
    seed
        Its only source of randomness.
    keep
        Most candidates that might pass; None for no limit.
    final
        Whether no later stage moves the atoms.
    asked
        The candidates, in order; empty for a large batch in which each is decided apart: then
        whoever's decision names it.
    resources
        Sha256 of each artifact it could read: what had been learned by then.
    calculates
        Whether a later stage calculates, so that candidates have a price.
    core_hours_left
        Core-hours that could still be set aside then; None for no limit.
    """

    selector: str
    parameters: dict[str, JsonValue]
    version: str = ""
    seed: int
    keep: int | None
    final: bool
    asked: tuple[str, ...]
    resources: dict[str, str] = Field(default_factory=dict)
    calculates: bool = False
    core_hours_left: float | None = None
    schema_version: int = 1
