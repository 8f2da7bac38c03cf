"""What a report says of several goals: frozen documents, numbers only."""

from __future__ import annotations

from typing import Literal

from matloop.documents.base import Document


class GoalShown(Document):
    """One goal.

    Attributes
    ----------
    text
        As the campaign file has it.
    direction
        Which values are good.
    unit
        Unit of its values.
    reference
        Worst value worth having: where the dominated volume begins.
    """

    text: str
    direction: Literal["minimize", "maximize"]
    unit: str
    reference: float


class FrontPoint(Document):
    """A crystal on the Pareto front.

    Attributes
    ----------
    values
        What each goal reads, in the goals' order and units.
    discovery
        Whether it is a discovery.
    known
        Name of the reference phase that it matches; empty if it is new.
    iteration
        Iteration that proposed it.
    """

    candidate_id: str
    formula: str
    space_group: str
    values: tuple[float, ...]
    discovery: bool
    known: str
    iteration: int


class Front(Document):
    """The crystals that no other surpasses in all goals, and how far they have come.

    Attributes
    ----------
    goals
        Goals, in order.
    given
        Whether the user gave the reference point.
    points
        The front: distinct crystals, the best of the first goal first.
    others
        Values of the other crystals, for drawing; the least dominated first.
    judged
        Feasible relaxed crystals of which all goals are known.
    volumes
        Volume that the front dominates after each iteration, in the product of the goals' units,
        against the final hull and from one reference point.
    """

    goals: tuple[GoalShown, ...]
    given: bool
    points: tuple[FrontPoint, ...]
    others: tuple[tuple[float, ...], ...]
    judged: int
    volumes: tuple[float, ...]

    @property
    def unit(self) -> str:
        """Unit of the volumes."""
        return " × ".join(goal.unit for goal in self.goals if goal.unit) or "1"
