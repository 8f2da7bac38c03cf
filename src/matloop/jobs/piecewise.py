"""Sequences that are read piece by piece, so that memory does not grow with their length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

PIECE = 2048
"""Candidates held in memory at once."""

T = TypeVar("T")


class Piecewise(Sequence[T], Generic[T]):
    """A sequence of which only names are kept; what they stand for is read when it is asked for.

    Reading it in order reads everything once. The piece that was read last is kept, so that
    neighbours cost nothing.

    Parameters
    ----------
    names
        A name for each item.
    load
        Returns the items of some names, in order.
    size
        Items read at once; `PIECE` where it is 0.
    """

    def __init__(
        self, names: Sequence[str], load: Callable[[Sequence[str]], Sequence[T]], size: int = 0
    ) -> None:
        self.names = names
        self._load = load
        self._size = size or PIECE
        self._number = -1
        self._piece: Sequence[T] = ()

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Piecewise[T]: ...

    def __getitem__(self, index: int | slice) -> T | Piecewise[T]:
        """Return an item, or a part of the sequence that is read later."""
        if isinstance(index, slice):
            return Piecewise(self.names[index], self._load, self._size)
        place = range(len(self))[index]
        return self.piece(place // self._size)[place % self._size]

    def __iter__(self) -> Iterator[T]:
        for piece in self.pieces():
            yield from piece

    def pieces(self) -> Iterator[Sequence[T]]:
        """Return the items in pieces, each read when its turn comes."""
        return map(self.piece, range(self._count))

    def name_pieces(self) -> Iterator[list[str]]:
        """Return the names in the same pieces; nothing is read."""
        return map(self._named, range(self._count))

    def piece(self, number: int) -> Sequence[T]:
        """Return one piece, counted from 0."""
        if number != self._number:
            self._piece = ()  # two pieces are never held at once
            self._piece, self._number = self._load(self._named(number)), number
        return self._piece

    @property
    def _count(self) -> int:
        return -(-len(self) // self._size)

    def _named(self, number: int) -> list[str]:
        return list(self.names[number * self._size : (number + 1) * self._size])

    def some(self, places: Sequence[int]) -> Sequence[T]:
        """Return a few items, of which nothing else is read."""
        return self._load([self.names[place] for place in places]) if places else []


def picked(items: Sequence[T], places: Sequence[int]) -> list[T]:
    """Return a few items of a sequence, reading no more of it than them.

    Parameters
    ----------
    items
        The sequence.
    places
        Which ones, in increasing order.
    """
    if isinstance(items, Piecewise):
        return list(items.some(places))
    return [items[place] for place in places]
