"""Objectives: utility, feasible set, discovery."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from matloop.documents.candidate import Quantity
from matloop.documents.expression import DimensionError
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
        {"minimize": ["a", "a"]},
        {"minimize": ["a", "b"], "maximize": ["c", "d"]},
        {"minimize": ["a", "b <= 1"]},
        {"minimize": ["a", 1]},
        {"minimize": "a", "reference": {"a": "1"}},
        {"minimize": ["a", "b"], "reference": {"a": "1"}},
        {"minimize": ["a", "b"], "reference": {"a": "1", "b": "c"}},
        {"minimize": "e_above_hull <= 1 eV/atom"},
        {"minimize": "e_above_hull", "discovery": "e_above_hull"},
        {"minimize": "e_above_hull", "constraints": ("density",)},
    ],
)
def test_nonsense_is_refused(fields: dict) -> None:
    """No direction, unclear goals, and comparisons in the wrong place are refused."""
    with pytest.raises(ValidationError):
        Objective(**fields)


BOTH = Objective(
    minimize="e_above_hull",
    maximize=("bulk_modulus",),
    reference={"e_above_hull": "300 meV/atom", "bulk_modulus": "50000 MPa"},
    constraints=("e_above_hull <= 0.5 eV/atom",),
)


def test_several_goals_make_ranks_instead_of_a_utility() -> None:
    """Two on the front are equal, one dominated by both has -2, an infeasible one comes last."""
    batch = [
        known(e_above_hull=0.0, bulk_modulus=100.0),
        known(e_above_hull=0.1, bulk_modulus=200.0),
        known(e_above_hull=0.2, bulk_modulus=90.0),
        known(e_above_hull=0.6, bulk_modulus=900.0),
        known(bulk_modulus=900.0),
    ]
    assert BOTH.several
    assert not STIFF.several
    np.testing.assert_array_equal(BOTH.utilities_of(batch), [0.0, 0.0, -2.0, -3.0, np.nan])
    assert BOTH.utility(batch[0]) is None
    np.testing.assert_array_equal(BOTH.gains_of(batch)[1], [-0.1, 200.0])


def test_the_reference_point_is_in_the_units_of_the_goals() -> None:
    """300 meV/atom are 0.3 eV/atom, to be undercut; a value in another kind of unit is refused."""
    units = {"bulk_modulus": "GPa", "e_above_hull": "eV/atom"}
    assert BOTH.worst(units) == pytest.approx([-0.3, 50.0])
    wrong = BOTH.model_copy(update={"reference": {**BOTH.reference, "bulk_modulus": "50 eV"}})
    with pytest.raises(DimensionError, match="is in eV, where GPa is needed"):
        wrong.worst(units)


def test_a_list_of_one_is_one_goal() -> None:
    """It is stored as it always was."""
    assert Objective(minimize=["e_above_hull"]) == Objective(minimize="e_above_hull")
    assert Objective.model_validate_json(BOTH.model_dump_json()) == BOTH
