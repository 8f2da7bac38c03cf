"""Distances, cells, chemical space and charge balance."""

import pytest
from pymatgen.core import Lattice, Structure

from matloop import registry
from matloop.errors import ConfigurationError
from matloop.evaluators.rules import Cell, ChargeBalance, InsideSpace, MinimumDistance
from matloop.protocols import Resources

from .conftest import PEROVSKITE, RUTILE, SALT, make_candidate

NOTHING = Resources()


def judge(evaluator, structure):
    """Return the evaluation of one crystal."""
    return evaluator.evaluate([make_candidate("c", structure)], NOTHING)[0]


def dimer(distance, symbols=("Ti", "O")):
    """Return two atoms so far apart (Å) in a large box."""
    return Structure(
        Lattice.cubic(10), symbols, [[0, 0, 0], [distance, 0, 0]], coords_are_cartesian=True
    )


def test_sites_too_close_together_are_rejected_by_name():
    """0.4 Å is below 0.5 Å, 0.6 Å is not; the pair and the distance are in the reason."""
    close, far = judge(MinimumDistance(), dimer(0.4)), judge(MinimumDistance(), dimer(0.6))
    assert (close.verdict, far.verdict) == ("reject", "pass")
    assert "Ti and O are 0.4 Å apart" in close.reason
    assert close.quantities["minimum_distance"].value == pytest.approx(0.4)
    assert close.quantities["minimum_distance"].unit == "Å"


def test_the_relative_threshold_knows_how_large_atoms_are():
    """1.2 Å is a long way for C-O and an overlap for Cs-Cs."""
    rule = MinimumDistance(relative=0.6)
    assert judge(rule, dimer(1.2, ("C", "O"))).verdict == "pass"
    overlap = judge(rule, dimer(1.2, ("Cs", "Cs")))
    assert overlap.verdict == "reject"
    assert "0.25 of the sum of their covalent radii" in overlap.reason


def test_a_site_may_be_too_close_to_its_own_image():
    """A cell 0.4 Å thin brings one atom too close to itself."""
    thin = Structure(Lattice.orthorhombic(0.4, 6, 6), ["Cu"], [[0, 0, 0]])
    evaluation = judge(MinimumDistance(), thin)
    assert evaluation.verdict == "reject"
    assert "Cu and its image" in evaluation.reason


def test_a_sound_cell_passes_with_its_density():
    """Cubic SrTiO3: 5.11 g/cm^3 and 11.9 Å^3 per atom."""
    evaluation = judge(Cell(), PEROVSKITE)
    assert evaluation.verdict == "pass"
    assert evaluation.quantities["density"].value == pytest.approx(5.11, abs=0.02)
    assert evaluation.quantities["volume_per_atom"].value == pytest.approx(3.905**3 / 5)


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        (Structure(Lattice.cubic(1.2), ["Li"], [[0, 0, 0]]), "volume per atom is 1.73 Å^3"),
        (Structure(Lattice.cubic(12), ["Cs"], [[0, 0, 0]]), "allowed are 2 to 150"),
        (Structure(Lattice.cubic(2), ["W"], [[0, 0, 0]]), "density is 38.2 g/cm^3"),
        (Structure(Lattice.orthorhombic(2, 2, 60), ["O"] * 20, [[0, 0, 0]] * 20), "aspect is 30"),
        (Structure(Lattice.cubic(30), ["Na"] * 500, [[0, 0, 0]] * 500), "500 atoms"),
    ],
)
def test_absurd_cells_are_rejected_with_the_number(structure, words):
    """Crowded, empty, heavy, elongated and huge cells: the reason holds value and limit."""
    evaluation = judge(Cell(), structure)
    assert evaluation.verdict == "reject"
    assert words in evaluation.reason


def test_a_cell_of_skewed_vectors_is_judged_by_its_shape():
    """The same cube written with long oblique vectors passes all the same."""
    skew = PEROVSKITE * [[1, 0, 0], [9, 1, 0], [-7, 8, 1]]
    assert judge(Cell(), skew).verdict == "pass"


def test_the_space_is_enforced():
    """Strange elements, too many atoms and too few elements are each told apart."""
    space = InsideSpace(system="Sr-Ti-O", min_elements=2, max_atoms=8)
    assert judge(space, PEROVSKITE).verdict == "pass"
    element = Structure(Lattice.cubic(3), ["Ti"], [[0, 0, 0]])
    assert "1 elements" in judge(space, element).reason
    stranger = PEROVSKITE.copy()
    stranger.replace(0, "Ba")
    assert "Ba, outside" in judge(space, stranger).reason
    big = PEROVSKITE * [2, 1, 1]
    big.replace(0, "Ti")  # no longer a repeat of five atoms
    assert "10 atoms" in judge(space, big).reason


def test_atoms_are_counted_in_the_primitive_cell():
    """Forty atoms that repeat the same five are five."""
    space = InsideSpace(system="Sr-Ti-O", min_atoms=5, max_atoms=5)
    assert judge(space, PEROVSKITE * [2, 2, 2]).verdict == "pass"


def test_a_space_that_requires_charge_balance_rejects_what_is_unbalanced():
    """Sr3O lies in the system and balances nothing; without the rule it passes."""
    crystal = Structure(
        Lattice.cubic(5), ["Sr"] * 3 + ["O"], [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0, 0, 0]]
    )
    strict = InsideSpace(system="Sr-O", charge_balance="required")
    assert "balance Sr3O" in judge(strict, crystal).reason
    assert judge(InsideSpace(system="Sr-O"), crystal).verdict == "pass"


def test_an_impossible_space_is_refused_when_it_is_written():
    """An empty space and an unknown element are the user's mistakes, not the candidates'."""
    for parameters in ({}, {"system": "Sr-Xx"}, {"system": "Sr-O", "deny": ["Sr", "O"]}):
        with pytest.raises(ConfigurationError):
            registry.build("evaluators", "chemical_space", parameters)
    with pytest.raises(ConfigurationError, match="relative"):
        registry.build("evaluators", "minimum_distance", {"relative": 5.0})
    with pytest.raises(ConfigurationError, match="max_atoms"):
        registry.build("evaluators", "cell", {"max_atoms": "many"})


def test_charge_balance_names_the_states_or_rejects():
    """TiO2 as Ti4+ and O2-; Sr3O not at all; reject off only marks it."""
    good = judge(ChargeBalance(), RUTILE)
    assert (good.verdict, good.quantities["charge_balanced"].value) == ("pass", 1.0)
    assert "Ti+4 O-2" in good.reason
    crystal = SALT * [3, 1, 1]
    crystal.remove_sites([i for i, site in enumerate(crystal) if site.species_string == "O"][:2])
    for evaluator, verdict in ((ChargeBalance(), "reject"), (ChargeBalance(reject=False), "pass")):
        evaluation = judge(evaluator, crystal)
        assert (evaluation.verdict, evaluation.quantities["charge_balanced"].value) == (verdict, 0)
        assert "Sr3O" in evaluation.reason


def test_alloys_and_elements_need_no_charges():
    """The field's definition: metals alone and single elements count as balanced."""
    alloy = Structure(Lattice.cubic(2.9), ["Al", "Ni"], [[0, 0, 0], [0.5] * 3])
    evaluation = judge(ChargeBalance(), alloy)
    assert evaluation.verdict == "pass"
    assert "needs no charges" in evaluation.reason
