"""Wyckoff positions in primitive cells, and filling them."""

from __future__ import annotations

import numpy as np
import pytest
from moyopy import Cell, MoyoDataset

from matloop.generators.wyckoff import fill, space_group


@pytest.mark.parametrize("number", [2, 5, 12, 38, 43, 62, 139, 146, 166, 194, 216, 227, 229, 230])
def test_general_position_has_the_group(number: int) -> None:
    """Sites of the general position in a fitting cell have just this space group."""
    group = space_group(number)
    rng = np.random.default_rng(number)
    lengths = {
        "triclinic": [[5, 0.3, 0.2], [0.4, 6, 0.7], [0.5, 0.9, 7]],
        "monoclinic": [[5, 0, 0], [0, 6, 0], [1.3, 0, 7]],
        "orthorhombic": np.diag([5, 6, 7]),
        "tetragonal": np.diag([5, 5, 7]),
        "trigonal": [[5, 0, 0], [-2.5, 5 * np.sqrt(0.75), 0], [0, 0, 7]],
        "hexagonal": [[5, 0, 0], [-2.5, 5 * np.sqrt(0.75), 0], [0, 0, 7]],
        "cubic": np.diag([5, 5, 5]),
    }
    matrix = group.primitive @ np.array(lengths[group.lattice_type], dtype=float)
    # Two orbits of unlike atoms: one alone may have a larger group.
    general = group.positions[0]
    sites = general.sites(rng.random((2, 3)))
    frac = np.concatenate([sites[0], sites[1]]) % 1.0
    numbers = [1] * general.multiplicity + [2] * general.multiplicity
    dataset = MoyoDataset(Cell(matrix.tolist(), frac.tolist(), numbers), symprec=1e-4)
    assert dataset.number == number
    assert len(dataset.prim_std_cell.numbers) == len(numbers)


def test_filling_uses_fixed_positions_once() -> None:
    """Perovskite fits into Pm-3m; two atoms of one kind and nothing else fit but as 1a and 1b."""
    group = space_group(221)
    rng = np.random.default_rng(0)
    for _ in range(20):
        orbits = fill(group, {"Sr": 1, "Ti": 1, "O": 3}, rng)
        assert orbits is not None
        assert sorted(position.multiplicity for _, position in orbits) == [1, 1, 3]
        letters = [position.letter for _, position in orbits]
        assert len(set(letters)) == len(letters)
    pair = fill(group, {"Sr": 2}, rng)
    assert pair is not None
    assert sorted(position.letter for _, position in pair) == ["a", "b"]


def test_impossible_filling_is_none() -> None:
    """Two kinds of three single atoms do not fit into Pm-3m, which has two single sites."""
    rng = np.random.default_rng(0)
    assert fill(space_group(221), {"Sr": 1, "Ti": 1, "O": 1}, rng) is None
    assert fill(space_group(230), {"Si": 1}, rng) is None
