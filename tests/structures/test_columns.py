"""Crystals in columns come back with every bit they had, and refuse what they cannot be."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from pymatgen.core import DummySpecies, Lattice, Structure

from matloop.documents.candidate import structure_digest
from matloop.structures import columns
from matloop.structures.columns import ColumnsError, Crystals, pack, unpack, write_table


def plain(count: int, seed: int = 0) -> list[Structure]:
    """Return crystals of random cells, positions outside the cell among them."""
    rng = np.random.default_rng(seed)
    return [
        Structure(
            Lattice(rng.normal(scale=4.0, size=(3, 3))),
            rng.choice(["H", "Al", "Ni", "Og"], size=sites),
            rng.uniform(-1.0, 2.0, size=(sites, 3)),
        )
        for sites in rng.integers(1, 12, size=count)
    ]


def test_every_bit_comes_back() -> None:
    """Lattices, positions and species are equal to the last bit, and so are digests (P2)."""
    before = plain(50)
    after = unpack(pack(before))
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one.lattice.matrix, other.lattice.matrix)
        assert np.array_equal(one.frac_coords, other.frac_coords)
        assert one.species == other.species
        assert one.as_dict() == other.as_dict()
        assert structure_digest(one) == structure_digest(other)


def test_an_assembled_crystal_is_that_of_the_constructors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attribute is there, with what pymatgen's own constructors put into it."""
    assert columns._has_known_attributes()
    for one in plain(20):
        numbers = [site.specie.Z for site in one]
        quick = columns.assembled(one.lattice.matrix, numbers, one.frac_coords.copy())
        with monkeypatch.context() as patched:
            patched.setattr(columns, "_has_known_attributes", lambda: False)
            slow = columns.assembled(one.lattice.matrix, numbers, one.frac_coords.copy())
        assert vars(quick).keys() == vars(slow).keys()
        assert vars(quick.lattice).keys() == vars(slow.lattice).keys()
        assert not quick.lattice.matrix.flags.writeable
        assert [vars(site).keys() for site in quick] == [vars(site).keys() for site in slow]
        assert quick == slow == one
        assert quick.cart_coords.tolist() == one.cart_coords.tolist()
        assert quick.copy() == pickle.loads(pickle.dumps(quick)) == one


def test_what_is_more_than_elements_on_sites_comes_back_too() -> None:
    """Ions, isotopes, occupancies, moments, labels, charges, slabs, empty cells and NaN survive."""
    cell = Lattice.cubic(4.0)
    at = [[0, 0, 0], [0.5, 0.5, 0.5]]
    crystals = [
        Structure(cell, ["Na+", "Cl-"], at),
        Structure(cell, ["D", "O"], at),
        Structure(cell, [{"Au": 0.5, "Cu": 0.5}, "Cu"], at),
        Structure(cell, ["Fe", "Fe"], at, site_properties={"magmom": [2.0, -2.0]}),
        Structure(cell, ["Fe", "Fe"], at, labels=["one", "two"]),
        Structure(cell, ["Na", "Cl"], at, charge=1.0),
        Structure(cell, ["Na", "Cl"], at, properties={"source": "here"}),
        Structure(Lattice(cell.matrix, pbc=(True, True, False)), ["Na", "Cl"], at),
        Structure(cell, [DummySpecies("X"), "Cl"], at),
        Structure(cell, [], []),
        Structure(cell, ["Na", "Cl"], at),
    ]
    after = unpack(pack(crystals))
    assert [one.as_dict() for one in after] == [one.as_dict() for one in crystals]
    assert [len(one) for one in after] == [len(one) for one in crystals]
    (broken,) = unpack(pack([Structure(cell, ["Al"], [[np.nan, 0, 0]])]))
    assert np.isnan(broken.frac_coords[0, 0])


def test_a_row_is_a_crystal_of_its_own() -> None:
    """Changing one that was read changes neither the file nor its neighbours."""
    before = plain(3)
    crystals = Crystals(pack(before))
    crystals[1].translate_sites([0], [0.25, 0.0, 0.0])
    assert len(crystals) == 3
    assert [one.as_dict() for one in crystals] == [one.as_dict() for one in before]


def test_equal_crystals_make_equal_bytes_far_smaller_than_dictionaries() -> None:
    """An eighth of the bytes of the dictionaries as JSON, for crystals without any symmetry."""
    crystals = plain(500)
    content = pack(crystals)
    assert content == pack(plain(500))
    assert 8 * len(content) < sum(len(json.dumps(one.as_dict())) for one in crystals)


def test_other_files_are_refused() -> None:
    """What is no Parquet file, holds no crystals, or is in a later layout gets one clear line."""
    with pytest.raises(ColumnsError, match="no Parquet file"):
        unpack(b"nonsense")
    table = pa.table({"lattice": [1.0]})
    with pytest.raises(ColumnsError, match="layout unknown"):
        unpack(write_table(table))
    with pytest.raises(ColumnsError, match="layout 2"):
        unpack(write_table(table.replace_schema_metadata({"matloop.crystals": "2"})))


def test_no_crystals_are_no_crystals() -> None:
    """An empty batch is a file like any other."""
    assert unpack(pack([])) == []
