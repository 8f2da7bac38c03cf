"""The symmetry a crystal starts with, and forces with their asymmetric noise taken out.

Forces of a symmetric crystal are symmetric, and so is every step of FIRE and of BFGS; only rounding
errors are not. Where the symmetric path runs along a ridge, they grow from step to step until the
crystal falls off to one side, which side depending on the machine and on the rest of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import moyopy
import numpy as np

from matloop.evaluators.mlip.model import Floats, Integers, Member

SYMPREC = 1e-3
"""Distance (Å) within which a start counts as symmetric: that of coordinates with few digits."""


@dataclass(frozen=True)
class SiteSymmetry:
    """The space group of a cell, as rotations and permutations of its atoms.

    Attributes
    ----------
    rotations
        Cartesian rotations, shape (k, 3, 3).
    images
        The atom onto which each operation takes each atom, shape (k, n).
    """

    rotations: Floats
    images: Integers

    def of_atoms(self, forces: Floats) -> Floats:
        """Return the symmetric part of one vector per atom, shape (n, 3)."""
        turned = np.einsum("kba,knb->na", self.rotations, forces[self.images])
        result: Floats = turned / len(self.rotations)
        return result

    def of_cell(self, matrix: Floats) -> Floats:
        """Return the symmetric part of a Cartesian tensor such as a stress, shape (3, 3)."""
        turned = np.einsum("kba,bc,kcd->ad", self.rotations, matrix, self.rotations)
        result: Floats = turned / len(self.rotations)
        return result


def site_symmetry(member: Member, symprec: float = SYMPREC) -> SiteSymmetry | None:
    """Return the symmetry of a crystal; None if it has none but translations of the lattice."""
    fractional = member.positions @ np.linalg.inv(member.cell)
    cell = moyopy.Cell(member.cell.tolist(), fractional.tolist(), member.numbers.tolist())
    try:
        operations = moyopy.MoyoDataset(cell, symprec=symprec).operations
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic in the compiled library is no Exception
        return None
    turns = np.array(operations.rotations, dtype=np.float64)
    if len(turns) < 2:
        return None
    lattice = member.cell.T  # lattice vectors as columns
    rotations = lattice @ turns @ np.linalg.inv(lattice)
    if not np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=0.01):
        return None
    images = []
    for turn, shift in zip(turns, np.array(operations.translations), strict=True):
        away = (fractional @ turn.T + shift)[:, None, :] - fractional[None, :, :]
        distances = np.linalg.norm((away - np.round(away)) @ member.cell, axis=2)
        distances[member.numbers[:, None] != member.numbers[None, :]] = np.inf
        nearest = distances.argmin(axis=1)
        if len(np.unique(nearest)) < len(nearest):
            return None
        images.append(nearest)
    return SiteSymmetry(_orthogonal(rotations), np.array(images, dtype=np.int64))


def _orthogonal(matrices: Floats) -> Floats:
    """Return the nearest rotations: a cell within the tolerance is not exactly symmetric."""
    left, _, right = np.linalg.svd(matrices)
    result: Floats = left @ right
    return result
