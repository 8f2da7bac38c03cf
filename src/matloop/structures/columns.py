"""Crystals in columns: many structures as one Parquet file, every number with the bits it had."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pymatgen.core import Composition, Element, Lattice, PeriodicSite, Structure

from matloop.errors import MatloopError

MEDIA_TYPE = "application/vnd.apache.parquet"
"""How to read the bytes of `pack`."""

LAYOUT = 1
"""Version of the layout, written into every file; a reader refuses one it does not know."""

_LAYOUT_KEY = b"matloop.crystals"
_LEVEL = 3  # zstd: higher levels cost time and save under 2 %
_SCHEMA = pa.schema(
    [
        pa.field("lattice", pa.list_(pa.float64()), nullable=False),
        pa.field("numbers", pa.list_(pa.uint8()), nullable=False),
        pa.field("positions", pa.list_(pa.float64()), nullable=False),
        pa.field("other", pa.string()),
    ]
)


class ColumnsError(MatloopError):
    """Bytes that hold no crystals, or crystals in a layout of another version."""


def pack(structures: Iterable[Structure], with_columns: Mapping[str, pa.Array] = {}) -> bytes:
    """Return crystals as the bytes of a Parquet file: equal bytes for equal crystals.

    One row per crystal: ``lattice``, nine numbers, the rows of the lattice matrix (Å); ``numbers``,
    the atomic number of each site; ``positions``, the fractional coordinates, site by site. What
    does not fit, such as oxidation states or magnetic moments, is in ``other``: the pymatgen
    dictionary of the whole crystal, as JSON; the columns before it are empty then.

    Parameters
    ----------
    structures
        The crystals.
    with_columns
        More columns, one value per crystal, by name.
    """
    lattices: list[NDArray[np.float64]] = []
    numbers: list[int] = []
    positions: list[NDArray[np.float64]] = []
    lattice_ends, site_ends = [0], [0]
    other: list[str | None] = []
    for structure in structures:
        species = _atomic_numbers(structure)
        if species is None:
            other.append(json.dumps(structure.as_dict()))
        else:
            other.append(None)
            lattices.append(structure.lattice.matrix.ravel())
            numbers += species
            positions += [site.frac_coords for site in structure]
        lattice_ends.append(9 * len(lattices))
        site_ends.append(len(numbers))
    ends = pa.array(site_ends, pa.int32())
    arrays = [
        pa.ListArray.from_arrays(pa.array(lattice_ends, pa.int32()), _joined(lattices)),
        pa.ListArray.from_arrays(ends, pa.array(numbers, pa.uint8())),
        pa.ListArray.from_arrays(
            pa.array([3 * end for end in site_ends], pa.int32()), _joined(positions)
        ),
        pa.array(other, pa.string()),
    ]
    schema = _SCHEMA
    for name, column in with_columns.items():
        schema = schema.append(pa.field(name, column.type))
        arrays.append(column)
    table = pa.Table.from_arrays(
        arrays, schema=schema.with_metadata({_LAYOUT_KEY: str(LAYOUT).encode()})
    )
    return write_table(table)


def write_table(table: pa.Table) -> bytes:
    """Return a table, with its metadata, as the bytes of a Parquet file: equal bytes for equal."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(table.schema.metadata or {})
    return bytes(sink.getvalue().to_pybytes())


