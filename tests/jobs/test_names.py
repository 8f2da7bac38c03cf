"""Many names in one array are the list of them."""

from __future__ import annotations

from matloop.jobs.names import Names


def test_names_are_a_sequence_of_texts() -> None:
    """Length, items, parts and order are those of a list."""
    listed = [f"Mg{number}O-{number:08x}" for number in range(10_000)]
    names = Names(name for name in listed)
    assert len(names) == len(listed)
    assert list(names) == listed
    assert (names[0], names[4097], names[-1]) == (listed[0], listed[4097], listed[-1])
    assert list(names[4000:4200]) == listed[4000:4200]
    assert list(names[::-3]) == listed[::-3]
    assert list(Names()) == []


def test_names_are_sorted_out_without_losing_their_order() -> None:
    """Those among others, and those that are not, come in the order in which they stood."""
    names = Names(["c", "a", "d", "b", "a"])
    assert list(names.among(Names(["a", "b", "z"]))) == ["a", "b", "a"]
    assert list(names.without(Names(["a", "b", "z"]))) == ["c", "d"]
    assert list(names.without(Names())) == list(names)
    assert list(names.among(Names())) == []
