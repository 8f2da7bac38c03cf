"""What CHGNet knows of a crystal: the latent features from which it reads the energy."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop.documents.candidate import structure_digest

Array = NDArray[np.float64]

LENGTH = 64
"""Numbers in an embedding."""

FEATURES: tuple[str, ...] = tuple(f"chgnet_{index}" for index in range(LENGTH))

_HEAVIEST = 94
_REMEMBERED = 20_000
_seen: OrderedDict[str, tuple[float, ...]] = OrderedDict()


def embed_all(structures: Sequence[Structure]) -> tuple[Array, dict[int, str]]:
    """Return the embeddings of crystals by CHGNet 0.3.0 on one processor, and why some have none.

    An embedding is the mean of the atoms' features after the last convolution (Deng et al., Nat.
    Mach. Intell. 5, 1031, 2023), taken from the pretrained model as it is.

    Returns
    -------
    features
        Shape (len(structures), 64); rows of NaN where a crystal has no embedding.
    failures
        Reason by row.
    """
    features = np.full((len(structures), LENGTH), np.nan)
    failures: dict[int, str] = {}
    digests: dict[int, str] = {}
    for row, structure in enumerate(structures):
        reason = _unfit(structure)
        if reason:
            failures[row] = reason
        else:
            digests[row] = structure_digest(structure)
    for row, digest in digests.items():
        if digest not in _seen:
            values = _embed(structures[row])
            if isinstance(values, str):
                failures[row] = values
                continue
            _seen[digest] = values
        features[row] = _seen[digest]
    while len(_seen) > _REMEMBERED:
        _seen.popitem(last=False)
    return features, failures


def _unfit(structure: Structure) -> str:
    if not len(structure):
        return "the cell is empty"
    if not structure.is_ordered:
        return "sites are partly occupied"
    if not all(np.isfinite(x).all() for x in (structure.lattice.matrix, structure.frac_coords)):
        return "its cell or coordinates are not numbers"
    heaviest = max(site.specie.Z for site in structure)
    if heaviest > _HEAVIEST:
        return f"CHGNet knows no element beyond atomic number {_HEAVIEST}"
    return ""


def _embed(structure: Structure) -> tuple[float, ...] | str:
    """Return the embedding of a crystal, or why it has none.

    One by one: in a batch the last bits would depend on the other crystals.
    """
    model = _model()
    try:
        graph = model.graph_converter(structure)
        found = model.predict_graph(graph, task="e", return_crystal_feas=True)
    except (ValueError, RuntimeError, IndexError) as error:
        return f"CHGNet cannot embed it: {str(error).splitlines()[0]}"
    # CHGNet adds its atoms up; the mean does not depend on the choice of cell.
    values = np.asarray(found["crystal_fea"], dtype=float).ravel() / len(structure)
    return tuple(values.tolist()) if np.isfinite(values).all() else "its embedding is not finite"


@cache
def _model() -> Any:
    from chgnet.model import CHGNet

    model = CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False)
    model.graph_converter.set_isolated_atom_response("error")
    model.eval()
    return model
