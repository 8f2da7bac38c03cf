"""Which of several completions of a crystal is kept: one without a clash that costs least."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from pymatgen.core import Structure

from matloop.generators.cells import is_sane
from matloop.generators.neural.architecture import Penalty

COMPLETIONS = 4
"""Cells and coordinates drawn for each set of sites; the likeliest without a clash is kept."""

PENALISED_COMPLETIONS = 12
"""The same where a penalty chooses among them."""

CLASH = 0.6
"""Fraction of the sum of two covalent radii below which two atoms clash."""


def costs(
    crystals: Sequence[Structure | None], likelihood: Sequence[float], penalty: Penalty | None
) -> list[float]:
    """Return what speaks against each crystal: its penalty, or how unlikely it is.

    Parameters
    ----------
    crystals
        None for those that are not sound, whose penalty is infinite.
    likelihood
        Logarithm of the likelihood of each.
    penalty
        What chooses instead, if anything.
    """
    if penalty is None:
        return [-one for one in likelihood]
    found = [math.inf] * len(crystals)
    rows = [row for row, one in enumerate(crystals) if one is not None]
    sound = [one for one in crystals if one is not None]
    if not sound:
        return found
    sizes = torch.tensor([len(one) for one in sound])
    penalties = penalty(
        torch.tensor([site.specie.Z for one in sound for site in one]),
        torch.tensor(np.concatenate([one.frac_coords for one in sound]), dtype=torch.float32),
        torch.tensor(np.stack([one.lattice.matrix for one in sound]), dtype=torch.float32),
        torch.repeat_interleave(torch.arange(len(sound)), sizes),
    )
    for row, cost in zip(rows, penalties.tolist(), strict=True):
        found[row] = cost if math.isfinite(cost) else math.inf
    return found


def clashes(structure: Structure) -> bool:
    """Whether two atoms are closer than `CLASH` allows."""
    return not is_sane(structure, CLASH)
