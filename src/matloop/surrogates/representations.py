"""What a crystal is to a statistical model: descriptors, by name, and quantities it carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop.documents.candidate import Quantity
from matloop.surrogates import descriptors, elements, embedding

Array = NDArray[np.float64]

Representation = Literal["crystal", "composition", "chgnet"]
"""``crystal``: composition, geometry and symmetry; ``composition`` alone, for crystals whose atoms
are not placed yet; ``chgnet``: composition, and what CHGNet has learned of such crystals."""


def feature_names(representation: Representation) -> tuple[str, ...]:
    """Return the name of each number of a representation."""
    if representation == "composition":
        return elements.COMPOSITION_FEATURES
    if representation == "chgnet":
        return (*elements.COMPOSITION_FEATURES, *embedding.FEATURES)
    return descriptors.FEATURES


def represent(
    representation: Representation, structures: Sequence[Structure]
) -> tuple[Array, dict[int, str]]:
    """Return the descriptors of crystals, and why some have none.

    Returns
    -------
    features
        Shape (len(structures), len(feature_names(representation))); rows of NaN where a crystal
        has no descriptor.
    failures
        Reason by row.
    """
    if representation == "crystal":
        return descriptors.describe_all(structures)
    features = np.full((len(structures), len(elements.COMPOSITION_FEATURES)), np.nan)
    failures: dict[int, str] = {}
    for index, structure in enumerate(structures):
        try:
            features[index] = elements.describe_composition(structure.composition)
        except ValueError as error:
            failures[index] = str(error)
    if representation == "chgnet":
        latent, none = embedding.embed_all(structures)
        features, failures = np.hstack([features, latent]), {**none, **failures}
        features[list(failures)] = np.nan
    return features, failures


def reading(inputs: Sequence[str], estimates: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the names of all quantities that a surrogate reads, each once, in order."""
    return tuple(dict.fromkeys([*inputs, *(name for of in estimates.values() for name in of)]))


def carried(quantities: Sequence[Mapping[str, Quantity]], names: Sequence[str]) -> Array:
    """Return values of quantities, shape (len(quantities), len(names)); NaN where there is none."""
    table = np.full((len(quantities), len(names)), np.nan)
    for row, known in enumerate(quantities):
        for column, name in enumerate(names):
            if name in known and np.isfinite(known[name].value):
                table[row, column] = known[name].value
    return table
