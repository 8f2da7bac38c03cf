"""Contents read in one pass are those that `Composition` and `Structure.composition` have."""

import random

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Species, Structure

from matloop.structures.columns import pack, unpack
from matloop.structures.contents import content, of_compositions, of_crystals


def crystal(*sites):
    """Return a crystal with these species on its sites."""
    places = np.linspace(0, 0.9, len(sites))[:, None] * np.ones(3)
    return Structure(Lattice.cubic(9), list(sites), places)


def as_read(tables, count):
    """Return the amounts of each member, by symbol."""
    found = {}
    for table in tables:
        assert list(table.rows) == sorted(table.rows)
        for row, amounts in zip(table.rows.tolist(), table.amounts.tolist(), strict=True):
            assert row not in found
            found[row] = dict(zip(table.elements, amounts, strict=True))
        np.testing.assert_allclose(table.fractions.sum(axis=1), 1.0 if table.elements else 0.0)
    assert len({table.elements for table in tables}) == len(tables)  # one table per system
    return [found[row] for row in range(count)]


ODD = [
    crystal(Species("Fe", 2), Species("Fe", 3), Species("O", -2)),
    crystal(Species("O", -2), Species("Fe", 3), Species("O", -2)),
    crystal("O", "Fe", "Fe"),
    crystal("D", "H", "O"),
    crystal("O", "D"),
    crystal({"Sr": 0.5, "Ti": 0.3}, "O", {"Ti": 0.25}),
    crystal({"Sr": 1e-9}, "O"),
    crystal(),
    crystal("X", "O"),
]


def test_compositions_of_all_kinds_are_read_as_one_by_one():
    """In any order of systems and of elements, with charges, isotopes, fractions and nothing."""
    chance = random.Random(0)
    elements = ["Li", "Fe", "P", "O", "H"]
    read = [
        Composition({}),
        Composition("D2O"),
        Composition({"Li": -1, "O": 2}, allow_negative=True),
    ]
    read += [structure.composition for structure in ODD]
    for _ in range(300):
        chosen = chance.sample(elements, chance.randint(1, 4))
        read.append(Composition({element: chance.choice([1, 2, 0.5, 3]) for element in chosen}))
    chance.shuffle(read)
    assert as_read(of_compositions(read), len(read)) == [content(one) for one in read]
    assert of_compositions([]) == []


def test_crystals_of_all_kinds_are_read_as_one_by_one():
    """As proposed, as read from columns, and with all that a site can hold."""
    chance = random.Random(1)
    plain = [
        crystal(*(chance.choice(["Li", "Fe", "O"]) for _ in range(chance.randint(1, 8))))
        for _ in range(60)
    ]
    read = [*plain, *ODD, *unpack(pack([*plain, *ODD]))]
    chance.shuffle(read)
    found = as_read(of_crystals(read), len(read))
    assert found == [pytest.approx(content(one.composition), abs=1e-14) for one in read]
    assert of_crystals([]) == []


def test_a_negative_amount_is_refused_as_by_pymatgen():
    """It is no crystal."""
    broken = crystal("Sr", "O")
    broken.sites[0]._species = Composition({"Sr": -1}, allow_negative=True)
    with pytest.raises(ValueError, match="negative"):
        of_crystals([crystal("Sr"), broken])
