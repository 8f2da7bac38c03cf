"""Many names in little memory: some twenty bytes each, where a list takes a hundred."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc

_AT_ONCE = 4096


class Names(Sequence[str]):
    """Texts in one Arrow array; each becomes a Python object when it is asked for.

    Parameters
    ----------
    names
        The texts, or an Arrow array of them.
    """

    def __init__(self, names: Iterable[str] | pa.StringArray = ()) -> None:
        self._array = names if isinstance(names, pa.StringArray) else _packed(names)

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Names: ...

    def __getitem__(self, index: int | slice) -> str | Names:
        """Return one text, or a part that shares the memory."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return Names(self._array.slice(start, max(stop - start, 0)))
            return Names(self[place] for place in range(start, stop, step))
        return str(self._array[range(len(self))[index]].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self._array.slice(start, _AT_ONCE).to_pylist()

    def without(self, others: Names) -> Names:
        """Return the texts that are not among others."""
        return Names(self._array.filter(pc.invert(pc.is_in(self._array, others._array))))

    def among(self, others: Names) -> Names:
        """Return the texts that are among others."""
        return Names(self._array.filter(pc.is_in(self._array, others._array)))


def _packed(names: Iterable[str]) -> pa.StringArray:
    rest, parts = iter(names), []
    while some := list(islice(rest, _AT_ONCE)):
        parts.append(pa.array(some, pa.string()))
    return pa.concat_arrays(parts) if parts else pa.array([], pa.string())
