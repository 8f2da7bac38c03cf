"""The space group as a quantity."""

import numpy as np
from pymatgen.core import Lattice, Structure

from matloop.evaluators.symmetry import Symmetry
from matloop.protocols import Resources

from .conftest import PEROVSKITE, RUTILE, make_candidate, poisoned


def judge(evaluator, structure):
    """Return the evaluation of one crystal."""
    return evaluator.evaluate([make_candidate("c", structure)], Resources())[0]


def test_the_space_group_and_its_tolerance_are_reported():
    """Perovskite is Pm-3m, number 221, within the tolerance asked for."""
    evaluation = judge(Symmetry(symprec=0.05), PEROVSKITE)
    assert evaluation.verdict == "pass"
    assert evaluation.quantities["space_group"].value == 221
    assert evaluation.quantities["symprec"].value == 0.05
    assert "Pm-3m" in evaluation.reason


def test_low_symmetry_passes_unless_a_lowest_group_is_asked_for():
    """A triclinic crystal passes by default, and is rejected where cubic ones are wanted."""
    rng = np.random.default_rng(0)
    triclinic = Structure(
        Lattice.from_parameters(4, 5, 6, 80, 85, 75), ["Sr", "Ti", "O"], rng.random((3, 3))
    )
    assert judge(Symmetry(), triclinic).verdict == "pass"
    cubic = Symmetry(min_space_group=195)
    assert judge(cubic, triclinic).verdict == "reject"
    assert judge(cubic, RUTILE).verdict == "reject"
    assert judge(cubic, PEROVSKITE).verdict == "pass"


def test_what_has_no_symmetry_fails_and_is_never_called_triclinic():
    """A broken crystal has no space group, not number 1."""
    evaluation = judge(Symmetry(), poisoned()[0])
    assert evaluation.verdict == "fail"
    assert evaluation.quantities == {}
