"""What architectures take from their training data: elements, cell sizes, scales of properties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from matloop.generators.neural.architecture import Statistics, TrainingCrystal


def elements_of(crystals: Sequence[TrainingCrystal]) -> list[str]:
    """Return the symbols of all elements, in alphabetical order."""
    return sorted({symbol for one in crystals for symbol in one.structure.symbol_set})


def formula_units(crystals: Sequence[TrainingCrystal]) -> dict[str, int]:
    """Return how many crystals have how many formula units in the primitive cell."""
    units = Counter(
        int(one.structure.composition.get_reduced_formula_and_factor()[1]) for one in crystals
    )
    return {str(z): count for z, count in sorted(units.items())}


def property_scales(
    crystals: Sequence[TrainingCrystal], properties: Sequence[str]
) -> dict[str, list[float]]:
    """Return mean and standard deviation of each property, where it is known."""
    scales = {}
    for name in properties:
        values = [one.properties[name] for one in crystals if name in one.properties]
        scales[name] = [float(np.mean(values)), float(np.std(values)) or 1.0]
    return scales


def standardised_properties(
    values: Mapping[str, float], statistics: Statistics
) -> NDArray[np.float32]:
    """Return properties over their scales, shape (p,), one at least; NaN where there is none.

    Parameters
    ----------
    values
        In the units of the data, by name.
    statistics
        With `property_scales` under ``properties``.
    """
    scaled = [
        (values.get(name, np.nan) - mean) / spread
        for name, (mean, spread) in statistics["properties"].items()
    ]
    return np.array(scaled or [np.nan], np.float32)
