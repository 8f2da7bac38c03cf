"""Hulls against pymatgen's, their errors, and their meaning."""

import itertools
import random

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure

from matloop.documents.phase import Phase, PhaseSet
from matloop.documents.theory import LevelOfTheory
from matloop.errors import MissingReferenceError, TheoryMismatchError
from matloop.structures import facets
from matloop.structures.phase_diagram import Hull, Point

THEORY = LevelOfTheory(kind="mlip", code="toy", version="1", model="toy")


def random_points(elements, count, seed):
    """Return elements with random energies, and compounds around the plane they span."""
    rng = random.Random(seed)
    points = [Point(element, Composition(element), rng.uniform(-8, -1)) for element in elements]
    references = {point.phase_id: point.energy for point in points}
    for index in range(count):
        chosen = rng.sample(elements, rng.randint(1, len(elements)))
        content = Composition({element: rng.randint(1, 6) for element in chosen})
        plane = sum(content.get_atomic_fraction(e) * references[e.symbol] for e in content)
        points.append(Point(f"p{index}", content, plane + rng.uniform(-0.8, 0.5)))
    return points


def reference_diagram(points):
    """Return pymatgen's phase diagram of the same points."""
    return PhaseDiagram(
        [PDEntry(p.composition, p.energy * p.composition.num_atoms) for p in points]
    )


def random_contents(elements, count, seed):
    """Return random compositions of the system and of its subsystems."""
    rng = random.Random(seed)
    return [
        Composition({e: rng.uniform(0.01, 1) for e in rng.sample(elements, rng.randint(1, n))})
        for n in [len(elements)] * count
    ]


SYSTEMS = [
    ["Na", "Cl"],
    ["Sr", "Ti", "O"],
    ["Li", "Fe", "P", "O"],
    ["Na", "Ca", "Al", "Si", "O"],
    ["Li", "Mn", "Ni", "Co", "O", "F"],
]


@pytest.mark.parametrize("elements", SYSTEMS, ids="-".join)
def test_energies_and_stable_phases_are_those_of_pymatgen(elements):
    """Two to six elements, subsystems included: hull energies agree to 1e-9 eV/atom."""
    points = random_points(elements, 20 * len(elements), seed=len(elements))
    ours, theirs = Hull.from_points(points, "toy"), reference_diagram(points)
    contents = random_contents(elements, 60, seed=1) + [point.composition for point in points]
    expected = [theirs.get_hull_energy_per_atom(content) for content in contents]
    np.testing.assert_allclose(ours.energies(contents), expected, atol=1e-9)
    stable = {Composition(e.composition.reduced_formula) for e in theirs.stable_entries}
    named = {point.phase_id: point.composition for point in points}
    assert {
        Composition(named[phase].reduced_formula) for phase in ours.stable_phases(elements)
    } == stable
    for entry in theirs.all_entries:
        formation = ours.formation_energy(entry.composition, entry.energy_per_atom)
        assert formation == pytest.approx(theirs.get_form_energy_per_atom(entry), abs=1e-9)


@pytest.mark.parametrize("elements", SYSTEMS, ids="-".join)
def test_a_decomposition_conserves_atoms_and_has_the_energy_of_the_hull(elements):
    """Shares add up to one, mix to the composition asked for, and cost what the hull says."""
    points = random_points(elements, 15 * len(elements), seed=3)
    hull = Hull.from_points(points, "toy")
    named = {point.phase_id: point for point in points}
    for content in random_contents(elements, 25, seed=2):
        shares = hull.decomposition(content)
        assert sum(shares.values()) == pytest.approx(1)
        assert len(shares) <= len(content)
        mixed = sum(
            (named[p].composition.fractional_composition * s for p, s in shares.items()),
            Composition({}),
        )
        for element in content:
            assert mixed[element] == pytest.approx(content.get_atomic_fraction(element), abs=1e-7)
        energy = sum(named[p].energy * share for p, share in shares.items())
        assert energy == pytest.approx(hull.energy(content), abs=1e-8)


def test_facets_and_linear_programming_agree(monkeypatch):
    """What large systems are solved with gives the same numbers on a small one."""
    points = random_points(SYSTEMS[3], 80, seed=5)
    contents = random_contents(SYSTEMS[3], 40, seed=6)
    by_facets = Hull.from_points(points, "toy").energies(contents)
    monkeypatch.setattr(facets, "MAX_FACET_ELEMENTS", 1)
    by_programme = Hull.from_points(points, "toy").energies(contents)
    np.testing.assert_allclose(by_facets, by_programme, atol=1e-9)


