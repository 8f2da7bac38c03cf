"""Supercells that keep the symmetry of a crystal, no larger than they must be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def supercell_matrix(
    cell: Floats, rotations: Integers, min_length: float, *, max_cells: int
) -> Integers:
    """Return the supercell of fewest primitive cells whose images are far enough apart.

    All sublattices are tried, in the order of their volumes, that

    - every rotation of the crystal maps onto themselves, since force constants from others break
      its symmetry;
    - hold every wave vector with components of 0 and 1/2, the zone boundary, where crystals double
      their cells: a mode there is then exact, not interpolated.

    Of those of the same volume the one is taken that keeps images furthest apart. A cubic
    perovskite with an edge of 3.9 Å reaches 10 Å with a face-centred supercell of 80 atoms; a
    simple cube needs 320.

    Parameters
    ----------
    cell
        Vectors of the primitive cell as rows (Å).
    rotations
        Rotations of the crystal in fractional coordinates of that cell, acting on columns, shape
        (k, 3, 3).
    min_length
        Shortest allowed distance between an atom and its own image (Å).
    max_cells
        Most primitive cells in the supercell.

    Returns
    -------
    numpy.ndarray
        Vectors of the supercell as rows, in terms of those of the primitive cell.

    Raises
    ------
    ValueError
        If every such supercell has more than `max_cells` cells.

    References
    ----------
    Sublattices as Hermite normal forms: Hart and Forcade, Phys. Rev. B 77, 224115 (2008).
    """
    doubled = 2.0 * cell
    # A lattice of volume V has a vector of at most (sqrt(2) V)^(1/3): closest packing of spheres.
    volume = abs(np.linalg.det(doubled))
    least = max(1, int(np.ceil(min_length**3 / (np.sqrt(2.0) * volume) - 1e-9)))
    if least <= max_cells // 8:
        vectors, lengths = _short_vectors(doubled, 1.5 * min_length)
    for size in range(least, max_cells // 8 + 1):
        forms = _kept(_hermite_forms(size), size, rotations)
        contained = (np.einsum("vi,hij->hvj", vectors, _adjugates(forms)) % size == 0).all(axis=2)
        shortest = np.where(contained, lengths, np.inf).min(axis=1, initial=np.inf)
        if len(forms) and shortest.max() >= min_length - 1e-6:
            return np.asarray(2 * forms[int(np.argmax(shortest))])
    raise ValueError(f"images {min_length:g} Å apart take more than {max_cells} primitive cells")


def _hermite_forms(size: int) -> Integers:
    """Return every sublattice of a volume once, as upper triangular matrices of rows."""
    parts = []
    for a in (n for n in range(1, size + 1) if size % n == 0):
        for d in (n for n in range(1, size // a + 1) if size // a % n == 0):
            f = size // a // d
            b, c, e = np.indices((d, f, f)).reshape(3, -1)
            rows = np.zeros((len(b), 3, 3), dtype=np.int64)
            rows[:, 0, 0], rows[:, 1, 1], rows[:, 2, 2] = a, d, f
            rows[:, 0, 1], rows[:, 0, 2], rows[:, 1, 2] = b, c, e
            parts.append(rows)
    return np.concatenate(parts)


def _kept(forms: Integers, size: int, rotations: Integers) -> Integers:
    """Return the sublattices that all rotations map onto themselves."""
    for rotation in rotations:
        images = forms @ rotation.T @ _adjugates(forms)
        forms = forms[(images % size == 0).all(axis=(1, 2))]
    return forms


def _adjugates(forms: Integers) -> Integers:
    """Return det(H) times the inverse of each upper triangular matrix, in whole numbers."""
    a, b, c = forms[:, 0].T
    d, e, f = forms[:, 1, 1], forms[:, 1, 2], forms[:, 2, 2]
    zero = np.zeros_like(a)
    rows = [[d * f, -b * f, b * e - c * d], [zero, a * f, -a * e], [zero, zero, a * d]]
    return np.array(rows).transpose(2, 0, 1)


def _short_vectors(cell: Floats, length: float) -> tuple[Integers, Floats]:
    """Return the lattice vectors up to a length in terms of the cell's, and their lengths (Å)."""
    reach = np.ceil(length * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int)
    grid = np.indices(2 * reach + 1).reshape(3, -1).T - reach
    lengths = np.linalg.norm(grid @ cell, axis=1)
    chosen = (lengths <= length) & (lengths > 0)
    return grid[chosen], lengths[chosen]
