"""Labels for potentials, as task documents of atomate2 hold them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.engines.frames import KBAR, frames_of

SALT = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
FORCES = [[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]]


def step(energy: float, **fields: object) -> SimpleNamespace:
    given = {"structure": SALT, "energy": energy, "forces": FORCES, "stress": None}
    return SimpleNamespace(**{**given, **fields})


def test_units_and_signs() -> None:
    """10 kbar of pressure are a negative Cauchy stress; corrections shift the energy."""
    stress = np.diag([10.0, 10.0, 10.0]).tolist()
    (frame,) = frames_of(step(-7.0, stress=stress, ionic_steps=None), SALT, shift=-0.5)
    assert frame.energy == -7.5
    assert frame.forces[0] == (0.1, 0.0, 0.0)
    assert frame.stress[0][0] == pytest.approx(-10.0 / KBAR)
    assert frame.stress[0][0] * 160.2176634 == pytest.approx(-1.0)  # GPa


def test_steps_count_if_they_end_with_the_energy() -> None:
    """A relaxation is kept, at most ten of it; with other settings at the end only the end is."""
    steps = [step(-6.0 - 0.05 * i) for i in range(21)]
    same = frames_of(step(-7.0, ionic_steps=steps), SALT)
    assert len(same) == 10
    assert (same[0].energy, same[-1].energy) == (-6.0, -7.0)
    assert len(frames_of(step(-7.3, ionic_steps=steps), SALT)) == 1


def test_incomplete_documents_leave_nothing() -> None:
    """Without forces, with too few of them, or with NaN there is no label."""
    for broken in (step(-7.0, forces=None), step(-7.0, forces=FORCES[:1]), step(float("nan"))):
        broken.ionic_steps = None
        assert frames_of(broken, SALT) == ()
