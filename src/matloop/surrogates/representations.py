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

Representation = Literal["crystal", "composition", "chgnet", "mace"]
"""``crystal``: composition, geometry and symmetry; ``composition`` alone, for crystals whose atoms
are not placed yet; ``chgnet`` and ``mace``: composition, and what the potential has learned of such
crystals. The last one needs a model file."""


def feature_names(representation: Representation, latent: int = 0) -> tuple[str, ...]:
    """Return the name of each number of a representation.

    Parameters
    ----------
    representation
        Which one.
    latent
        How many features the model file of ``mace`` has.
    """
    if representation == "mace":
        return (*elements.COMPOSITION_FEATURES, *(f"mace_{index}" for index in range(latent)))
    if representation == "composition":
        return elements.COMPOSITION_FEATURES
    if representation == "chgnet":
        return (*elements.COMPOSITION_FEATURES, *embedding.FEATURES)
    return descriptors.FEATURES


def checked(representation: Representation, checkpoint: str) -> None:
    """Check that a representation has a model file where it needs one, and only there.

    Raises
    ------
    ValueError
        If not.
    """
    if representation == "mace" and not checkpoint:
        raise ValueError("representation mace needs a model file; set checkpoint")
    if representation != "mace" and checkpoint:
        raise ValueError(f"checkpoint is for representation mace, not {representation}")


def represent(
    representation: Representation, structures: Sequence[Structure], checkpoint: str = ""
) -> tuple[Array, dict[int, str]]:
    """Return the descriptors of crystals, and why some have none.

    Parameters
    ----------
    representation
        Which one.
    structures
        The crystals.
    checkpoint
        Model file of ``mace``.

    Returns
    -------
    features
        Shape (len(structures), number of features); rows of NaN where a crystal has no descriptor.
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
    if representation in ("chgnet", "mace"):
        latent, none = (
            embedding.embed_all(structures)
            if representation == "chgnet"
            else embedding.embed_all_with(checkpoint, structures)
        )
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
