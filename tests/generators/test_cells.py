"""Contacts and cells against pymatgen's own ways."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.generators.cells import contact_limits, contact_ratio, plain_cell
from matloop.protocols import Parent


@pytest.mark.parametrize("seed", range(8))
def test_contacts_agree_with_pymatgen(seed: int) -> None:
    """The closest contact in skewed random cells is the one pymatgen's distances give."""
    rng = np.random.default_rng(seed)
    matrix = 3.0 * (np.eye(3) + rng.uniform(-0.9, 0.9, (3, 3)))
    if abs(np.linalg.det(matrix)) < 8:
        matrix = matrix + 3.0 * np.eye(3)
    symbols = ["Sr", "Ti", "O", "O"]
    frac = rng.random((4, 3))
    limits = contact_limits(symbols, 1.5)
    crystal = Structure(Lattice(matrix), symbols, frac)
    expected = min(
        [
            neighbour.nn_distance / limits[index, neighbour.index]
            for index, near in enumerate(crystal.get_all_neighbors(float(limits.max())))
            for neighbour in near
        ],
        default=1.0,
    )
    assert min(1.0, contact_ratio(matrix, frac, limits)) == pytest.approx(min(1.0, expected))


def test_contacts_of_a_batch_agree_with_single_ones() -> None:
    """A batch of coordinates gives what each gives alone."""
    rng = np.random.default_rng(3)
    matrix = np.diag([4.0, 5.0, 6.0])
    limits = contact_limits(["Al", "Ni", "Ni"], 1.0)
    batch = rng.random((5, 3, 3))
    alone = [float(contact_ratio(matrix, frac, limits)) for frac in batch]
    assert contact_ratio(matrix, batch, limits) == pytest.approx(alone)


def test_nonsense_has_no_distance() -> None:
    """Flat cells and numbers that are none give ratio 0, so that every check rejects them."""
    limits = contact_limits(["Al"], 1.0)
    flat = np.array([[4.0, 0, 0], [0, 4.0, 0], [4.0, 4.0, 0.01]])
    assert contact_ratio(flat, np.zeros((1, 3)), limits) == 0.0
    assert contact_ratio(np.diag([4.0] * 3), np.full((1, 3), np.nan), limits) == 0.0


def test_plain_cell_is_primitive_and_bare() -> None:
    """A decorated conventional supercell comes back as the two-atom primitive cell."""
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.16), ["Sr2+", "O2-"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    salt.add_site_property("magmom", [0.0] * len(salt))
    salt.make_supercell([2, 1, 1])
    cell = plain_cell(salt)
    assert cell is not None
    assert cell.composition.formula == "Sr1 O1"
    assert not cell.site_properties
    assert cell.volume == pytest.approx(5.16**3 / 4)
    assert cell.get_distance(0, 1) == pytest.approx(5.16 / 2)


def test_unusable_parents_have_no_cell(bad_parents: tuple[Parent, ...]) -> None:
    """Disordered, empty, flat and non-finite crystals are refused without an error."""
    usable = [p.parent_id for p in bad_parents if plain_cell(p.structure) is not None]
    assert usable in ([], ["stacked"])
