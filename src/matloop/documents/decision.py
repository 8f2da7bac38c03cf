"""What became of a candidate at one stage, and why."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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
    schema_version: int = 1
