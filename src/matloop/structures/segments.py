"""Prepared crystals in a file that is searched without being read: sorted by bucket, mapped.

A segment never changes, so that any number of processes share it and it can be named by its hash.
Collections grow by further segments; `pack_merged` joins small ones, as log-structured stores do,
so that n crystals lie in about log2(n) of them and each is written that many times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from matloop.errors import MatloopError
from matloop.structures.matching import Bucket, Reduced

MEDIA_TYPE = "application/vnd.apache.arrow.file"

LARGEST = 100_000
"""Most crystals in a segment that others are joined with: some 60 MB."""


class Entry(NamedTuple):
    """A crystal to be packed.

    Attributes
    ----------
    known_id
        Its name; several entries may share it.
    moves
        How often its atoms were moved by an evaluator before: 0 for a crystal as proposed.
    reduced
        The crystal, prepared for comparison; None for one that cannot be compared, whose name is
        kept alone.
    digest
        64 bits of the hash of its description, where it is told apart by that.
    """

    known_id: str
    moves: int
    reduced: Reduced | None
    digest: int = 0


@dataclass(frozen=True)
class Rows:
    """The crystals of one bucket of a segment, in the order in which they were added.

    Attributes
    ----------
    minima
        As `Reduced.minima`, shape (crystals, 3).
    relaxed
        Whether its atoms have been moved to a minimum, shape (crystals,).
    fingerprints
        As `Reduced.fingerprint`, shape (crystals, length).
    """

    bucket: Bucket
    minima: NDArray[np.float64]
    relaxed: NDArray[np.bool_]
    fingerprints: NDArray[np.float16]
    _table: Any
    _start: int

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.minima)

    def name(self, row: int) -> str:
        """Return the name of a crystal."""
        return str(self._table["known_id"][self._start + row])

    def reduced(self, row: int) -> Reduced:
        """Return a crystal, its sites by rising atomic number whatever their order in the file."""
        place = self._start + row
        numbers = np.array(self._table["numbers"][place].as_py())
        coords = np.array(self._table["coords"][place].as_py()).reshape(-1, 3)
        order = np.argsort(numbers, kind="stable")
        return Reduced(
            lattice=np.array(self._table["lattice"][place].as_py()).reshape(3, 3),
            numbers=numbers[order],
            coords=coords[order],
            bucket=self.bucket,
            lengths=np.array(self._table["lengths"][place].as_py()),
            minima=self.minima[row],
        )


class Segment:
    """A file of prepared crystals, mapped into memory.

    Parameters
    ----------
    source
        The file, or its content.

    Raises
    ------
    MatloopError
        If it is no segment.
    """

    def __init__(self, source: Path | bytes) -> None:
        name = str(source) if isinstance(source, Path) else "the file"
        file = pa.memory_map(name) if isinstance(source, Path) else pa.BufferReader(source)
        try:
            table = pa.ipc.open_file(file).read_all()
            self._columns = {name: _whole(table[name]) for name in _SCHEMA.names}
        except (pa.ArrowInvalid, KeyError) as error:
            raise MatloopError(f"{name} holds no prepared crystals: {error}") from error
        self._table = table
        self._keys = self._columns["key"].to_numpy()
        self._moves = self._columns["moves"].to_numpy()

    def __len__(self) -> int:
        """Return how many crystals it holds."""
        return len(self._keys)

    def names(self) -> set[tuple[str, int]]:
        """Return name and moves of every crystal, those that cannot be compared among them."""
        return set(zip(self._columns["known_id"].to_pylist(), self._moves.tolist(), strict=True))

    def digests(self) -> set[int]:
        """Return the digest of every crystal."""
        return set(self._columns["digest"].to_pylist())

    def rows(self, bucket: Bucket) -> Rows | None:
        """Return the crystals of a bucket; None if there are none."""
        key = _key(bucket)
        start, end = np.searchsorted(self._keys, [key, key + np.uint64(1)])
        if start == end or str(self._columns["formula"][int(start)]) != bucket[0]:
            return None
        prints = self._columns["fingerprint"]
        first, last = prints.offsets[int(start)].as_py(), prints.offsets[int(end)].as_py()
        minima = self._columns["minima"].values.to_numpy().reshape(-1, 3)[start:end]
        return Rows(
            bucket=bucket,
            minima=minima,
            relaxed=self._moves[start:end] > 0,
            fingerprints=prints.values.to_numpy()[first:last].reshape(end - start, -1),
            _table=self._columns,
            _start=int(start),
        )


def pack(entries: Iterable[Entry]) -> bytes:
    """Return a segment of these crystals; equal bytes for equal crystals in equal order."""
    listed = list(entries)
    compared = [entry.reduced for entry in listed]
    buckets = [reduced.bucket if reduced else ("", 0) for reduced in compared]
    keys = {bucket: _key(bucket) for bucket in set(buckets)}
    if len(set(keys.values())) < len(keys):  # one chance in 2^64 for each pair of buckets
        raise MatloopError("two formulas share a hash: pack them apart")
    columns = {
        "key": [keys[bucket] for bucket in buckets],
        "formula": [bucket[0] for bucket in buckets],
        "known_id": [entry.known_id for entry in listed],
        "moves": [entry.moves for entry in listed],
        "digest": [entry.digest for entry in listed],
        "numbers": [reduced.numbers if reduced else [] for reduced in compared],
        "lattice": [reduced.lattice.ravel() if reduced else np.zeros(9) for reduced in compared],
        "coords": [reduced.coords.ravel() if reduced else np.zeros(0) for reduced in compared],
        "lengths": [reduced.lengths if reduced else np.zeros(3) for reduced in compared],
        "minima": [reduced.minima if reduced else np.zeros(3) for reduced in compared],
        "fingerprint": [
            (reduced.fingerprint if reduced else np.zeros(0)).astype(np.float16)
            for reduced in compared
        ],
    }
    return _written(
        pa.table({name: pa.array(columns[name], _SCHEMA.field(name).type) for name in columns})
    )


def pack_merged(segments: Sequence[Segment]) -> bytes:
    """Return one segment with the crystals of several, those of the first before the others'."""
    return _written(pa.concat_tables([segment._table for segment in segments]))


