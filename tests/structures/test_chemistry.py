"""Charge balance, and the compositions of a chemical space."""

import hashlib
import itertools
import time

import numpy as np
import pytest
from pymatgen.core import Composition, Element, Lattice, Species, Structure
from smact.screening import smact_validity

from matloop.documents.candidate import structure_digest
from matloop.documents.space import ChemicalSpace
from matloop.structures import chemistry
from matloop.structures.chemistry import (
    balanced_states,
    compositions,
    is_charge_balanced,
    reduced_formula,
)


@pytest.mark.parametrize(
    ("formula", "balanced"),
    [
        ("SrTiO3", True),
        ("Sr2Ti2O6", True),  # not the reduced formula
        ("Sr3O", False),
        ("NaCl2", False),
        ("Fe2O3", True),
        ("Al3Ni", True),  # metals alone
        ("S", True),  # one element
        ("HeO", False),  # no known states of helium
    ],
)
def test_known_compounds_balance_and_wrong_ones_do_not(formula, balanced):
    """Textbook compounds pass; one oxygen more or less fails."""
    assert is_charge_balanced(Composition(formula)) is balanced


def test_the_older_rules_are_wider():
    """Ti- counts as known in the older list and not in the ICSD: Ti4MnO passes only there."""
    assert is_charge_balanced(Composition("Ti4MnO"), "smact14")
    assert not is_charge_balanced(Composition("Ti4MnO"), "icsd24")


def test_the_states_that_balance_are_named():
    """SrTiO3 is balanced by Sr2+, Ti4+ and O2-, an alloy by nothing."""
    assert balanced_states(Composition("SrTiO3")) == {"Sr": 2, "Ti": 4, "O": -2}
    assert balanced_states(Composition("Al3Ni")) is None


def test_oxidation_states_on_the_sites_change_nothing():
    """A composition decorated with charges is judged like the bare one."""
    assert is_charge_balanced(Composition({"Sr2+": 1, "Ti4+": 1, "O2-": 3}))


@pytest.mark.parametrize("rules", ["icsd24", "smact14"])
@pytest.mark.parametrize("system", ["Li-Fe-O", "Ti-N-Cl", "Ca-Al-Ni", "Kr-F-O"])
def test_the_balanced_compositions_are_those_that_smact_accepts(system, rules):
    """The enumeration agrees with SMACT's own test on every content of up to eight atoms."""
    free = compositions(ChemicalSpace(system=system, max_atoms=8))
    strict = compositions(
        ChemicalSpace(system=system, max_atoms=8, charge_balance="required"), rules
    )
    states = None if rules == "icsd24" else rules
    accepted = [
        content
        for content in free
        if smact_validity(content.reduced_composition, oxidation_states_set=states)
    ]
    assert strict == accepted
    assert 0 < len(strict) <= len(free)


def test_a_space_is_enumerated_whole_and_in_order():
    """Three to six atoms of two or three elements: every content once, small ones first."""
    space = ChemicalSpace(system="Sr-Ti-O", min_elements=2, min_atoms=3, max_atoms=6)
    found = compositions(space)
    expected = {
        counts
        for counts in itertools.product(range(7), repeat=3)
        if 3 <= sum(counts) <= 6 and sum(count > 0 for count in counts) >= 2
    }
    assert {tuple(int(c[e]) for e in space.allowed) for c in found} == expected
    assert len(found) == len(expected)
    sizes = [content.num_atoms for content in found]
    assert sizes == sorted(sizes)
    assert all(space.objection(content) is None for content in found)


def test_a_vast_space_is_sampled_evenly_and_repeatably():
    """Of 24 elements only some contents are drawn, the same ones each time, all inside."""
    symbols = tuple(
        str(Element.from_Z(number)) for number in (3, 8, 9, 11, 12, 16, 17, *range(19, 36))
    )
    space = ChemicalSpace(elements=symbols, max_elements=4, max_atoms=12)
    started = time.perf_counter()
    found = compositions(space, limit=2000)
    assert time.perf_counter() - started < 60
    assert len(found) == 2000 == len(set(found))
    assert all(space.objection(content) is None for content in found)
    assert {e.symbol for content in found for e in content} == set(symbols)
    chemistry._compositions.cache_clear()
    assert compositions(space, limit=2000) == found


def test_sampling_follows_the_order_of_the_enumeration():
    """The drawn contents of a space are a subset of all of them, in the same order."""
    space = ChemicalSpace(system="Li-Fe-P-O", max_atoms=9)
    everything = compositions(space)
    places = {content: place for place, content in enumerate(everything)}
    drawn = [places[content] for content in compositions(space, limit=100)]
    assert len(drawn) == 100
    assert drawn == sorted(set(drawn))


def test_a_formula_is_asked_of_smact_once(monkeypatch):
    """Multiples, orders and charges of one formula share one answer; another rule set does not."""
    import smact.screening

    asked = []

    def counted(composition, **options):
        asked.append(composition.reduced_formula)
        return smact_validity(composition, **options)

    monkeypatch.setattr(smact.screening, "smact_validity", counted)
    chemistry._is_balanced.cache_clear()
    for formula in ("Ba2TiO4", "Ti2Ba4O8", "O4Ba2Ti"):
        assert is_charge_balanced(Composition(formula))
    assert is_charge_balanced(Composition({"Ba2+": 2, "Ti4+": 1, "O2-": 4}))
    assert asked == ["Ba2TiO4"]
    assert is_charge_balanced(Composition("Ba2TiO4"), "smact14")
    assert len(asked) == 2


@pytest.mark.parametrize(
    "species",
    [
        [],
        ["Ti", "Sr", "O", "O", "O"],
        ["D", "H", "H", "O"],
        [Species("Fe", 2), Species("Fe", 3), "O"],
        [{"Al": 0.5, "Ni": 0.5}, "Al"],
        [{"Al": 0.7}, "Ni"],
    ],
)
def test_the_formula_of_a_crystal_is_that_of_its_composition(species: list[object]) -> None:
    """Elements are counted without making a composition; all else is left to pymatgen."""
    rng = np.random.default_rng(1)
    crystal = Structure(Lattice.cubic(5.0), species, rng.random((len(species), 3)))
    assert reduced_formula(crystal) == crystal.composition.reduced_formula
    names = ",".join(site.species_string for site in crystal)
    numbers = np.concatenate([crystal.lattice.matrix.ravel(), crystal.frac_coords.ravel() % 1.0])
    said = (np.round(numbers, 6) + 0.0).tobytes() + names.encode()
    assert structure_digest(crystal) == hashlib.sha256(said).hexdigest()
