"""Meshes of k-points, and what a plane-wave calculation will cost."""

from __future__ import annotations

import math

import numpy as np
from ase.units import Bohr, Ha
from pymatgen.core import Structure

from matloop.engines.gpaw.datasets import valence
from matloop.structures.symmetry import SymmetryError, rotations

_FOURIER = 4.3e-9  # s per band, k-point and FFT-grid point times its logarithm, per SCF step
_ALGEBRA = 6.0e-8  # s per band pair, k-point and plane wave, per SCF step
_OVERHEAD = 1.5e-3  # s per k-point, per SCF step
_START = (1.9, 0.5)  # s for the first geometry, and for each following one
_SCF_STEPS = (10, 7)  # of the first geometry, and of each following one


def kpoint_mesh(structure: Structure, density: float) -> tuple[int, int, int]:
    """Return the divisions of a Γ-centred mesh.

    Parameters
    ----------
    structure
        The crystal.
    density
        Points per length of reciprocal space (1/Å^-1, the factor 2π included): a density of 4 is
        a spacing of at most 0.25/Å.
    """
    lengths = structure.lattice.reciprocal_lattice.abc
    first, second, third = (max(1, math.ceil(density * length - 1e-6)) for length in lengths)
    return first, second, third


def plane_waves(structure: Structure, cutoff: float) -> float:
    """Return the number of plane waves: the reciprocal sphere of the cutoff (eV) over its cell."""
    return float(structure.volume / Bohr**3 * (2 * cutoff / Ha) ** 1.5 / (6 * math.pi**2))


def geometries(structure: Structure, max_steps: int, relax: str) -> int:
    """Return how many geometries a relaxation is expected to need.

    Five for the cell and one for every atom: more than a BFGS search needs that starts from a
    crystal relaxed with a potential. One without a relaxation.
    """
    if relax == "none":
        return 1
    return min(max_steps, 4 * (relax == "cell") + len(structure)) + 1


def seconds(
    structure: Structure,
    *,
    functional: str,
    cutoff: float,
    density: float,
    spins: int,
    steps: int,
) -> float:
    """Return the estimated time on one core (s).

    Per step of self-consistency and per irreducible k-point and spin, every band is Fourier
    transformed (bands times grid log grid), and the bands are made orthogonal (bands squared times
    plane waves). The constants are a fit to ten static calculations of 1 to 8 atoms on one core,
    300 to 600 eV, which it meets within a factor of 0.6 to 1.3. Another processor, or a crystal
    that is hard to make self-consistent, can differ by more.

    Parameters
    ----------
    structure
        The crystal.
    functional, cutoff, density
        As the engine's.
    spins
        1, or 2 with spin polarisation.
    steps
        Geometries.
    """
    electrons = sum(valence(site.specie.symbol, functional) for site in structure)
    bands = max(electrons / 2 * 1.2 + 2, 4)
    waves = plane_waves(structure, cutoff)
    grid = 16 * waves  # a box around twice the sphere's radius
    points = irreducible(structure, density)
    fourier = _FOURIER * bands * grid * math.log2(grid)
    algebra = _ALGEBRA * bands**2 * waves
    per_step = points * spins * (_OVERHEAD + fourier + algebra)
    scf_steps = _SCF_STEPS[0] + _SCF_STEPS[1] * (steps - 1)
    return _START[0] + _START[1] * (steps - 1) + per_step * scf_steps


def irreducible(structure: Structure, density: float) -> float:
    """Return about how many k-points are left after symmetry, time reversal included."""
    mesh = math.prod(kpoint_mesh(structure, density))
    try:
        found = rotations(structure)
    except SymmetryError:
        return (mesh + 1) / 2
    inverted = any(np.array_equal(rotation, -np.eye(3)) for rotation in found)
    operations = len(found) * (1 if inverted else 2)
    # A point on a mirror or axis has fewer images: the surface of the irreducible wedge.
    return float(max(1.0, mesh / operations + mesh ** (2 / 3) / math.sqrt(operations)))
