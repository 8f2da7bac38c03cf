"""Expressions: arithmetic with units, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from matloop.documents.expression import Expression

UNITS = {"e_above_hull": "eV/atom", "density": "g/cm^3", "bulk_modulus": "GPa"}


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("density", {"density": (4.2, "g/cm^3")}, 4.2),
        ("2 * density - 1 g/cm^3", {"density": (4.2, "g/cm^3")}, 7.4),
        ("density <= 4200 kg/m^3", {"density": (4.1, "g/cm^3")}, 1.0),
        ("e_above_hull / (50 meV/atom)", {"e_above_hull": (0.1, "eV/atom")}, 2.0),
        ("max(e_above_hull, 0 eV/atom)", {"e_above_hull": (-0.1, "eV/atom")}, 0.0),
        ("abs(density - 4 g/cm^3) / (1 g/cm^3)", {"density": (3.5, "g/cm^3")}, 0.5),
        ("exp(-(density / (1 g/cm^3))^2)", {"density": (0.0, "g/cm^3")}, 1.0),
        ("bulk_modulus >= 2000 kbar", {"bulk_modulus": (201.0, "GPa")}, 1.0),
    ],
)
def test_values_and_units(text: str, values: dict, expected: float) -> None:
    """An expression has the value that a physicist would write down."""
    assert float(Expression(text).evaluate(values)) == pytest.approx(expected, abs=1e-12)


def test_arrays_are_evaluated_at_once() -> None:
    """An array of quantities gives the array of values."""
    result = Expression("-density").evaluate({"density": (np.array([1.0, 2.0]), "g/cm^3")})
    assert result.tolist() == [-1.0, -2.0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("__import__('os').system('true')", "cannot use"),
        ("density.real", "cannot use"),
        ("[density]", "cannot use"),
        ("density if density else 1", "cannot use"),
        ("density >", "cannot read"),
        ("1 < density < 2", "cannot use"),
        ("density(3)", "cannot use"),
    ],
)
def test_code_is_refused(text: str, complaint: str) -> None:
    """Whatever is not arithmetic is refused when read, so that nothing is ever executed."""
    with pytest.raises(ValueError, match=complaint):
        Expression(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("e_above_hull <= 3 GPa", "units do not fit"),
        ("density + bulk_modulus", "units do not fit"),
        ("exp(density)", "units do not fit"),
        ("hardness", "unknown quantity 'hardness'; the stages produce: bulk_modulus, density"),
    ],
)
def test_dimensions_are_checked(text: str, complaint: str) -> None:
    """Unknown quantities and impossible sums are found before anything runs."""
    with pytest.raises(ValueError, match=complaint):
        Expression(text).check_units(UNITS)
