"""What a MACE knows of crystals: the invariant features from which it reads the energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure

from matloop.evaluators.mlip.bonds import lonely_members
from matloop.evaluators.mlip.memory import memory_errors, predict_in_pieces
from matloop.evaluators.mlip.model import Floats, Member, Prediction

if TYPE_CHECKING:
    from matloop.evaluators.mlip.mace import LoadedMace

Array = NDArray[np.float64]


def embed(model: LoadedMace, structures: Sequence[Structure]) -> tuple[Array, dict[int, str]]:
    """Return the embeddings of crystals, many at once, and why some have none.

    An embedding is the mean over the atoms of the scalar features after every layer, as mace's own
    calculator gives them per atom (``get_descriptors``): it does not change with rotation, origin
    or choice of cell.

    Returns
    -------
    features
        Shape (len(structures), k); rows of NaN where a crystal has no embedding.
    failures
        Reason by row.
    """
    columns = invariant_columns(model.network)
    features = np.full((len(structures), len(columns)), np.nan)
    failures: dict[int, str] = {}
    members: list[Member] = []
    rows: list[int] = []
    for row, structure in enumerate(structures):
        reason = _unfit(structure, model)
        if reason:
            failures[row] = reason
        else:
            members.append(Member.from_structure(structure))
            rows.append(row)
    if not members:
        return features, failures
    places = {id(member): row for member, row in zip(members, rows, strict=True)}

    def compute(piece: list[Member]) -> Prediction:
        means, faults = _means(model, piece, columns)
        for place, member in enumerate(piece):
            if place not in faults:
                features[places[id(member)]] = means[place]
        atoms = sum(len(member.numbers) for member in piece)
        count = len(piece)
        return Prediction(np.zeros(count), np.zeros((atoms, 3)), np.zeros((count, 3, 3)), faults)

    faults = model.refreshed(members)
    found = predict_in_pieces(members, model.messages(members), faults, model.budget, compute)
    failures |= {rows[place]: f"MACE cannot embed it: {why}" for place, why in found.faults.items()}
    for row in np.flatnonzero(~np.isfinite(features).all(axis=1)).tolist():
        failures.setdefault(row, "its embedding is not finite")
        features[row] = np.nan
    return features, failures


def invariant_columns(network: torch.nn.Module) -> NDArray[np.int64]:
    """Return which of a network's node features are scalars, all layers one after another."""
    columns: list[int] = []
    start = 0
    for product in network.products:  # type: ignore[union-attr]
        irreps = product.linear.irreps_out
        for part, place in zip(irreps, irreps.slices(), strict=True):
            if part.ir.l == 0 and part.ir.p == 1:
                columns += range(start + place.start, start + place.stop)
        start += irreps.dim
    return np.array(columns, dtype=np.int64)


def _unfit(structure: Structure, model: LoadedMace) -> str:
    if not len(structure):
        return "the cell is empty"
    if not structure.is_ordered:
        return "sites are partly occupied"
    strange = sorted({s.specie.symbol for s in structure if s.specie.Z not in model.elements})
    if strange:
        return f"the model does not know {', '.join(strange)}"
    return ""


def _means(
    model: LoadedMace, members: list[Member], columns: NDArray[np.int64]
) -> tuple[Floats, dict[int, str]]:
    first, second, _, vectors = model.bonds(members)
    edges = np.concatenate([vectors, -vectors])
    ends = np.stack([np.concatenate([first, second]), np.concatenate([second, first])])
    with memory_errors(), torch.no_grad():
        found = model.network(model.data(members, ends, model.tensor(edges)), compute_force=False)
    nodes = found["node_feats"].cpu().numpy().astype(np.float64)[:, columns]
    counts = [len(member.numbers) for member in members]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    means = np.add.reduceat(nodes, starts, axis=0) / np.array(counts)[:, None]
    lonely = lonely_members(members, first, second)
    return means, dict.fromkeys(lonely, "an atom has no neighbour within the cutoff")
