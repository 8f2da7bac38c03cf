"""What potentials know of a crystal: the latent features from which they read the energy."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop import registry
from matloop.documents.candidate import structure_digest
from matloop.errors import ConfigurationError
from matloop.potentials import Embedder

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
        if not reason and max(site.specie.Z for site in structure) > _HEAVIEST:
            reason = f"CHGNet knows no element beyond atomic number {_HEAVIEST}"
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
    _forget()
    return features, failures


def embed_all_with(
    checkpoint: str, structures: Sequence[Structure]
) -> tuple[Array, dict[int, str]]:
    """Return the embeddings of crystals by a MACE model file, and why some have none.

    In double precision on one processor, many at once, each crystal once per process; see
    `matloop.evaluators.mlip.mace_embedding.embed`.

    Parameters
    ----------
    checkpoint
        The file.
    structures
        The crystals.

    Returns
    -------
    features
        Shape (len(structures), k), for k scalar features of the model; rows of NaN where a crystal
        has no embedding.
    failures
        Reason by row.

    Raises
    ------
    ConfigurationError
        If the file cannot be read as a MACE.
    """
    model = _mace(checkpoint)
    length = model.embed([])[0].shape[1]
    features = np.full((len(structures), length), np.nan)
    failures: dict[int, str] = {}
    digests: dict[int, str] = {}
    for row, structure in enumerate(structures):
        if reason := _unfit(structure):
            failures[row] = reason
        else:
            digests[row] = f"{checkpoint_digest(checkpoint)} {structure_digest(structure)}"
    new = {digest: row for row, digest in digests.items() if digest not in _seen}
    found, reasons = model.embed([structures[row] for row in new.values()])
    unknown = dict(zip(new, range(len(new)), strict=True))
    for digest, place in unknown.items():
        if place not in reasons:
            _seen[digest] = tuple(found[place].tolist())
    for row, digest in digests.items():
        if digest in _seen:
            features[row] = _seen[digest]
        else:
            failures[row] = reasons[unknown[digest]]
    _forget()
    return features, failures


def checkpoint_digest(checkpoint: str) -> str:
    """Return the sha256 of a MACE model file that describes crystals."""
    return _mace(checkpoint).theory().model_sha256


def _forget() -> None:
    while len(_seen) > _REMEMBERED:
        _seen.popitem(last=False)


@cache
def _mace(checkpoint: str) -> Embedder:
    model = registry.build("models", "mace", {"path": checkpoint, "dtype": "float64"})
    if not isinstance(model, Embedder):
        raise ConfigurationError("the registered model mace has no latent features")
    return model


def _unfit(structure: Structure) -> str:
    if not len(structure):
        return "the cell is empty"
    if not structure.is_ordered:
        return "sites are partly occupied"
    if not all(np.isfinite(x).all() for x in (structure.lattice.matrix, structure.frac_coords)):
        return "its cell or coordinates are not numbers"
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
