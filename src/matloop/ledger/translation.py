"""MongoDB filters as SQL conditions, as far as indexes can answer them exactly or nearly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from maggma.core import StoreError

from matloop.ledger.encoding import date_text

_RANGES = {"$gt": ">=", "$gte": ">=", "$lt": "<=", "$lte": "<="}


@dataclass
class Plan:
    """What SQL decides of a filter, and what is left for the matcher.

    Attributes
    ----------
    conditions
        SQL conditions; every matching document fulfils them all.
    parameters
        Values of their placeholders.
    rest
        The part of the filter that the conditions do not decide exactly.
    """

    conditions: list[str] = field(default_factory=list)
    parameters: list[object] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The SQL clause, empty if SQL decides nothing."""
        return " WHERE " + " AND ".join(self.conditions) if self.conditions else ""

    def add(self, condition: str, *parameters: object) -> None:
        """Add a condition."""
        self.conditions.append(condition)
        self.parameters.extend(parameters)


def translate(criteria: Mapping[str, Any], usable: Callable[[str], bool]) -> Plan:
    """Return how to find the documents of a filter.

    Parameters
    ----------
    criteria
        A MongoDB filter.
    usable
        Whether a field is indexed, and holds nothing but strings, numbers, dates and nulls.

    Notes
    -----
    Numbers are compared by SQLite's own reading of their digits, which may be off in the 16th, so
    conditions on numbers that are no integers are widened by one part in 10¹² and left to the
    matcher as well.
    """
    plan = Plan()
    rest: list[dict[str, Any]] = []
    _add(plan, rest, criteria, usable)
    if len({name for part in rest for name in part}) == sum(map(len, rest)):
        plan.rest = {name: condition for part in rest for name, condition in part.items()}
    else:
        plan.rest = {"$and": rest}
    return plan


def extract(name: str) -> str:
    """Return the SQL expression of a document's field: what is indexed and what is asked for."""
    return f"json_extract(doc, '{_path(name.split('.'))}')"


def odd(name: str) -> str:
    """Return the SQL condition under which a field defies comparison in SQL.

    True for booleans (1 in SQL), objects other than dates, and lists, of which MongoDB compares
    the members, whether the field holds one or lies inside one. True as well for every document
    with a NUL character, at which SQLite would end a text.
    """
    parts = name.split(".")
    path = _path(parts)
    inside = [f"json_type(doc, '{_path(parts[:n])}')='array'" for n in range(1, len(parts))]
    return " OR ".join(
        [
            f"json_type(doc, '{path}') IN ('array','true','false')",
            f"(json_type(doc, '{path}')='object'"
            f" AND json_type(doc, '{_path([*parts, '$date'])}') IS NULL)",
            "instr(doc, '\\u0000')>0",
            *inside,
        ]
    )


def _path(parts: list[str]) -> str:
    for part in parts:
        if not part or '"' in part or "'" in part:
            raise StoreError(f"cannot index a field with the name {'.'.join(parts)!r}")
    return "$" + "".join(f'."{part}"' for part in parts)


def _add(
    plan: Plan,
    rest: list[dict[str, Any]],
    criteria: Mapping[str, Any],
    usable: Callable[[str], bool],
) -> None:
    for name, condition in criteria.items():
        if name == "$and":
            for part in condition:
                _add(plan, rest, part, usable)
        elif name.startswith("$") or not usable(name):
            rest.append({name: condition})
        elif _is_operators(condition):
            for operator, operand in condition.items():
                if operator == "$options" or not _add_clause(plan, name, operator, operand):
                    rest.append({name: condition})
                    break
        elif not _add_clause(plan, name, "$eq", condition):
            rest.append({name: condition})


def _is_operators(condition: object) -> bool:
    return isinstance(condition, Mapping) and any(str(key).startswith("$") for key in condition)


def _add_clause(plan: Plan, name: str, operator: str, operand: Any) -> bool:
    # Returns whether the clause is decided exactly; it may be narrowed even if not.
    column = extract(name)
    match operator:
        case "$eq":
            if operand is None:
                plan.add(f"{column} IS NULL")
                return False  # also true below a field that is no object
            if _is_known(operand):
                plan.add(f"{column}=?", _sql(operand))
                return _is_exact(operand)
            if _is_number(operand):
                plan.add(f"{column}>=? AND {column}<=?", _below(operand), _above(operand))
        case "$in":
            if isinstance(operand, list | tuple) and all(map(_is_known, operand)):
                values = json.dumps([_sql(value) for value in operand])
                plan.add(f"{column} IN (SELECT value FROM json_each(?))", values)
                return all(map(_is_exact, operand))
        case "$gt" | "$gte" | "$lt" | "$lte":
            sql = f"{column}{_RANGES[operator]}?"
            if isinstance(operand, datetime) or _is_text(operand):
                plan.add(sql, _sql(operand))
            elif _is_number(operand):
                lower = operator in ("$gt", "$gte")
                plan.add(sql, _below(operand) if lower else _above(operand))
    return False


def _is_exact(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**53
    return _is_text(value)


def _is_known(value: object) -> bool:
    # A date is written as a text, which could also be somebody's text.
    return isinstance(value, datetime) or _is_exact(value)


def _is_text(value: object) -> bool:
    # A text that begins with a brace could be a date; SQLite ends texts at NUL, and a lone
    # surrogate is no text to it.
    return (
        isinstance(value, str)
        and not value.startswith("{")
        and "\0" not in value
        and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))
    )


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and _is_exact(value)


def _sql(value: Any) -> object:
    if isinstance(value, datetime):
        return json.dumps({"$date": date_text(value)}, separators=(",", ":"))
    return value


def _below(value: float) -> float:
    return float(value) - 1e-12 * abs(float(value))


def _above(value: float) -> float:
    return float(value) + 1e-12 * abs(float(value))
