"""Expressions: arithmetic with units, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from matloop.documents.expression import Expression, unit_hint

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
        ("max()", "cannot use"),
        ("sqrt(density, density)", "cannot use"),
        ("unit(3, density)", "cannot use"),
        ("unit(3, 'parsec')", "cannot use"),
        ("density + True", "cannot use"),
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
        ("density <= 3", "units do not fit"),
        ("density / 0", "division by zero"),
        ("density^1000", "a number in 'density.1000' is too large"),
        ("hardness", "unknown quantity 'hardness'; the stages produce: bulk_modulus, density"),
    ],
)
def test_dimensions_are_checked(text: str, complaint: str) -> None:
    """Unknown quantities and impossible sums are found before anything runs."""
    with pytest.raises(ValueError, match=complaint):
        Expression(text).check_units(UNITS)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("density + 1e999 g/cm^3", "is too large"),
        (f"density + {'9' * 400}", "is too large"),
        ("(" * 300 + "density" + ")" * 300, "nests too deeply|too many nested parentheses"),
        ("-" * 990 + "density", "nests too deeply"),
        ("density" + " + 1" * 1000, "may have 1000 characters, not 4007"),
    ],
)
def test_what_is_beyond_measure_is_refused(text: str, complaint: str) -> None:
    """Numbers without a value, and expressions without an end, are mistakes and no crashes."""
    with pytest.raises(ValueError, match=complaint):
        Expression(text)


def test_a_tower_of_powers_is_not_computed() -> None:
    """9^9^9^9 has more digits than there are atoms; it counts as infinite, at once."""
    assert np.isinf(Expression("9^9^9^9").evaluate({}))


@pytest.mark.parametrize(
    ("text", "word", "hint"),
    [
        ("density <= 3 g/cm3", "cm3", "write cm^3"),
        ("e_above_hull <= 0.05 eV/aotm", "aotm", "did you mean 'atom'?"),
        ("density <= 3 g/cc", "cc", "units are: meV, keV, eV"),
    ],
)
def test_a_misspelt_unit_is_told_from_a_quantity(text: str, word: str, hint: str) -> None:
    """A word behind a unit is doubted, and there is advice on it."""
    assert Expression(text).units_in_doubt == {word}
    assert unit_hint(word).startswith(hint)


def test_a_misspelt_unit_that_cannot_be_read_is_named() -> None:
    """Where nothing else than a unit can stand, the message names the word."""
    with pytest.raises(ValueError, match="'Gpa' is no unit; did you mean 'GPa'"):
        Expression("bulk_modulus >= 200 Gpa")


def test_units_are_not_in_doubt() -> None:
    """Sound expressions hold no doubtful words."""
    text = "abs(density - 4.2 g/cm^3) / (1 g/cm^3) + 2*bulk_modulus / 3 GPa"
    assert Expression(text).units_in_doubt == set()
