"""CAMD's OQMD set: formation energies with Voronoi features, and no cheap fidelity."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.discovery.known import KnownHull
from benchmarks.discovery.problem import (
    Problem,
    candidate,
    composition,
    numbers,
    placeholder,
    read_table,
)
from matloop.documents.candidate import Quantity

ON_THE_HULL = 1e-6  # eV/atom
NOT_FEATURES = ("oqmd_id", "Composition", "delta_e", "N_species", "stability", "structure")


def load(data: Path, threshold: float) -> Problem:
    """Return the problem in a table with the columns ``Composition`` and ``delta_e``.

    All other columns of numbers are features of the crystals (in CAMD's set 271 of Magpie and of
    Voronoi tessellations); those that hold a gap are left out. At the start only the elements are
    known, with a formation energy of 0. A crystal is a discovery if it lies on the hull of all rows
    and of the elements; of two with one composition only the lower one can.

    Parameters
    ----------
    data
        CSV file.
    threshold
        Distance to that hull up to which a crystal is a discovery (eV/atom).

    Raises
    ------
    ConfigurationError
        In one line, what the file lacks.
    """
    table = read_table(data, ("Composition", "delta_e"))
    energies = numbers(table, "delta_e", data)
    formulas = [
        composition(str(text), data, row + 2) for row, text in enumerate(table["Composition"])
    ]
    features = {
        str(name): table[name].to_numpy(dtype=float)
        for name in table
        if str(name) not in NOT_FEATURES
        and not str(name).startswith("Unnamed")
        and pd.api.types.is_numeric_dtype(table[name])
        and np.isfinite(table[name].to_numpy(dtype=float)).all()
    }
    candidates = [
        candidate(str(row), placeholder(formula)).updated(
            None, {name: Quantity(value=float(values[row])) for name, values in features.items()}
        )
        for row, formula in enumerate(formulas)
    ]
    everything = KnownHull(zip(formulas, energies.tolist(), strict=True))
    return Problem(
        name="oqmd",
        candidates=candidates,
        truth=energies,  # above the elements: all that is known at the start
        stable=energies - everything.energies(formulas) <= threshold + ON_THE_HULL,
        estimates={},
        representation="composition",
        prototypes=[formula.anonymized_formula for formula in formulas],
        threshold=threshold,
        inputs=tuple(features),
        hull=partial(KnownHull, ()),
        formation=energies,
        notes={"features": len(features)},
    )
