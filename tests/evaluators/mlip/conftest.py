"""Crystals for tests of potentials and relaxations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run as a worker does, with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def metals() -> list[Structure]:
    """Five face-centred metals, strained and rattled, of different sizes."""
    rng = np.random.default_rng(5)
    crystals = []
    for symbol, a, repeat in [
        ("Cu", 3.7, (1, 1, 1)),
        ("Al", 4.1, (2, 1, 1)),
        ("Au", 4.0, (1, 1, 1)),
        ("Ni", 3.6, (1, 2, 1)),
        ("Pd", 4.0, (1, 1, 1)),
    ]:
        places = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
        crystal = Structure(Lattice.cubic(a), [symbol] * 4, places) * repeat
        crystals.append(shaken(crystal, rng))
    return crystals


@pytest.fixture
def compounds() -> list[Structure]:
    """Compounds with many and few neighbours, strained and rattled."""
    rng = np.random.default_rng(7)
    half = Lattice.from_parameters(1, 1, 1, 60, 60, 60)
    silicon = Structure(half.scale(40.0), ["Si", "Si"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    salt = Structure(half.scale(44.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    perovskite = Structure(
        Lattice.cubic(3.9),
        ["Sr", "Ti", "O", "O", "O"],
        [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
    )
    u = 0.305
    rutile = Structure(
        Lattice.tetragonal(4.6, 2.96),
        ["Ti", "Ti", "O", "O", "O", "O"],
        [
            [0, 0, 0],
            [0.5, 0.5, 0.5],
            [u, u, 0],
            [1 - u, 1 - u, 0],
            [0.5 + u, 0.5 - u, 0.5],
            [0.5 - u, 0.5 + u, 0.5],
        ],
    )
    oblique = Structure(
        Lattice.from_parameters(3.1, 5.2, 6.3, 62, 105, 71),
        ["Li", "Fe", "S", "S"],
        [[0.1, 0.2, 0.3], [0.6, 0.5, 0.1], [0.3, 0.8, 0.7], [0.9, 0.1, 0.8]],
    )
    crystals = [silicon, salt, perovskite, rutile, oblique]
    return [shaken(crystal, rng) for crystal in crystals]


def shaken(crystal: Structure, rng: np.random.Generator) -> Structure:
    """Return a crystal with its cell strained and its atoms moved."""
    strain = np.eye(3) + rng.normal(0.0, 0.02, (3, 3))
    cell = crystal.lattice.matrix @ strain
    moves = rng.normal(0.0, 0.06, (len(crystal), 3))
    return Structure(
        cell, crystal.species, crystal.frac_coords @ cell + moves, coords_are_cartesian=True
    )


def candidates(structures: list[Structure]) -> list[Candidate]:
    """Return structures as candidates, numbered."""
    origin = Origin(generator="test")
    return [
        Candidate(candidate_id=f"c{index}", structure=structure, origin=origin)
        for index, structure in enumerate(structures)
    ]
