"""Many crystals of one formula: what is judged, and that nothing is lost where it must not be."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.structures import identity
from matloop.structures.identity import CROWDED, NEAREST, KnownIndex
from matloop.structures.matching import Matcher
from matloop.structures.segments import Entry, Segment, pack

MATCHER = Matcher()


def crystal(seed):
    """Return a random crystal of Ti2O4."""
    rng = np.random.default_rng(seed)
    lattice = Lattice.from_parameters(*rng.uniform(4, 5, 3), *rng.uniform(80, 100, 3))
    return MATCHER.reduce(Structure(lattice, ["Ti"] * 2 + ["O"] * 4, rng.random((6, 3))))


def rattled(reduced, seed=0):
    """Return a copy with every site moved by 0.02 Å."""
    copy = reduced.structure.copy()
    copy.perturb(0.02)
    return MATCHER.reduce(copy)


class Counting(Matcher):
    """A matcher that counts what it judges."""

    judged = 0

    def same(self, known, other):
        """Count, and judge."""
        type(self).judged += 1
        return super().same(known, other)


@pytest.fixture(scope="module")
def crowd():
    """Return more crystals of one bucket than are judged one by one."""
    return [crystal(seed) for seed in range(2 * CROWDED)]


def indexes(crowd, matcher=MATCHER, relaxed=True):
    """Return the same crystals in memory, in one segment, and in both."""
    memory = KnownIndex(matcher)
    for number, reduced in enumerate(crowd):
        memory.add(f"c{number}", reduced, relaxed=relaxed)
    entries = [Entry(f"c{i}", int(relaxed), reduced) for i, reduced in enumerate(crowd)]
    split = KnownIndex(
        matcher, segments=[Segment(pack(entries[:20])), Segment(pack(entries[20:40]))]
    )
    for number in range(40, len(crowd)):
        split.add(f"c{number}", crowd[number], relaxed=relaxed)
    return [memory, KnownIndex(matcher, segments=[Segment(pack(entries))]), split]


def test_relaxed_crystals_are_found_among_the_nearest(crowd):
    """A rattled copy is found wherever the crystals lie, and few are judged for it."""
    for index in indexes(crowd, Counting()):
        for number in range(0, len(crowd), 9):
            Counting.judged = 0
            assert index.find(rattled(crowd[number]), relaxed=True) == f"c{number}"
            assert index.find(crowd[number], ignore=f"c{number}", relaxed=True) is None
            assert Counting.judged <= 2 * NEAREST


def test_unrelaxed_crystals_are_judged_against_all(monkeypatch, crowd):
    """Whatever a fingerprint says, for a proposal and among proposals no match is lost."""
    monkeypatch.setattr(identity, "REACH", 1e-6)  # nothing is near
    copy = rattled(crowd[50])
    for index in indexes(crowd):
        assert index.find(copy, relaxed=True) is None
        assert index.find(copy) == "c50"
    for index in indexes(crowd, relaxed=False):
        assert index.find(copy, relaxed=True) == "c50"
        assert index.find(copy) == "c50"


def test_in_a_small_bucket_all_are_judged(monkeypatch, crowd):
    """Below the limit the fingerprint is not asked, relaxed or not, and the first is returned."""
    monkeypatch.setattr(identity, "REACH", 1e-6)
    index = KnownIndex(MATCHER)
    for name, reduced in (("a", crowd[1]), ("b", crowd[2]), ("c", rattled(crowd[2]))):
        index.add(name, reduced, relaxed=True)
    assert index.find(rattled(crowd[2]), relaxed=True) == "b"


def test_wider_tolerances_reach_further(crowd):
    """Twice the tolerance of sites, twice the reach: what matches is still near enough."""
    wide = Matcher(stol=0.6)
    copy = crowd[7].structure.copy()
    copy.perturb(0.3)
    index = indexes(crowd, wide)[0]
    assert index.find(copy, relaxed=True) is not None
