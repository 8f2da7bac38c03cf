"""Segments: what was packed comes back as it was, bucket by bucket, and sizes stay few."""

from dataclasses import replace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.errors import MatloopError
from matloop.structures.matching import Matcher
from matloop.structures.segments import Entry, Segment, joined, pack, pack_merged

MATCHER = Matcher()


def reduced(seed, species=("Ti", "O", "O")):
    """Return a random crystal, prepared."""
    rng = np.random.default_rng(seed)
    lattice = Lattice.from_parameters(*rng.uniform(3.5, 5, 3), *rng.uniform(75, 105, 3))
    return MATCHER.reduce(Structure(lattice, species, rng.random((len(species), 3))))


def entries(count=6):
    """Return crystals of two formulas in turns, one that cannot be compared at the end."""
    kinds = [("Ti", "O", "O"), ("Na", "Cl")]
    found = [Entry(f"c{i}", i % 3, reduced(i, kinds[i % 2])) for i in range(count)]
    return [*found, Entry("broken", 0, None)]


def test_crystals_come_back_to_the_last_bit(tmp_path):
    """By bucket, in the order packed, with name, flag, fingerprint and every coordinate."""
    packed = entries()
    path = tmp_path / "segment"
    path.write_bytes(pack(packed))
    segment = Segment(path)
    assert len(segment) == 7
    assert segment.names() == {(entry.known_id, entry.moves) for entry in packed}
    for bucket, chosen in ((("TiO2", 3), packed[0:6:2]), (("NaCl", 2), packed[1:6:2])):
        rows = segment.rows(bucket)
        assert [rows.name(row) for row in range(len(rows))] == [e.known_id for e in chosen]
        assert rows.relaxed.tolist() == [entry.moves > 0 for entry in chosen]
        for row, entry in enumerate(chosen):
            found, given = rows.reduced(row), entry.reduced
            assert np.array_equal(found.structure.lattice.matrix, given.structure.lattice.matrix)
            assert np.array_equal(found.structure.frac_coords, given.structure.frac_coords)
            assert found.structure.species == given.structure.species
            assert np.array_equal(found.lengths, given.lengths)
            assert np.array_equal(found.minima, given.minima)
            np.testing.assert_allclose(rows.fingerprints[row], given.fingerprint, atol=1e-3)
    assert segment.rows(("TiO2", 6)) is None
    assert segment.rows(("Xe", 1)) is None


def test_sites_in_any_order_are_read_in_one():
    """A segment whose sites are not sorted by element gives the same verdicts."""
    given = reduced(0)
    backwards = replace(given, numbers=given.numbers[::-1], coords=given.coords[::-1])
    found = Segment(pack([Entry("c", 0, backwards)])).rows(given.bucket).reduced(0)
    assert found.numbers.tolist() == given.numbers.tolist()
    assert MATCHER.same(found, given)


def test_equal_crystals_give_equal_bytes_and_order_within_a_bucket_is_kept():
    """A segment can be named by its hash; joined ones hold the first's crystals first."""
    first, second = entries()[:3], entries(8)[3:8]
    assert pack(entries()) == pack(entries())
    both = Segment(pack_merged([Segment(pack(first)), Segment(pack(second))]))
    rows = both.rows(("TiO2", 3))
    assert [rows.name(row) for row in range(len(rows))] == ["c0", "c2", "c4", "c6"]
    assert len(both) == 8


def test_few_segments_and_few_copies():
    """After 300 turns of 50 crystals: at most log2 segments, each crystal written as often."""
    sizes, written = [], 0
    for _ in range(300):
        first = joined(sizes, 50)
        sizes = [*sizes[:first], 50 + sum(sizes[first:])]
        written += sizes[-1]
    assert sum(sizes) == 15_000
    assert len(sizes) <= 10
    assert written <= 15_000 * 10
    assert joined([100_000, 60], 50) == 1


def test_an_empty_segment_is_one():
    """Nothing packed, nothing found."""
    segment = Segment(pack([]))
    assert len(segment) == 0
    assert segment.rows(("TiO2", 3)) is None


def test_what_is_no_segment_says_so(tmp_path):
    """Another file is refused by name."""
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(MatloopError, match=r"notes\.txt holds no prepared crystals"):
        Segment(path)