def joined(sizes: Sequence[int], new: int) -> int:
    """Return from which segment on those at the end are joined with a new one.

    A segment is joined with what follows it when that is at least half as large, and never beyond
    `LARGEST`. So sizes fall at least twofold from one to the next, but for full segments.

    Parameters
    ----------
    sizes
        Crystals in each segment, oldest first.
    new
        Crystals in the new one.
    """
    first, total = len(sizes), new
    while first and sizes[first - 1] <= 2 * total and sizes[first - 1] + total <= LARGEST:
        first -= 1
        total += sizes[first]
    return first


def _written(table: Any) -> bytes:
    order = np.argsort(table["key"].to_numpy(), kind="stable")
    table = table.take(order).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _SCHEMA) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _whole(column: Any) -> Any:
    # The one chunk of a column; of an empty one none is there.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _key(bucket: Bucket) -> np.uint64:
    text = f"{bucket[0]} {bucket[1]}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "big") >> 1)


_SCHEMA = pa.schema(
    [
        ("key", pa.uint64()),
        ("formula", pa.string()),
        ("known_id", pa.string()),
        ("moves", pa.uint8()),
        ("digest", pa.uint64()),
        ("numbers", pa.list_(pa.uint8())),
        ("lattice", pa.list_(pa.float64(), 9)),
        ("coords", pa.list_(pa.float64())),
        ("lengths", pa.list_(pa.float64(), 3)),
        ("minima", pa.list_(pa.float64(), 3)),
        ("fingerprint", pa.list_(pa.float16())),
    ]
)
