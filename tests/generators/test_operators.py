"""Evolutionary operators: what each keeps and what it changes."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matloop.generators.cells import contact_limits
from matloop.generators.operators import (
    Draft,
    crossover,
    doubled,
    is_open,
    permutation,
    rattle,
    recompose,
    relieve,
    strain,
    upright,
)

PEROVSKITE = Draft(
    ("Sr", "Ti", "O", "O", "O"),
    np.diag([3.9, 3.9, 3.9]),
    np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]),
)
ALLOY = Draft(("Al", "Ni"), np.diag([2.9, 2.9, 2.9]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))


def structure(draft: Draft) -> Structure:
    return Structure(Lattice(draft.matrix), draft.symbols, draft.frac)


@pytest.mark.parametrize("seed", range(20))
def test_crossover_holds_atoms_of_both(seed: int) -> None:
    """Children of parents without a common element hold elements of both, at the mean density."""
    child = crossover(PEROVSKITE, ALLOY, np.random.default_rng(seed))
    if child is None:
        return
    assert set(child.symbols) & {"Sr", "Ti", "O"}
    assert set(child.symbols) & {"Al", "Ni"}
    mean = 0.5 * (PEROVSKITE.volume / 5 + ALLOY.volume / 2)
    assert child.volume / len(child.symbols) == pytest.approx(mean)


def test_slabs_keep_their_inside() -> None:
    """Slabs keep what lies inside them: many Ti-O bonds of the parents are there unchanged."""
    rng = np.random.default_rng(1)
    big = doubled(doubled(doubled(PEROVSKITE, rng), rng), rng)
    kept, titanium = 0, 0
    children = [child for _ in range(12) if (child := crossover(big, big, rng)) is not None]
    assert len(children) >= 8
    for child in children:
        crystal = structure(child)
        for site in crystal:
            if site.specie.symbol == "Ti":
                titanium += 1
                near = crystal.get_neighbors(site, 2.4)
                kept += sum(other.specie.symbol == "O" for other in near) >= 5
    assert kept > 0.3 * titanium


@pytest.mark.parametrize("seed", range(5))
def test_strain_keeps_composition_and_volume(seed: int) -> None:
    """A strain changes the cell's shape and nothing else."""
    child = strain(PEROVSKITE, np.random.default_rng(seed), 0.1)
    assert child.symbols == PEROVSKITE.symbols
    assert child.volume == pytest.approx(PEROVSKITE.volume)
    assert np.array_equal(child.frac, PEROVSKITE.frac)
    before, after = Lattice(PEROVSKITE.matrix), Lattice(child.matrix)
    assert not np.allclose(before.parameters, after.parameters, rtol=0.01)


def test_permutation_keeps_composition() -> None:
    """Swaps keep the counts and the sites; a pure element has nothing to swap."""
    child = permutation(PEROVSKITE, np.random.default_rng(0))
    assert child is not None
    assert sorted(child.symbols) == sorted(PEROVSKITE.symbols)
    assert child.symbols != PEROVSKITE.symbols
    pure = Draft(("Al",), np.diag([3.0] * 3), np.zeros((1, 3)))
    assert permutation(pure, np.random.default_rng(0)) is None


def test_rattle_moves_by_its_width() -> None:
    """Steps have the width asked for, in ångström, in any cell."""
    rng = np.random.default_rng(0)
    skewed = Draft(
        ("Al",) * 200, np.array([[9, 0, 0], [5, 8, 0], [2, 3, 9.0]]), rng.random((200, 3))
    )
    moved = (rattle(skewed, rng, 0.2).frac - skewed.frac) @ skewed.matrix
    assert moved.std() == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize("seed", range(7))
def test_doubling_is_the_same_crystal(seed: int) -> None:
    """Two cells side by side are the crystal they were made of."""
    twice = doubled(PEROVSKITE, np.random.default_rng(seed))
    assert len(twice.symbols) == 10
    assert twice.volume == pytest.approx(2 * PEROVSKITE.volume)
    assert StructureMatcher(scale=False).fit(structure(twice), structure(PEROVSKITE))


@pytest.mark.parametrize(
    "target",
    [{"Sr": 2, "Ti": 1, "O": 4}, {"Sr": 1, "O": 1}, {"Ti": 2, "O": 4}, {"Sr": 1, "Ti": 1, "O": 3}],
)
def test_recompose_reaches_its_target(target: dict[str, int]) -> None:
    """Atoms are exchanged, removed and added until the content is the one wanted."""
    child = recompose(PEROVSKITE, target, np.random.default_rng(2))
    assert child.counts == target
    assert child.frac.shape == (sum(target.values()), 3)


def test_added_atom_goes_into_the_void() -> None:
    """An oxygen added to a large empty cell stays away from the atom that is there."""
    lone = Draft(("Sr",), np.diag([6.0] * 3), np.zeros((1, 3)))
    child = recompose(lone, {"Sr": 1, "O": 1}, np.random.default_rng(0))
    assert structure(child).get_distance(0, 1) > 0.35 * child.volume ** (1 / 3) * np.sqrt(3)


def test_overlaps_are_relieved() -> None:
    """Two atoms 0.3 Å apart in a roomy cell end beyond their limit, others stay in place."""
    crowded = Draft(
        ("Ti", "O", "Sr"),
        np.diag([8.0] * 3),
        np.array([[0, 0, 0], [0.04, 0, 0], [0.5, 0.5, 0.5]]),
    )
    limits = contact_limits(crowded.symbols, 0.8)
    assert not is_open(crowded, limits)
    eased = relieve(crowded, limits)
    assert is_open(eased, limits)
    assert np.allclose(eased.frac[2], 0.5)


def test_upright_cells_are_the_same_lattice() -> None:
    """Turning a cell upright keeps its lengths and angles."""
    matrix = np.array([[1.0, 2, 3], [0, 4, 1], [5, 0, 2]])
    assert np.allclose(Lattice(upright(matrix)).parameters, Lattice(matrix).parameters)
