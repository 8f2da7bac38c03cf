"""Readable expressions of quantities with units: ``abs(density - 4.2 g/cm^3) / (1 g/cm^3)``.

An expression is data, not code: only arithmetic, comparisons, a few functions, numbers with units
and names of quantities are understood; nothing is ever executed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
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
    ast.Pow: lambda a, b: a**b,
    ast.LtE: lambda a, b: a <= b,
    ast.GtE: lambda a, b: a >= b,
    ast.Lt: lambda a, b: a < b,
    ast.Gt: lambda a, b: a > b,
}
# A unit follows its number: ``0.05 eV/atom``, ``3 g/cm^3``. A name after ``*`` is a quantity.
_UNIT_NAMES = "meV|keV|eV|kJ|kg|mg|g|GPa|MPa|kbar|angstrom|Å|nm|cm|m|K|mol|atom|hour|s"
_UNIT = rf"(?:{_UNIT_NAMES})(?:\^-?\d+)?(?:[/*](?:{_UNIT_NAMES})(?:\^-?\d+)?)*"
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?"
_MEASURED = re.compile(rf"(?<![\w.])({_NUMBER})\s*({_UNIT})(?![\w(])")


class Expression:
    """A parsed expression.

    Parameters
    ----------
    text
        The expression as written.

    Raises
    ------
    ValueError
        If the text is no expression; the message says where.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        prepared = _MEASURED.sub(r'unit(\1, "\2")', text).replace("^", "**")
        try:
            self._tree = ast.parse(prepared.strip(), mode="eval").body
        except SyntaxError as error:
            raise ValueError(f"cannot read the expression {text!r}: {error.msg}") from None
        self.names: frozenset[str] = frozenset(_check(self._tree, text))

    @property
    def is_comparison(self) -> bool:
        """Whether the expression is true or false rather than a number."""
        return isinstance(self._tree, ast.Compare)

    def check_units(self, units: Mapping[str, str]) -> str:
        """Check names and dimensions, and return the unit of the result.

        Parameters
        ----------
        units
            Unit of every quantity that may be named.

        Raises
        ------
        ValueError
            If a quantity is unknown or the dimensions do not fit.
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
        except pint.DimensionalityError as error:
            raise ValueError(f"units do not fit in {self.text!r}: {error}") from None
        except ZeroDivisionError:
            raise ValueError(f"division by zero in {self.text!r}") from None
        if not hasattr(result, "units") or result.dimensionless:
            return ""
        return f"{result.units:~}"

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
        unit = self.check_units({name: values[name][1] for name in self.names})
        return np.asarray(result, dtype=float) / _to_root(unit)


def unit_text(unit: str) -> str:
    """Return a unit in the spelling of the unit library."""
    return unit.replace("^", "**").replace("Å", "angstrom") or "dimensionless"


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


def _check(node: ast.AST, text: str) -> set[str]:
    """Refuse everything an expression may not hold, and return the names of its quantities."""
    match node:
        case ast.Name(id=name):
            return {name}
        case ast.Constant(value=int() | float()):
            return set()
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _check(operand, text)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            return _check(left, text) | _check(right, text)
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if (
            type(operator) in _OPERATORS
        ):
            return _check(left, text) | _check(right, text)
        case ast.Call(func=ast.Name(id="unit")):
            return set()
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return set().union(*(_check(argument, text) for argument in arguments))
        case _:
            part = ast.unparse(node) if isinstance(node, ast.expr) else text
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
