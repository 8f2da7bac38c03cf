"""Geometries with energies and forces, as task documents hold them: labels for potentials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pymatgen.core import Structure

from matloop.documents.labelled import Frame, kept

KBAR = 1602.176634
"""kbar per eV/Å^3; codes that write kbar call the pressure on the cell positive."""


def frames_of(output: Any, structure: Structure, shift: float = 0.0) -> tuple[Frame, ...]:
    """Return the geometries of a calculation whose document is like those of atomate2.

    The steps of a relaxation are taken only if they end with the document's own energy: otherwise
    the energy was computed with other settings than they were.

    Parameters
    ----------
    output
        The document's ``output``: ``energy``, ``forces`` (eV/Å), ``stress`` (kbar), and perhaps
        ``ionic_steps`` of the same with a structure each.
    structure
        The final crystal.
    shift
        Energy added to each geometry (eV): corrections, which depend on composition alone.
    """
    last = _frame(structure, output.energy, output.forces, output.stress, shift)
    steps = getattr(output, "ionic_steps", None) or ()
    if not isinstance(steps, Sequence):
        steps = ()
    found = [_frame(s.structure, s.energy, s.forces, s.stress, shift) for s in steps]
    known = [frame for frame in found if frame is not None]
    if last is not None and known and math.isclose(known[-1].energy, last.energy, abs_tol=1e-5):
        return kept([*known[:-1], last])
    return (last,) if last is not None else ()


def _frame(
    structure: Structure | None, energy: Any, forces: Any, stress: Any, shift: float
) -> Frame | None:
    """Return one geometry; None where something is missing or not finite."""
    if structure is None or energy is None or forces is None or len(forces) != len(structure):
        return None
    numbers = np.array(forces, dtype=float)
    tensor = None if stress is None else -np.array(stress, dtype=float) / KBAR
    if not (math.isfinite(energy) and np.isfinite(numbers).all()):
        return None
    if tensor is not None and (tensor.shape != (3, 3) or not np.isfinite(tensor).all()):
        tensor = None
    bare = Structure(structure.lattice, structure.species, structure.frac_coords)
    return Frame(
        structure=bare,
        energy=float(energy) + shift,
        forces=tuple(map(tuple, numbers.tolist())),
        stress=None if tensor is None else tuple(map(tuple, (0.5 * (tensor + tensor.T)).tolist())),
    )