def test_eight_elements_are_answered():
    """Beyond the facet limit energies still agree with pymatgen's decomposition."""
    elements = ["Li", "Na", "Mg", "Al", "Fe", "O", "F", "S"]
    points = random_points(elements, 30, seed=8)
    hull = Hull.from_points(points, "toy")
    content = Composition(dict.fromkeys(elements, 1))
    expected = reference_diagram(points).get_hull_energy_per_atom(content)
    assert hull.energy(content) == pytest.approx(expected, abs=1e-8)


def test_a_hull_without_compounds_is_the_plane_of_the_elements():
    """With the elements alone, the distance of a compound is its formation energy."""
    hull = Hull.from_points(
        [Point("Na", Composition("Na"), -1.3), Point("Cl", Composition("Cl2"), -1.8)], "toy"
    )
    salt = Composition("NaCl")
    assert hull.distance(salt, -3.4) == pytest.approx(-3.4 + 1.55)
    assert hull.distance(salt, -3.4) == hull.formation_energy(salt, -3.4)
    assert hull.decomposition(salt) == pytest.approx({"Na": 0.5, "Cl": 0.5})


def test_the_sign_says_above_or_below():
    """A phase on the hull has distance zero, a better one is negative, a worse one positive."""
    points = random_points(["Sr", "Ti", "O"], 40, seed=9)
    hull = Hull.from_points(points, "toy")
    best = hull.stable_phases(["Sr", "Ti", "O"])[-1]
    point = next(point for point in points if point.phase_id == best)
    for shift in (-0.2, 0.0, 0.3):
        distance = hull.distance(point.composition, point.energy + shift)
        assert distance == pytest.approx(shift, abs=1e-9)


def test_energies_do_not_depend_on_the_order_of_phases_or_questions():
    """Shuffled phases and questions give the same numbers."""
    points = random_points(SYSTEMS[2], 60, seed=4)
    contents = random_contents(SYSTEMS[2], 20, seed=4)
    first = Hull.from_points(points, "toy").energies(contents)
    second = Hull.from_points(points[::-1], "toy").energies(contents[::-1])[::-1]
    np.testing.assert_allclose(first, second, atol=1e-12)


def test_a_missing_element_is_named_with_what_to_do():
    """Without elemental oxygen nothing with oxygen has a distance, and the message says so."""
    hull = Hull.from_points(
        [Point("Ti", Composition("Ti"), -7.8), Point("TiO2", Composition("TiO2"), -8.9)], "toy"
    )
    assert hull.missing(["Ti", "O"]) == ["O"]
    questions = (
        lambda: hull.energy(Composition("TiO")),
        lambda: hull.decomposition(Composition("TiO")),
        lambda: hull.formation_energy(Composition("TiO"), -8.0),
    )
    for question in questions:
        with pytest.raises(MissingReferenceError, match=r"of O is known.*add a crystal"):
            question()


def phase(name, formula, energy, theory=THEORY, source="reference"):
    """Return a phase whose crystal is a mere carrier of its composition."""
    species = [e.symbol for e, n in Composition(formula).items() for _ in range(int(n))]
    coords = np.linspace(0, 0.9, len(species))[:, None] * np.ones(3)
    structure = Structure(Lattice.cubic(4), species, coords)
    return Phase(phase_id=name, structure=structure, energy=energy, theory=theory, source=source)


def test_energies_of_two_theories_never_meet():
    """A key other than the hull's is refused for every question about an energy."""
    phases = (phase("Na", "Na", -1.3), phase("Cl", "Cl", -1.8), phase("salt", "NaCl", -3.4))
    hull = Hull(PhaseSet(theory=THEORY, phases=phases))
    salt = Composition("NaCl")
    assert hull.distance(salt, -3.3, theory=THEORY.key) == pytest.approx(0.1)
    assert hull.decomposition(salt) == pytest.approx({"salt": 1.0})
    for question in (hull.distance, hull.formation_energy):
        with pytest.raises(TheoryMismatchError, match="same method"):
            question(salt, -3.3, theory="vasp-PBE@0123456789")


def test_the_lowest_of_several_polymorphs_counts():
    """Of three forms of one element the most stable is the reference."""
    points = [
        Point(name, Composition("C"), e) for name, e in (("a", -9.1), ("b", -9.3), ("c", -9.2))
    ]
    hull = Hull.from_points(points, "toy")
    assert hull.energy(Composition("C8")) == -9.3
    assert hull.decomposition(Composition("C")) == {"b": 1.0}


