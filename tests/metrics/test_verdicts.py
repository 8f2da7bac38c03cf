"""Validity, symmetry and sameness of single samples."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.metrics.verdicts import judge_alone, mark_known, mark_repeats, structurally_valid
from matloop.structures.identity import Matcher

from .conftest import fcc, ordered, records

QUARTERS = (0.25, 0.5, 0.75)


def rock_salt(cation: str, anion: str, length: float) -> Structure:
    """Return rock salt."""
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(length), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


@pytest.mark.parametrize(
    ("distance", "valid"), [(0.49, False), (0.51, True)], ids=["closer", "farther"]
)
def test_half_an_angstrom_decides(distance: float, valid: bool) -> None:
    """Two sites closer than 0.5 Å make a crystal invalid, through the cell's wall too."""
    crystal = Structure(Lattice.cubic(4), ["C", "C"], [[0, 0, 0.01], [0, 0, 0.01 - distance / 4]])
    assert structurally_valid(crystal) is valid


def test_an_own_image_counts() -> None:
    """A lattice vector shorter than 0.5 Å is a site on top of its own image."""
    assert not structurally_valid(Structure(Lattice.orthorhombic(0.4, 4, 4), ["C"], [[0, 0, 0]]))


def test_what_cannot_be_read_is_nothing() -> None:
    """A sample without a structure is invalid in every way and has no symmetry."""
    (verdict,) = judge_alone(records({"broken": None}), 0.1)
    assert verdict.problem
    assert not verdict.structural_validity
    assert not verdict.smact_validity
    assert not verdict.smact_validity_legacy
    assert verdict.space_group is None
    assert not verdict.template


def test_a_damaged_crystal_keeps_its_composition() -> None:
    """Composition is judged by itself, as in CDVAE: sites on top of each other do not matter."""
    salt = rock_salt("Na", "Cl", 5.64)
    salt.append("Na", [0.01, 0, 0])
    salt.append("Cl", [0.51, 0, 0])
    (verdict,) = judge_alone(records({"salt": salt}), 0.1)
    assert not verdict.structural_validity
    assert verdict.smact_validity
    assert verdict.formula == "NaCl"


def test_the_two_rules_differ() -> None:
    """KTlF3 is neutral by the current rules only (Tl 2+), MgScI2 by the older ones (Sc 1+)."""
    crystals = {
        "fluoride": Structure(
            Lattice.cubic(4.6),
            ["K", "Tl", "F", "F", "F"],
            [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        ),
        "iodide": Structure(
            Lattice.cubic(5), ["Mg", "Sc", "I", "I"], [[0, 0, 0], *([x, x, x] for x in QUARTERS)]
        ),
    }
    fluoride, iodide = judge_alone(records(crystals), 0.1)
    assert (fluoride.smact_validity, fluoride.smact_validity_legacy) == (True, False)
    assert (iodide.smact_validity, iodide.smact_validity_legacy) == (False, True)


def test_templates_name_the_structure_type() -> None:
    """MgO and NaCl share a template, whatever cell they are given in; CsCl has another."""
    crystals = {
        "MgO": rock_salt("Mg", "O", 4.21),
        "NaCl": rock_salt("Na", "Cl", 5.64).get_primitive_structure(),
        "CsCl": Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    }
    magnesia, halite, caesium = judge_alone(records(crystals), 0.1)
    assert magnesia.template == halite.template == "AB_225_ab"
    assert caesium.template == "AB_221_ab"


def test_repeats_are_counted_once() -> None:
    """The first of equal crystals is unique, strained or enlarged copies are not."""
    copper = fcc("Cu", 3.6)
    structures = [copper, copper * (1, 1, 2), fcc("Cu", 3.8), ordered("Au", "Cu", 3.7), None]
    found = mark_repeats(structures, ["a", "b", "c", "d", "e"], Matcher())
    assert found == [(True, ""), (False, "a"), (False, "a"), (True, ""), (False, "")]


def test_novel_is_what_no_reference_matches() -> None:
    """A rattled copy of a known crystal is known; another order of the same atoms is new."""
    known = [("auricupride", ordered("Au", "Cu", 3.75))]
    rattled = ordered("Au", "Cu", 3.7)
    rattled.perturb(0.05)
    layered = Structure(
        Lattice.tetragonal(2.65, 7.4),
        ["Au", "Cu", "Cu", "Cu"],
        np.array([[0, 0, 0], [0.5, 0.5, 0.25], [0, 0, 0.5], [0.5, 0.5, 0.75]]),
    )
    assert mark_known([rattled, layered, None], known, Matcher()) == [
        (False, "auricupride"),
        (True, ""),
        (False, ""),
    ]
