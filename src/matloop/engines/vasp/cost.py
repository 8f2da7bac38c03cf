"""How many core-hours a calculation will take, estimated before it is submitted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pymatgen.core import Element, Structure

IONIC_STEPS = (15, 5, 1)
"""Ionic steps assumed for the first relaxation, the second, and the static run."""

ELECTRONIC_STEPS = 15
"""Electronic steps assumed per ionic step."""

SETUP_CORE_SECONDS = 60.0
"""Start and end of one VASP run, times cores (s)."""

_HBAR2_2M = 3.80998  # eV Å^2


@dataclass(frozen=True)
class Size:
    """What decides the cost of one run.

    Attributes
    ----------
    electrons
        Valence electrons in the cell.
    bands
        Bands per spin.
    plane_waves
        Plane waves per band.
    k_points
        Points after symmetry.
    spins
        1 or 2.
    """

    electrons: int
    bands: int
    plane_waves: int
    k_points: int
    spins: int


def valence_electrons(potential: str) -> int:
    """Return the electrons that a pseudopotential such as ``Fe_pv`` treats, from its name.

    Electrons outside the noble-gas core, without filled d shells of the p block and filled f shells
    unless the name says ``_d``; ``_pv`` adds 6, ``_sv`` 8 (2 in the second row); ``_2`` and ``_3``
    name the valence of a lanthanide outright.
    """
    symbol, _, suffix = potential.partition("_")
    element = Element(symbol)
    if suffix[:1].isdigit():
        return 6 + int(suffix[0])
    noble = max(z for z in (0, 2, 10, 18, 36, 54, 86) if z < element.Z)
    electrons = int(element.Z) - noble
    if element.Z <= 2:
        return electrons
    if element.row >= 4 and element.group >= 13 and not suffix.startswith("d"):
        electrons -= 10
    if element.row >= 6 and element.group >= 4:
        electrons -= 14
    shell = 2 if element.row == 2 else {"pv": 6, "sv": 8}.get(suffix[:2], 0)
    return electrons + (shell if suffix[:2] in ("pv", "sv") else 0)


def plane_waves(volume: float, cutoff: float) -> int:
    """Return the number of plane waves below a cutoff (eV) in a cell (Å^3)."""
    sphere = float((cutoff / _HBAR2_2M) ** 1.5)
    return max(1, round(volume * sphere / (6 * math.pi**2)))


def irreducible(structure: Structure, mesh: tuple[int, int, int]) -> int:
    """Return how many points of a mesh symmetry leaves; half of them where none is found."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        return len(SpacegroupAnalyzer(structure, symprec=0.1).get_ir_reciprocal_mesh(mesh))
    except Exception:  # spglib gives up on some cells
        return max(1, math.prod(mesh) // 2)


def core_seconds(size: Size, ionic_steps: int, gflops: float) -> float:
    """Return the core-seconds of one VASP run.

    Operations per electronic step, k-point and spin, for n bands and N plane waves: 24 n^2 N for
    two orthogonalisations and a subspace rotation in complex numbers, and 16 n Fourier transforms
    of 8 N points (5 M log2 M each). Applying projectors is hidden in the rate.

    Parameters
    ----------
    size
        The run's size.
    ionic_steps
        Ionic steps.
    gflops
        Operations per second and core that VASP achieves (10^9/s).
    """
    points = 8 * size.plane_waves
    dense = 24.0 * size.bands**2 * size.plane_waves
    fourier = 16.0 * size.bands * 5.0 * points * math.log2(max(points, 2))
    steps = ELECTRONIC_STEPS * ionic_steps * size.k_points * size.spins
    return SETUP_CORE_SECONDS + steps * (dense + fourier) / (gflops * 1e9)


def bands(electrons: int, atoms: int) -> int:
    """Return VASP's default number of bands for a magnetic run."""
    return math.ceil(max(0.5 * electrons + 0.5 * atoms, 0.6 * electrons, 4))