def test_an_energy_that_is_no_number_is_refused_at_once():
    """A NaN among the phases would poison every distance."""
    points = [Point("Na", Composition("Na"), float("nan"))]
    with pytest.raises(ValueError, match="phase Na"):
        Hull.from_points(points, "toy")


def test_collinear_and_repeated_phases_do_no_harm():
    """Phases exactly on a tie line are stable and change nothing: the qhull degeneracy."""
    points = [Point("Na", Composition("Na"), 0.0), Point("Cl", Composition("Cl"), 0.0)]
    points += [
        Point(f"Na{i}Cl{j}", Composition({"Na": i, "Cl": j}), -2.0 * min(i, j) / (i + j))
        for i, j in itertools.product(range(1, 5), repeat=2)
    ]
    hull = Hull.from_points(points, "toy")
    assert hull.energy(Composition("NaCl")) == pytest.approx(-1.0)
    assert hull.energy(Composition("Na3Cl")) == pytest.approx(-0.5)
    assert hull.energy(Composition("NaCl7")) == pytest.approx(-0.25)


def phases_of(points):
    """Return a set of phases with these compositions and energies."""
    return PhaseSet(
        theory=THEORY,
        phases=tuple(phase(p.phase_id, p.composition.formula, p.energy) for p in points),
    )


def test_only_systems_below_whose_hull_a_phase_falls_are_built_anew():
    """A new ternary below the hull touches its own system and what contains it, nothing else."""
    elements = ["Li", "Fe", "P", "O"]
    points = random_points(elements, 60, seed=11)
    hull = Hull(phases_of(points))
    systems = [("Fe", "Li", "O"), ("Fe", "O"), ("Fe", "Li", "O", "P"), ("Fe", "O", "P")]
    contents = [Composition(dict.fromkeys(system, 1)) for system in systems]
    hull.energies(contents)
    kept = dict(hull._sections)
    content = Composition("Li3Fe2O7")
    above = Point("above", content, hull.energy(content) + 0.01)
    below = Point("below", content, hull.energy(content) - 0.3)
    after = hull.updated(phases_of([*points, above]))
    assert {system for system in kept if after._sections[system] is kept[system]} == set(systems)
    after = after.updated(phases_of([*points, above, below]))
    assert set(after._sections) == {("Fe", "O"), ("Fe", "O", "P")}
    fresh = Hull(phases_of([*points, above, below]))
    assert np.array_equal(after.energies(contents), fresh.energies(contents))
    assert after.decomposition(content) == {"below": 1.0}
    assert after.stable_phases(elements) == fresh.stable_phases(elements)


def test_a_hull_follows_phases_that_rise_and_go():
    """Withdrawn phases, another energy, another name, a lower element: as if built anew."""
    points = random_points(["Sr", "Ti", "O"], 40, seed=12)
    contents = random_contents(["Sr", "Ti", "O"], 30, seed=13)
    hull = Hull(phases_of(points))
    hull.energies(contents)
    best = hull.stable_phases(["Sr", "Ti", "O"])[-1]
    place = next(i for i, point in enumerate(points) if point.phase_id == best)
    moved = points[place]
    risen = Point(best, moved.composition, moved.energy + 0.2)
    renamed = Point("other", moved.composition, moved.energy)
    lower = Point("Sr-2", Composition("Sr"), points[0].energy - 0.1)
    for changed in (
        points[:place] + points[place + 1 :],
        [*points[:place], risen, *points[place + 1 :]],
        [*points[:place], renamed, *points[place + 1 :]],
        [*points, lower],
    ):
        after, fresh = hull.updated(phases_of(changed)), Hull(phases_of(changed))
        assert np.array_equal(after.energies(contents), fresh.energies(contents))
        assert after.decomposition(contents[0]) == fresh.decomposition(contents[0])
        assert after.stable_phases(["Sr", "Ti", "O"]) == fresh.stable_phases(["Sr", "Ti", "O"])


def test_fractions_in_a_table_are_answered_in_any_order_of_elements():
    """A table with zeros gives what compositions give; the subsystem is a face of the system."""
    points = random_points(SYSTEMS[2], 60, seed=14)
    hull = Hull.from_points(points, "toy")
    contents = random_contents(SYSTEMS[2], 30, seed=15)
    order = ["O", "Li", "P", "Fe"]
    table = np.array([[c.get_atomic_fraction(e) for e in order] for c in contents])
    assert (table == 0).any()
    np.testing.assert_allclose(hull.energies_at(order, table), hull.energies(contents), atol=1e-9)