def read_table(content: bytes) -> pa.Table:
    """Return the table that bytes hold.

    Raises
    ------
    ColumnsError
        If they hold none.
    """
    try:
        return pq.read_table(pa.BufferReader(content), use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise ColumnsError(f"these bytes are no Parquet file: {error}") from error


def unpack(content: bytes) -> list[Structure]:
    """Return the crystals that the bytes of `pack` hold, in order.

    Raises
    ------
    ColumnsError
        If they hold none, or in a layout of another version.
    """
    return Crystals(content).all()


class Crystals:
    """The crystals of one file, made into structures one at a time when they are asked for.

    Parameters
    ----------
    content
        Bytes of `pack`.

    Raises
    ------
    ColumnsError
        If they hold no crystals, or in a layout of another version.
    """

    def __init__(self, content: bytes) -> None:
        self.table = read_table(content)
        layout = (self.table.schema.metadata or {}).get(_LAYOUT_KEY, b"").decode()
        if layout != str(LAYOUT):
            raise ColumnsError(
                f"these crystals are in layout {layout or 'unknown'}, this matloop reads {LAYOUT}"
            )
        self._lattices, self._lattice_ends = _split(self.table, "lattice")
        self._numbers, self._site_ends = _split(self.table, "numbers")
        self._positions = _split(self.table, "positions")[0].reshape(-1, 3)
        self._other: list[str | None] = self.table.column("other").to_pylist()

    def __len__(self) -> int:
        return len(self._other)

    def __getitem__(self, row: int) -> Structure:
        """Return one crystal, a new object each time."""
        other = self._other[row]
        if other is not None:
            return _from_dictionary(json.loads(other))
        first = self._lattice_ends[row]
        sites = slice(self._site_ends[row], self._site_ends[row + 1])
        return assembled(
            self._lattices[first : first + 9].reshape(3, 3),
            self._numbers[sites].tolist(),
            self._positions[sites].copy(),
        )

    def all(self) -> list[Structure]:
        """Return all of them."""
        return [self[row] for row in range(len(self))]

    def __iter__(self) -> Iterator[Structure]:
        return (self[row] for row in range(len(self)))


def assembled(
    matrix: NDArray[np.float64], numbers: Sequence[int], positions: NDArray[np.float64]
) -> Structure:
    """Return a crystal from numbers that came from one, without looking at them again.

    It is the crystal of pymatgen's constructors, which take several times as long.

    Parameters
    ----------
    matrix
        Rows of the lattice matrix (Å), shape (3, 3).
    numbers
        Atomic number of each site.
    positions
        Fractional coordinates, shape (sites, 3); the sites keep views of them.
    """
    if not _has_known_attributes():
        lattice = Lattice(matrix)
        structure = Structure(lattice, [], [])
        structure._sites = [
            PeriodicSite(_single(number), position, lattice, skip_checks=True)
            for number, position in zip(numbers, positions, strict=True)
        ]
        return structure
    own = np.array(matrix)
    own.setflags(write=False)
    lattice = Lattice.__new__(Lattice)
    vars(lattice).update(_bare_lattice(), _matrix=own, _pbc=(True, True, True))
    structure, sites = Structure.__new__(Structure), []
    for number, position in zip(numbers, positions, strict=True):
        site = PeriodicSite.__new__(PeriodicSite)
        vars(site).update(
            _species=_single(number),
            _lattice=lattice,
            _frac_coords=position,
            _coords=None,
            properties={},
            _label=None,
        )
        sites.append(site)
    vars(structure).update(_lattice=lattice, _sites=sites, _charge=None, _properties={})
    return structure


def _atomic_numbers(structure: Structure) -> list[int] | None:
    """Return what stands on each site; None where a crystal is more than elements on sites."""
    if structure._charge is not None or structure.properties or not all(structure.lattice.pbc):
        return None
    numbers = []
    for site in structure:
        occupied = site.species._data
        if len(occupied) != 1 or site.properties:
            return None
        ((element, amount),) = occupied.items()
        number = _number(element)
        if number is None or amount != 1 or site._label not in (None, element.symbol):
            return None
        numbers.append(number)
    return numbers


def _joined(parts: Sequence[NDArray[np.float64]]) -> pa.Array:
    return pa.array(np.concatenate(parts) if parts else np.empty(0), pa.float64())


def _split(table: pa.Table, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    column = table.column(name).combine_chunks()
    values = column.values.to_numpy(zero_copy_only=False)
    return values, column.offsets.to_numpy().astype(np.int64)


@cache
def _has_known_attributes() -> bool:
    """Whether this pymatgen keeps a crystal in the attributes that `assembled` sets."""
    lattice = Lattice(np.eye(3))
    structure = Structure(lattice, [], [])
    site = PeriodicSite(_single(1), np.zeros(3), lattice, skip_checks=True)
    return bool(
        vars(lattice).keys() == {"_matrix", "_pbc", *_bare_lattice()}
        and vars(structure).keys() == {"_lattice", "_sites", "_charge", "_properties"}
        and vars(site).keys()
        == {"_species", "_lattice", "_frac_coords", "_coords", "properties", "_label"}
    )


def _bare_lattice() -> dict[str, object]:
    # What a lattice finds out when it is asked, and has not been asked yet.
    return {
        "_inv_matrix": None,
        "_diags": None,
        "_lll_matrix_mappings": {},
        "_lll_inverse": None,
    }


@cache
def _number(species: object) -> int | None:
    """Return an atomic number; None for ions, and for isotopes such as deuterium."""
    if isinstance(species, Element) and Element.from_Z(species.Z) is species:
        return int(species.Z)
    return None


@cache
def _single(number: int) -> Composition:
    return Composition({Element.from_Z(number): 1})


def _from_dictionary(value: dict[str, object]) -> Structure:
    if not value["sites"]:  # `from_dict` reads none without sites
        return Structure(Lattice.from_dict(value["lattice"]), [], [])
    return Structure.from_dict(value)
