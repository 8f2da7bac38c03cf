"""Readable expressions of quantities with units: ``abs(density - 4.2 g/cm^3) / (1 g/cm^3)``.

An expression is data, not code: only arithmetic, comparisons, a few functions, numbers with units
and names of quantities are understood; nothing is ever executed.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pint

Array = NDArray[np.float64]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "min": lambda *values: np.minimum.reduce(np.broadcast_arrays(*values)),
    "max": lambda *values: np.maximum.reduce(np.broadcast_arrays(*values)),
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
}
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    # numpy turns what is too large into inf, where Python would raise, or compute for ever
    ast.Pow: lambda a, b: (np.float64(a) if isinstance(a, int | float) else a) ** b,
    ast.LtE: lambda a, b: a <= b,
    ast.GtE: lambda a, b: a >= b,
    ast.Lt: lambda a, b: a < b,
    ast.Gt: lambda a, b: a > b,
}
# A unit follows its number: ``0.05 eV/atom``, ``3 g/cm^3``. A name after ``*`` is a quantity.
_UNIT_NAMES = "meV|keV|eV|kJ|kg|mg|g|GPa|MPa|kbar|angstrom|Å|nm|cm|m|K|mol|atom|hour|THz|s"
_UNIT = rf"(?:{_UNIT_NAMES})(?:\^-?\d+)?(?:[/*](?:{_UNIT_NAMES})(?:\^-?\d+)?)*"
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?"
_MEASURED = re.compile(rf"(?<![\w.])({_NUMBER})\s*({_UNIT})(?![\w(])")
_NO_UNIT = re.compile(
    rf"(?<![\w.])(?:{_NUMBER})\s*(?:(?:{_UNIT})[/*])?(?!(?:{_UNIT_NAMES})\b)([^\W\d]\w*)(?!\w|\()"
)
_LONGEST = 1000


class DimensionError(ValueError):
    """Quantities are added or compared that have different dimensions."""


class Expression:
    """A parsed expression.

    Parameters
    ----------
    text
        The expression as written.

    Raises
    ------
    ValueError
        If the text is no expression; the message says what is wrong with it.
    """

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise ValueError(f"an expression may have {_LONGEST} characters, not {len(text)}")
        self.text = text
        prepared = _MEASURED.sub(r'unit(\1, "\2")', text).replace("^", "**")
        try:
            self._tree = ast.parse(prepared.strip(), mode="eval").body
            self.names: frozenset[str] = frozenset(_check(self._tree, text))
            self._sorted = sorted(self.names)
            self._units: dict[tuple[tuple[str, str], ...], str] = {}  # of the result, by the names'
        except SyntaxError as error:
            wrong = sorted(self.units_in_doubt)
            why = f"{wrong[0]!r} is no unit; {unit_hint(wrong[0])}" if wrong else error.msg
            raise ValueError(f"cannot read the expression {text!r}: {why}") from None
        except (RecursionError, MemoryError):  # the parser's two ways to say the same
            raise ValueError("the expression nests too deeply") from None

    @property
    def is_comparison(self) -> bool:
        """Whether the expression is true or false rather than a number."""
        return isinstance(self._tree, ast.Compare)

    @property
    def units_in_doubt(self) -> frozenset[str]:
        """Words that stand where a unit does, and are none: they are read as quantities."""
        return frozenset(_NO_UNIT.findall(self.text))

    def check_units(self, units: Mapping[str, str]) -> str:
        """Check names and dimensions, and return the unit of the result.

        Parameters
        ----------
        units
            Unit of every quantity that may be named.

        Raises
        ------
        DimensionError
            If the dimensions do not fit.
        ValueError
            If a quantity is unknown, or a number too large.
        """
        import pint

        unknown = sorted(self.names - set(units))
        if unknown:
            known = ", ".join(sorted(units)) or "none"
            raise ValueError(f"unknown quantity {unknown[0]!r}; the stages produce: {known}")
        registry = _unit_registry()
        values = {name: registry.Quantity(1.0, unit_text(units[name])) for name in self.names}
        try:
            result = _evaluate(self._tree, values, lambda n, u: registry.Quantity(n, unit_text(u)))
            if not hasattr(result, "units") or result.dimensionless:
                return ""
            return f"{result.units:~}"
        except OverflowError:
            raise ValueError(f"a number in {self.text!r} is too large") from None
        except ZeroDivisionError:
            raise ValueError(f"division by zero in {self.text!r}") from None
        except (pint.DimensionalityError, ValueError) as error:  # the latter from comparisons
            raise DimensionError(f"units do not fit in {self.text!r}: {error}") from None

    def evaluate(self, values: Mapping[str, tuple[Array | float, str]]) -> Array:
        """Return the value, in the unit `check_units` reports.

        Parameters
        ----------
        values
            Number (or array of numbers) and unit of every named quantity.
        """
        prepared = {
            name: np.asarray(values[name][0], dtype=float) * _to_root(values[name][1])
            for name in self.names
        }
        result = _evaluate(self._tree, prepared, lambda number, unit: number * _to_root(unit))
        if self.is_comparison:
            return np.asarray(result, dtype=float)
        units = tuple((name, values[name][1]) for name in self._sorted)
        if (unit := self._units.get(units)) is None:
            unit = self._units[units] = self.check_units(dict(units))
        return np.asarray(result, dtype=float) / _to_root(unit)

    def constant(self, unit: str) -> float:
        """Return the number that an expression without quantities stands for, in a unit.

        Raises
        ------
        DimensionError
            If its dimension is another.
        """
        own = self.check_units({})
        if _dimension(own) != _dimension(unit):
            raise DimensionError(
                f"{self.text!r} is in {own or '1'}, where {unit or 'a plain number'} is needed"
            )
        return float(self.evaluate({})) * _to_root(own) / _to_root(unit)


def unit_text(unit: str) -> str:
    """Return a unit in the spelling of the unit library."""
    return unit.replace("^", "**").replace("Å", "angstrom") or "dimensionless"


def unit_hint(word: str) -> str:
    """Say what to write for a word that is no unit."""
    names = _UNIT_NAMES.split("|")
    power = re.fullmatch(rf"({_UNIT_NAMES})(-?\d)", word)
    if power:
        return f"write {power[1]}^{power[2]}"
    by_lower = {name.lower(): name for name in names}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[near[0]]!r}?" if near else f"units are: {', '.join(names)}"


@cache
def _unit_registry() -> pint.UnitRegistry[float]:
    import pint

    registry: pint.UnitRegistry[float] = pint.UnitRegistry()
    registry.define("atom = [atom]")
    return registry


@cache
def _to_root(unit: str) -> float:
    quantity = _unit_registry().Quantity(1.0, unit_text(unit))
    return float(quantity.to_root_units().magnitude)


def _dimension(unit: str) -> str:
    return str(_unit_registry().Quantity(1.0, unit_text(unit)).dimensionality)


def _check(node: ast.AST, text: str) -> set[str]:
    """Refuse everything an expression may not hold, and return the names of its quantities."""
    match node:
        case ast.Name(id=name):
            return {name}
        case ast.Constant(value=(int() | float()) as number) if not isinstance(number, bool):
            if not abs(number) <= sys.float_info.max:
                raise ValueError(f"a number in {text!r} is too large")
            return set()
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _check(operand, text)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            return _check(left, text) | _check(right, text)
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if (
            type(operator) in _OPERATORS
        ):
            return _check(left, text) | _check(right, text)
        case ast.Call(
            func=ast.Name(id="unit"), args=[ast.Constant() as number, ast.Constant(value=str(unit))]
        ) if re.fullmatch(_UNIT, unit.replace("**", "^")):
            return _check(number, text)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if (
            name in FUNCTIONS and (len(arguments) == 1 or (name in ("min", "max") and arguments))
        ):
            return set().union(*(_check(argument, text) for argument in arguments))
        case _:
            part = ast.unparse(node) if isinstance(node, ast.expr) else text
            part = text if "unit(" in part else part
            raise ValueError(
                f"cannot use {part!r} in {text!r}: it may hold quantities, numbers with units, "
                f"+ - * / ^, one comparison, and {', '.join(FUNCTIONS)}"
            )


def _evaluate(
    node: ast.AST, values: Mapping[str, Any], measure: Callable[[float, str], Any]
) -> Any:
    match node:
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=operator, operand=operand):
            inner = _evaluate(operand, values, measure)
            return -inner if isinstance(operator, ast.USub) else inner
        case ast.BinOp(left=left, op=operator, right=right):
            return _OPERATORS[type(operator)](
                _evaluate(left, values, measure), _evaluate(right, values, measure)
            )
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            return _OPERATORS[type(operator)](
                _evaluate(left, values, measure), _evaluate(right, values, measure)
            )
        case ast.Call(
            func=ast.Name(id="unit"), args=[ast.Constant(value=n), ast.Constant(value=u)]
        ):
            return measure(float(str(n)), str(u))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            inner = [_evaluate(argument, values, measure) for argument in arguments]
            if name in ("min", "max") and hasattr(inner[0], "units"):
                return sum(inner[1:], inner[0])  # pint: only the dimension matters here
            return FUNCTIONS[name](*inner)
    raise AssertionError(ast.dump(node))
