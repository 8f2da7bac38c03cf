"""Objectives: utility, feasible set, discovery."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from matloop.documents.candidate import Quantity
from matloop.documents.objective import Objective

STIFF = Objective(
    maximize="bulk_modulus",
    constraints=("e_above_hull <= 0.1 eV/atom",),
    discovery="bulk_modulus >= 200 GPa",
)


def known(**values: float) -> dict[str, Quantity]:
    units = {"bulk_modulus": "GPa", "e_above_hull": "eV/atom"}
    return {name: Quantity(value=value, unit=units[name]) for name, value in values.items()}


def test_utility_grows_in_the_wanted_direction() -> None:
    """Maximising keeps the sign, minimising turns it; a missing quantity leaves it unknown."""
    assert STIFF.utility(known(bulk_modulus=250.0)) == pytest.approx(250.0)
    assert Objective(minimize="e_above_hull").utility(known(e_above_hull=0.1)) == -0.1
    assert STIFF.utility(known(e_above_hull=0.1)) is None


def test_a_discovery_is_feasible_and_known() -> None:
    """A stiff crystal is a discovery only if its hull distance is known and small enough."""
    assert STIFF.is_discovery(known(bulk_modulus=250.0, e_above_hull=0.05))
    assert not STIFF.is_discovery(known(bulk_modulus=250.0, e_above_hull=0.2))
    assert not STIFF.is_discovery(known(bulk_modulus=250.0))
    assert STIFF.violated(known(e_above_hull=0.2)) == "e_above_hull <= 0.1 eV/atom"
    assert STIFF.violated(known(bulk_modulus=1.0)) is None


def test_feasibility_of_samples() -> None:
    """Feasibility of an array is one where all known constraints hold."""
    values = {"e_above_hull": (np.array([0.05, 0.2]), "eV/atom")}
    assert STIFF.feasibilities(values).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"minimize": "a", "maximize": "b"},
        {"minimize": "e_above_hull <= 1 eV/atom"},
        {"minimize": "e_above_hull", "discovery": "e_above_hull"},
        {"minimize": "e_above_hull", "constraints": ("density",)},
    ],
)
def test_nonsense_is_refused(fields: dict) -> None:
    """No direction, two directions, and comparisons in the wrong place are refused."""
    with pytest.raises(ValidationError):
        Objective(**fields)
