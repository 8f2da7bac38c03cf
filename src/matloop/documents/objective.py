"""What a campaign looks for: a utility, a feasible set, and what counts as a discovery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from matloop.documents.base import Document
from matloop.documents.candidate import Quantity
from matloop.documents.expression import Array, Expression
from matloop.documents.pareto import MOST_GOALS, dominators


@dataclass(frozen=True)
class Goal:
    """One expression that is made large or small.

    Attributes
    ----------
    text
        As written.
    sign
        1 where large values are good, -1 where small ones are.
    """

    text: str
    sign: float

    @property
    def expression(self) -> Expression:
        """The expression."""
        return parse(self.text)


class Objective(Document):
    """Utility U(x) to maximise inside a feasible set, or several goals at once.

    Attributes
    ----------
    minimize, maximize
        Expression of quantities, or a list of them. One in all makes a utility; two or three are
        goals of their own, and the campaign keeps the crystals that none surpasses in all of them.
    reference
        With several goals: the worst value worth having of each, by its expression, such as
        ``e_above_hull: 0.3 eV/atom``. The volume that the front dominates is measured from there;
        by default from the worst values on the front, less a tenth of its range.
    constraints
        Comparisons that every acceptable crystal fulfils: the feasible set.
    discovery
        Comparison that makes a crystal a discovery, if it is also feasible, new and unique.
    """

    minimize: str | tuple[str, ...] = ""
    maximize: str | tuple[str, ...] = ""
    reference: dict[str, str] = Field(default_factory=dict)
    constraints: tuple[str, ...] = ()
    discovery: str = Field("e_above_hull <= 0.05 eV/atom", min_length=1)

    @field_validator("minimize", "maximize", mode="before")
    @classmethod
    def _are_texts(cls, value: object) -> object:
        texts = value if isinstance(value, list | tuple) else [value]
        wrong = next((text for text in texts if not isinstance(text, str)), None)
        if wrong is not None or value is None:
            raise ValueError(f"must be an expression or a list of them, got {wrong!r}")
        return value

    @field_validator("minimize", "maximize")
    @classmethod
    def _are_numbers(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        texts = (value,) if isinstance(value, str) else value
        for text in texts:
            if not (text or isinstance(value, str)):
                raise ValueError("an empty text is no goal")
            if text and parse(text).is_comparison:
                raise ValueError(f"{text!r} is a comparison; the objective must be a number")
        return texts[0] if len(texts) == 1 else value or ""

    @field_validator("constraints", "discovery")
    @classmethod
    def _are_comparisons(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for text in (value,) if isinstance(value, str) else value:
            if not parse(text).is_comparison:
                raise ValueError(f"{text!r} must be a comparison, such as density >= 3 g/cm^3")
        return value

    @field_validator("reference")
    @classmethod
    def _is_a_point(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        for text in value.values():
            if parse(text).names or parse(text).is_comparison:
                raise ValueError(f"{text!r} must be a number with its unit")
        if not value or not {"minimize", "maximize"} <= info.data.keys():
            return value
        texts = {goal.text for goal in _goals(info.data["minimize"], info.data["maximize"])}
        if len(texts) < 2:
            raise ValueError("is for several goals; this objective has one")
        for text in sorted(texts ^ value.keys()):
            why = "is no goal" if text in value else "is a goal without a value there"
            raise ValueError(f"names every goal once; {text!r} {why}")
        return value

    @model_validator(mode="after")
    def _goals_are_clear(self) -> Objective:
        texts = [goal.text for goal in self.goals]
        if not texts:
            raise ValueError("say what to minimize or maximize")
        if len(texts) > MOST_GOALS:
            raise ValueError(f"{len(texts)} goals are too many; {MOST_GOALS} are possible")
        twice = sorted({text for text in texts if texts.count(text) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is a goal twice; name it once")
        return self

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Everything that is made small, then everything that is made large."""
        return _goals(self.minimize, self.maximize)

    @property
    def several(self) -> bool:
        """Whether there is more than one goal, and so no utility of a single crystal."""
        return len(self.goals) > 1

    @property
    def of_goals(self) -> frozenset[str]:
        """The quantities that goals name."""
        return frozenset().union(*(goal.expression.names for goal in self.goals))

    @property
    def names(self) -> frozenset[str]:
        """All quantities that goals, constraints and discovery name."""
        parts = [parse(self.discovery), *map(parse, self.constraints)]
        return self.of_goals.union(*(part.names for part in parts))

    def utility(self, quantities: Mapping[str, Quantity]) -> float | None:
        """Return U(x), larger is better; None where a quantity is missing, or with several goals.

        With several goals a crystal has a rank among others: see `utilities_of`.
        """
        values = _values(quantities)
        if self.several or not self.of_goals <= values.keys():
            return None
        return float(self.utilities(values))

    def utilities_of(self, batch: Sequence[Mapping[str, Quantity]]) -> Array:
        """Return U of many crystals, shape (len(batch),); NaN where a quantity is missing.

        With several goals it is less the number of others in the batch that dominate the crystal.
        """
        gains = self.gains_of(batch)
        if not self.several:
            return gains[:, 0]
        return ranks(gains, np.array([self.violated(known) is None for known in batch]))

    def gains_of(self, batch: Sequence[Mapping[str, Quantity]]) -> Array:
        """Return what each goal reads, larger is better, shape (len(batch), goals).

        Each is in the unit of its expression; NaN where a quantity is missing.
        """
        result = np.full((len(batch), len(self.goals)), np.nan)
        names = sorted(self.of_goals)
        alike: dict[tuple[str, ...], list[int]] = {}
        for row, known in enumerate(batch):
            if all(name in known for name in names):
                alike.setdefault(tuple(known[name].unit for name in names), []).append(row)
        for units, rows in alike.items():
            values = {
                name: (np.array([batch[row][name].value for row in rows]), unit)
                for name, unit in zip(names, units, strict=True)
            }
            result[rows] = self.gains(values)
        return result

    def utilities(self, values: Mapping[str, tuple[Array | float, str]]) -> Array:
        """Return U for arrays of quantities, each with its unit; the first goal of several."""
        goal = self.goals[0]
        return np.asarray(goal.sign * goal.expression.evaluate(values))

    def gains(self, values: Mapping[str, tuple[Array | float, str]]) -> Array:
        """Return every goal for arrays of quantities, along a last axis; larger is better."""
        found = [goal.sign * goal.expression.evaluate(values) for goal in self.goals]
        return np.stack(np.broadcast_arrays(*found), axis=-1)

    def worst(self, units: Mapping[str, str]) -> Array | None:
        """Return the reference point as `gains` counts, shape (goals,); None if none is given.

        Parameters
        ----------
        units
            Unit of every quantity that the goals name.

        Raises
        ------
        DimensionError
            If a value is in a unit of another kind than its goal.
        """
        if not self.reference:
            return None
        return np.array(
            [
                goal.sign * parse(self.reference[goal.text]).constant(self.unit(goal, units))
                for goal in self.goals
            ]
        )

    def unit(self, goal: Goal, units: Mapping[str, str]) -> str:
        """Return the unit in which a goal is counted."""
        if goal.text in units:
            return units[goal.text]
        found = goal.expression.check_units({name: units[name] for name in goal.expression.names})
        return found.replace(" ** ", "^").replace(" / ", "/").replace(" * ", "*")

    def feasibilities(self, values: Mapping[str, tuple[Array | float, str]]) -> Array:
        """Return 1.0 where all constraints hold whose quantities are known, else 0.0."""
        result = np.asarray(1.0)
        for text in self.constraints:
            constraint = parse(text)
            if constraint.names <= values.keys():
                result = result * constraint.evaluate(values)
        return result

    def violated(self, quantities: Mapping[str, Quantity]) -> str | None:
        """Return the first violated constraint; one with missing quantities is not violated."""
        values = _values(quantities)
        for text in self.constraints:
            constraint = parse(text)
            if constraint.names <= values.keys() and not bool(constraint.evaluate(values)):
                return text
        return None

    def is_discovery(self, quantities: Mapping[str, Quantity]) -> bool:
        """Whether the quantities meet the discovery criterion and all constraints."""
        values = _values(quantities)
        criterion = parse(self.discovery)
        known = all(
            part.names <= values.keys() for part in (criterion, *map(parse, self.constraints))
        )
        return known and bool(criterion.evaluate(values)) and self.violated(quantities) is None

    def stable(self, distance: float) -> bool:
        """Whether a distance to the hull (eV/atom) is near enough, whatever else a crystal is.

        Asked are the discovery criterion and those constraints that name ``e_above_hull`` and
        nothing else; where there is none, the distance must not be above 0.
        """
        parts = [part for part in (self.discovery, *self.constraints) if _names_distance(part)]
        values = {"e_above_hull": (distance, "eV/atom")}
        return all(bool(parse(part).evaluate(values)) for part in parts) if parts else distance <= 0


def ranks(gains: Array, feasible: Array) -> Array:
    """Return less the number of crystals that dominate each one, shape (n,); NaN if unknown.

    Parameters
    ----------
    gains
        Goals, larger is better, shape (n, goals).
    feasible
        Whether no constraint is violated, shape (n,).
    """
    known = np.isfinite(gains).all(axis=1)
    result = np.full(len(gains), np.nan)
    result[known] = 0.0 - dominators(gains[known], np.asarray(feasible, dtype=bool)[known])
    return result


def _goals(minimize: str | tuple[str, ...], maximize: str | tuple[str, ...]) -> tuple[Goal, ...]:
    return tuple(
        Goal(text, sign)
        for given, sign in ((minimize, -1.0), (maximize, 1.0))
        for text in ((given,) if isinstance(given, str) else given)
        if text
    )


def _names_distance(text: str) -> bool:
    return parse(text).names == {"e_above_hull"}


@cache
def parse(text: str) -> Expression:
    """Return the parsed expression, once per text."""
    return Expression(text)


def _values(quantities: Mapping[str, Quantity]) -> dict[str, tuple[Array | float, str]]:
    return {name: (quantity.value, quantity.unit) for name, quantity in quantities.items()}
