"""Crystals as arrays of elements, fractional coordinates and six cell numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Element
from scipy.linalg import polar
from torch import Tensor

from matloop.generators.neural.architecture import Batch, Row, Statistics, TrainingCrystal
from matloop.generators.neural.data_statistics import (
    elements_of,
    formula_units,
    property_scales,
    standardised_properties,
)
from matloop.structures.symmetry import SymmetryError, space_group

SYMPREC = 0.1
"""Tolerance with which the space group of a training crystal is found (Å)."""

_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
_LARGEST = 10.0  # cell numbers beyond it, in spreads, belong to no crystal


def statistics_of(crystals: Sequence[TrainingCrystal], properties: Sequence[str]) -> Statistics:
    """Return vocabulary, scales of cell numbers and properties, and histograms of sizes.

    Parameters
    ----------
    crystals
        The training data.
    properties
        Names of the properties the model is to be asked for.
    """
    cells = np.array(
        [cell_numbers(one.structure.lattice.matrix, len(one.structure)) for one in crystals]
    )
    atoms = Counter(len(one.structure) for one in crystals)
    return {
        "elements": [str(element) for element in sorted(map(Element, elements_of(crystals)))],
        "properties": property_scales(crystals, properties),
        "cell_mean": cells.mean(axis=0).tolist(),
        "cell_spread": np.maximum(cells.std(axis=0), 0.02).tolist(),
        "atoms": {str(n): count for n, count in sorted(atoms.items())},
        "formula_units": formula_units(crystals),
    }


def encode(crystal: TrainingCrystal, statistics: Statistics) -> Row | None:
    """Return a crystal as arrays; None if it holds an element the statistics do not.

    Returns
    -------
    Row
        ``species``, shape (n,), places in the vocabulary; ``frac``, shape (n, 3); ``cell``,
        standardised cell numbers, shape (6,); ``group``, space group; ``properties``, standardised,
        NaN where unknown.
    """
    place = {symbol: index for index, symbol in enumerate(statistics["elements"])}
    structure = crystal.structure
    if not set(structure.symbol_set) <= set(place):
        return None
    try:
        group = space_group(structure, SYMPREC).number
    except SymmetryError:
        group = 0
    cell = cell_numbers(structure.lattice.matrix, len(structure))
    return {
        "species": np.array([place[site.specie.symbol] for site in structure], np.int64),
        "frac": np.array(structure.frac_coords % 1.0, np.float32),
        "cell": standardised(cell, statistics).astype(np.float32),
        "group": np.array(group, np.int64),
        "properties": standardised_properties(crystal.properties, statistics),
    }


def collate(
    rows: Sequence[Row], statistics: Statistics, rng: np.random.Generator | None, drop: float
) -> Batch:
    """Return rows as one padded batch.

    With `rng`, crystals are moved by a random translation and inverted through the origin in half
    of the cases, which leaves the cell as it is, and conditions are left out at random. Without,
    nothing is moved and no condition is given.

    Parameters
    ----------
    rows
        Encoded crystals.
    statistics
        Of the training data.
    rng
        Randomness of augmentation; None for none.
    drop
        Share of the crystals that are given no condition at all; of the others, each condition is
        left out of half.

    Returns
    -------
    Batch
        ``species`` (m, n), ``frac`` (m, n, 3), ``cell`` (m, 6), ``real`` (m, n), and the conditions
        ``present`` (m, elements), ``group`` (m,), ``properties`` (m, p): zeros, zeros and NaN where
        nothing is asked.
    """
    count, most = len(rows), max(len(row["species"]) for row in rows)
    n_elements = len(statistics["elements"])
    species = np.full((count, most), n_elements, np.int64)
    frac = np.zeros((count, most, 3), np.float32)
    real = np.zeros((count, most), bool)
    present = np.zeros((count, n_elements), np.float32)
    for index, row in enumerate(rows):
        n = len(row["species"])
        species[index, :n], frac[index, :n], real[index, :n] = row["species"], row["frac"], True
        present[index, row["species"]] = 1.0
    group = np.array([int(row["group"]) for row in rows])
    asked = np.stack([row["properties"] for row in rows])
    if rng is None:
        present[:], group[:], asked[:] = 0.0, 0, np.nan
    else:
        signs = rng.choice(np.array([-1.0, 1.0], np.float32), (count, 1, 1))
        frac = (frac * signs + rng.random((count, 1, 3), np.float32)) % 1.0
        keep = (rng.random((3, count)) < 0.5) & (rng.random(count) >= drop)
        present *= keep[0, :, None]
        group *= keep[1]
        asked = np.where(keep[2, :, None] & (rng.random(asked.shape) < 0.7), asked, np.nan)
    return {
        "species": torch.from_numpy(species),
        "frac": torch.from_numpy(frac),
        "cell": torch.from_numpy(np.stack([row["cell"] for row in rows])),
        "real": torch.from_numpy(real),
        "present": torch.from_numpy(present),
        "group": torch.from_numpy(group),
        "properties": torch.from_numpy(asked),
    }


def cell_numbers(matrix: NDArray[np.float64], n_atoms: int) -> NDArray[np.float64]:
    """Return the six numbers of a cell: its logarithmic strain from a cube of n Å³.

    The stretch S of the polar decomposition of the lattice is symmetric, so log S - log(n) / 3 has
    six free numbers, whatever the orientation, and every six numbers are a cell of positive volume.

    Parameters
    ----------
    matrix
        Lattice vectors in rows (Å).
    n_atoms
        Atoms in the cell.
    """
    _, stretch = polar(np.asarray(matrix, dtype=float), side="left")
    values, vectors = np.linalg.eigh(stretch)
    logs = (vectors * np.log(np.maximum(values, 1e-6))) @ vectors.T
    logs -= np.eye(3) * np.log(n_atoms) / 3
    return np.array([logs[pair] for pair in _PAIRS])


def standardised(
    cell: NDArray[np.float64], statistics: Mapping[str, object]
) -> NDArray[np.float64]:
    """Return cell numbers minus their mean over their spread."""
    found: NDArray[np.float64] = (cell - np.array(statistics["cell_mean"])) / np.array(
        statistics["cell_spread"]
    )
    return found


def lattices(cell: Tensor, n_atoms: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Return lattice vectors in rows (Å), shape (m, 3, 3); differentiable.

    Parameters
    ----------
    cell
        Standardised cell numbers, shape (m, 6).
    n_atoms
        Atoms of each cell, shape (m,).
    mean, spread
        Of the cell numbers, shape (6,).
    """
    numbers = cell.clamp(-_LARGEST, _LARGEST) * spread + mean
    diagonal = numbers[:, :3] + torch.log(n_atoms.to(numbers.dtype))[:, None] / 3
    xy, xz, yz = numbers[:, 3], numbers[:, 4], numbers[:, 5]
    rows = [diagonal[:, 0], xy, xz, xy, diagonal[:, 1], yz, xz, yz, diagonal[:, 2]]
    found: Tensor = torch.matrix_exp(torch.stack(rows, dim=-1).reshape(-1, 3, 3))
    return found
