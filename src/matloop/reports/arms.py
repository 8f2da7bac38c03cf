"""What a report says of other ways to spend the budget: frozen documents, numbers only."""

from __future__ import annotations

from typing import Literal

from matloop.documents.base import Document


class Arm(Document):
    """Discoveries per relaxation of one part of a campaign, with its statistical error.

    Attributes
    ----------
    label
        Which relaxations are counted.
    kind
        ``all``, ``feedback`` (after the first iteration), ``first`` (the first iteration, which
        knows no feedback), ``random`` (candidates a selector drew by lot), ``campaign``
        (another campaign).
    discoveries, relaxations
        Numerator and denominator.
    hits
        Discoveries, and repeats of a discovery. Distinct phases run out, repeats do not.
    rate, low, high
        Discoveries per relaxation, with the Wilson interval at 95 %.
    expected, expected_low, expected_high
        The same multiplied by all relaxations of the campaign: what this arm would have found for
        the same budget, if its rate stayed as it was.
    """

    label: str
    kind: Literal["all", "feedback", "first", "random", "campaign"]
    discoveries: int
    hits: int
    relaxations: int
    rate: float
    low: float
    high: float
    expected: float
    expected_low: float
    expected_high: float


class Versus(Document):
    """The campaign against a baseline campaign.

    Attributes
    ----------
    relaxations
        Relaxations both have done: the smaller of the two totals.
    own, baseline
        Discoveries of each after as many.
    enhancement
        Their ratio; None if the baseline found nothing.
    acceleration
        Relaxations the baseline needed for its final count, divided by those this campaign needed
        for the same count; 0 if it was never reached, None if the baseline found nothing.
    """

    campaign_id: str
    relaxations: int
    own: int
    baseline: int
    enhancement: float | None
    acceleration: float | None
