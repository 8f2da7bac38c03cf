"""Same crystal or not: nothing may be lost before the judge, and nothing may hang."""

import itertools
import time

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matloop.structures.identity import IncomparableError, KnownIndex, Matcher

MATCHER = Matcher()
PEROVSKITE = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
)
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)
ANATASE = Structure.from_spacegroup(
    "I4_1/amd", Lattice.tetragonal(3.78, 9.51), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.208]]
)


def distorted(structure, rng, shift, strain):
    """Return a copy with sites moved by up to `shift` cell edges per atom, and a strained cell."""
    size = shift * (structure.volume / len(structure)) ** (1 / 3)
    steps = rng.normal(size=(len(structure), 3))
    steps *= size * rng.random((len(structure), 1)) / np.linalg.norm(steps, axis=1)[:, None]
    bend = np.eye(3) + rng.uniform(-strain, strain, (3, 3))
    return Structure(
        Lattice(structure.lattice.matrix @ bend),
        structure.species,
        structure.cart_coords @ bend + steps,
        coords_are_cartesian=True,
    )


def random_crystal(rng, content):
    """Return random sites in a random cell of 12 Å^3 per atom."""
    while True:
        lattice = Lattice.from_parameters(*rng.uniform(3, 9, 3), *rng.uniform(65, 115, 3))
        if np.isfinite(lattice.volume) and lattice.volume > 40:
            break
    return Structure(lattice.scale(12 * len(content)), content, rng.random((len(content), 3)))


def test_a_crystal_is_itself_in_any_description():
    """Supercell, other axes, other origin, other order, a volume change, charges: all the same."""
    cell = PEROVSKITE * [[1, 1, 0], [0, 1, 0], [0, 2, 2]]
    cell.translate_sites(range(len(cell)), [0.13, 0.4, 0.77])
    shuffled = Structure.from_sites([cell[i] for i in np.random.default_rng(0).permutation(10)])
    shuffled.scale_lattice(shuffled.volume * 1.3)
    shuffled.add_oxidation_state_by_element({"Sr": 2, "Ti": 4, "O": -2})
    assert MATCHER.matches(PEROVSKITE, shuffled)


def test_polymorphs_differ():
    """Rutile and anatase are both TiO2 with six atoms per primitive cell, and not the same."""
    first, second = MATCHER.reduce(RUTILE), MATCHER.reduce(ANATASE)
    assert first.bucket == second.bucket == ("TiO2", 6)
    assert not MATCHER.same(first, second)


def test_nothing_that_the_judge_would_match_is_lost():
    """On distorted and random crystals the verdicts are those of StructureMatcher alone.

    Distortions reach up to the tolerances, so that many matches are just barely ones.
    """
    rng = np.random.default_rng(7)
    judge = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)
    outcomes = {True: 0, False: 0}
    skipped = 0
    for model in (PEROVSKITE, RUTILE, ANATASE):
        group = [
            distorted(model, rng, *size) for size in [(0.3, 0.05), (0.4, 0.1), (0.2, 0.15)] * 3
        ]
        group += [random_crystal(rng, [s.symbol for s in model.species]) for _ in range(4)]
        reduced = [MATCHER.reduce(structure) for structure in group]
        for i, j in itertools.permutations(range(len(group)), 2):
            expected = judge.fit(group[i], group[j])
            assert MATCHER.same(reduced[i], reduced[j]) == expected
            outcomes[expected] += 1
            skipped += not MATCHER.may_match(reduced[i], reduced[j])
    assert outcomes[True] > 50
    assert outcomes[False] > 100
    assert skipped > 50  # the bound is worth having


def test_the_index_returns_the_first_match_and_respects_ignore():
    """Two equal entries: the first is found, and the second once the first is ignored."""
    index = KnownIndex(MATCHER, [("a", ANATASE), ("b", RUTILE), ("c", RUTILE * [1, 1, 2])])
    assert index.find(RUTILE * [2, 1, 1]) == "b"
    assert index.find(RUTILE, ignore="b") == "c"
    assert index.find(PEROVSKITE) is None
    index.add("d", PEROVSKITE)
    assert index.find(PEROVSKITE) == "d"


def test_crystals_added_later_come_after_those_given():
    """The order of finding is the order of adding, though given crystals are prepared late."""
    index = KnownIndex(MATCHER, [("given", RUTILE)])
    index.add("added", RUTILE)
    assert index.find(RUTILE) == "given"


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        (Structure(Lattice.cubic(4), ["Na"], [[np.nan, 0, 0]]), "not finite"),
        (Structure(Lattice.from_parameters(4, 4, 4, 1, 1, 1), ["Na"], [[0, 0, 0]]), "flat"),
        (PEROVSKITE * [5, 5, 4], "500 sites"),
        (Structure(Lattice.orthorhombic(1, 1, 200), ["Na"], [[0, 0, 0]]), "elongated"),
    ],
)
def test_what_cannot_be_compared_says_why(structure, words):
    """Broken, huge and needle-shaped cells raise one kind of error, at once."""
    started = time.perf_counter()
    with pytest.raises(IncomparableError, match=words):
        MATCHER.reduce(structure)
    assert time.perf_counter() - started < 120


def test_a_known_crystal_that_cannot_be_compared_is_never_found():
    """Broken entries of the same and of no formula harm no other entry."""
    cubic = Lattice.cubic(4)
    broken = [
        Structure(cubic, ["Ti", "O", "O"], [[np.nan, 0, 0], [0.5] * 3, [0.2] * 3]),
        Structure(Lattice.orthorhombic(1, 1, 200), ["Ti", "O", "O"], np.eye(3) * 0.3),
        Structure(cubic, [], []),
        Structure(cubic, ["X"], [[0, 0, 0]]),
    ]
    index = KnownIndex(
        MATCHER, [*((f"broken-{i}", s) for i, s in enumerate(broken)), ("r", RUTILE)]
    )
    assert index.find(RUTILE) == "r"


def test_a_skew_cell_is_reduced_at_once():
    """The same lattice written with vectors of 1000 Å costs no more than the short ones."""
    skew = Lattice(np.array([[1, 0, 0], [250, 1, 0], [0, 240, 1]]) @ Lattice.cubic(3.3).matrix)
    started = time.perf_counter()
    assert MATCHER.matches(
        Structure(Lattice.cubic(3.3), ["Po"], [[0, 0, 0]]), Structure(skew, ["Po"], [[0.1, 0, 0]])
    )
    assert time.perf_counter() - started < 120


def test_a_hundred_sites_are_compared_in_a_moment():
    """A large cell matches its rattled copy, and no other arrangement of the same atoms."""
    rng = np.random.default_rng(1)
    lattice = Lattice.cubic((100 * 15) ** (1 / 3))
    first = Structure(lattice, ["Na"] * 100, rng.random((100, 3)))
    second = Structure(lattice, ["Na"] * 100, rng.random((100, 3)))
    started = time.perf_counter()
    assert MATCHER.matches(first, distorted(first, rng, 0.02, 0.0))
    assert not MATCHER.matches(first, second)
    assert time.perf_counter() - started < 120
