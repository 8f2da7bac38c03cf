"""What a campaign looks for: a utility, a feasible set, and what counts as a discovery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from pydantic import Field, field_validator, model_validator

from matloop.documents.base import Document
from matloop.documents.candidate import Quantity
from matloop.documents.expression import Array, Expression


class Objective(Document):
    """Utility U(x) to maximise inside a feasible set.

    Attributes
    ----------
    minimize, maximize
        Expression of quantities; exactly one of the two is given.
    constraints
        Comparisons that every acceptable crystal fulfils: the feasible set.
    discovery
        Comparison that makes a crystal a discovery, if it is also feasible, new and unique.
    """

    minimize: str = ""
    maximize: str = ""
    constraints: tuple[str, ...] = ()
    discovery: str = Field("e_above_hull <= 0.05 eV/atom", min_length=1)

    @field_validator("minimize", "maximize")
    @classmethod
    def _is_number(cls, value: str) -> str:
        if value and parse(value).is_comparison:
            raise ValueError(f"{value!r} is a comparison; the objective must be a number")
        return value

    @field_validator("constraints", "discovery")
    @classmethod
    def _are_comparisons(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for text in (value,) if isinstance(value, str) else value:
            if not parse(text).is_comparison:
                raise ValueError(f"{text!r} must be a comparison, such as density >= 3 g/cm^3")
        return value

    @model_validator(mode="after")
    def _one_direction(self) -> Objective:
        if bool(self.minimize) == bool(self.maximize):
            raise ValueError("give exactly one of minimize and maximize")
        return self

    @property
    def expression(self) -> Expression:
        """The expression that is minimised or maximised."""
        return parse(self.minimize or self.maximize)

    @property
    def names(self) -> frozenset[str]:
        """All quantities that utility, constraints and discovery name."""
        parts = [self.expression, parse(self.discovery), *map(parse, self.constraints)]
        return frozenset().union(*(part.names for part in parts))

    def utility(self, quantities: Mapping[str, Quantity]) -> float | None:
        """Return U(x), larger is better; None where a quantity is missing."""
        values = _values(quantities)
        if not self.expression.names <= values.keys():
            return None
        return float(self.utilities(values))

    def utilities_of(self, batch: Sequence[Mapping[str, Quantity]]) -> Array:
        """Return U of many crystals, shape (len(batch),); NaN where a quantity is missing."""
        result = np.full(len(batch), np.nan)
        names = sorted(self.expression.names)
        alike: dict[tuple[str, ...], list[int]] = {}
        for row, known in enumerate(batch):
            if all(name in known for name in names):
                alike.setdefault(tuple(known[name].unit for name in names), []).append(row)
        for units, rows in alike.items():
            values = {
                name: (np.array([batch[row][name].value for row in rows]), unit)
                for name, unit in zip(names, units, strict=True)
            }
            result[rows] = self.utilities(values)
        return result

    def utilities(self, values: Mapping[str, tuple[Array | float, str]]) -> Array:
        """Return U for arrays of quantities, each given with its unit."""
        sign = -1.0 if self.minimize else 1.0
        return np.asarray(sign * self.expression.evaluate(values))

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


def _names_distance(text: str) -> bool:
    return parse(text).names == {"e_above_hull"}


@cache
def parse(text: str) -> Expression:
    """Return the parsed expression, once per text."""
    return Expression(text)


def _values(quantities: Mapping[str, Quantity]) -> dict[str, tuple[Array | float, str]]:
    return {name: (quantity.value, quantity.unit) for name, quantity in quantities.items()}
