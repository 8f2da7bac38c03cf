"""Crystals as CHGNet reads them: bonds, angles between short bonds, and who adds up to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matloop.evaluators.mlip.bonds import Candidates
from matloop.evaluators.mlip.model import Floats, Integers, Member


@dataclass(frozen=True)
class Incidence:
    """Which rows of a table each message reads, and which messages read each row.

    Attributes
    ----------
    reads
        Table rows summed by each message, all messages one after the other, int32.
    starts
        Where each message begins in `reads`, int32.
    readers
        Messages that read each table row, all rows one after the other, int32.
    reader_starts
        Where each row begins in `readers`, int32; one more entry than rows, so that a block of
        rows can be cut out.
    """

    reads: Tensor
    starts: Tensor
    readers: Tensor
    reader_starts: Tensor


@dataclass(frozen=True)
class Graph:
    """Bonds and angles of several crystals within the cutoffs, and their geometry.

    With b bonds, s of them short, n atoms and a unordered angles: direction k < b of a bond leads
    from its first atom to its second, b + k back. Angles come twice, the second time with the bonds
    swapped.

    Attributes
    ----------
    first, second, owner
        Atoms and crystal of each bond.
    vectors, lengths
        From the first atom to the second (Å), shapes (b, 3) and (b,), double precision.
    short
        Number of short bonds; they come first.
    left, right
        Short directions (k < s forwards, s + k backwards) of each unordered angle.
    bond_messages
        Incidence of the 2 b directed bonds on 2 n rows: atoms as centres, atoms as neighbours.
    angle_messages
        Incidence of the 2 a ordered angles on rows: left bonds, right bonds, centres.
    centres
        Central atom of each directed bond, int32.
    left_bonds, right_bonds
        Bonds of each ordered angle, int32, shape (2 a,).
    """

    first: Integers
    second: Integers
    owner: Integers
    vectors: Floats
    lengths: Floats
    short: int
    left: Integers
    right: Integers
    bond_messages: Incidence
    angle_messages: Incidence
    centres: Tensor
    left_bonds: Tensor
    right_bonds: Tensor


def cut(
    candidates: Candidates,
    members: Sequence[Member],
    cutoff: float,
    short_cutoff: float,
    device: torch.device,
) -> Graph:
    """Return the graph of the crystals as they stand: the candidates within the cutoffs (Å)."""
    atoms = sum(len(member.numbers) for member in members)
    vectors = candidates.vectors(members)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))

    bonded = lengths < cutoff
    is_short = lengths[: candidates.short] < short_cutoff
    close = np.flatnonzero(is_short)
    apart = bonded.copy()
    apart[close] = False
    kept = np.concatenate([close, np.flatnonzero(apart)])
    short = len(close)
    first, second = candidates.first[kept], candidates.second[kept]

    new_place = np.cumsum(is_short) - 1
    new_place = np.concatenate([new_place, new_place + short])
    valid = np.concatenate([is_short, is_short])
    both = valid[candidates.left] & valid[candidates.right]
    left, right = new_place[candidates.left[both]], new_place[candidates.right[both]]

    centres = np.concatenate([first, second])
    neighbours = np.concatenate([second, first])
    bond_messages = _incidence(np.stack([centres, neighbours + atoms], axis=1), 2 * atoms, device)
    around = np.concatenate([first[:short], second[:short]])[left]
    left_bond, right_bond = left % max(short, 1), right % max(short, 1)
    reads = np.empty((2 * len(left), 3), dtype=np.int64)
    half = len(left)
    reads[:half, 0] = reads[half:, 1] = left_bond
    reads[:half, 1] = reads[half:, 0] = right_bond
    reads[:, 1] += short
    reads[:half, 2] = reads[half:, 2] = around + 2 * short
    angle_messages = _incidence(reads, 2 * short + atoms, device)
    return Graph(
        first,
        second,
        candidates.owner[kept],
        vectors[kept],
        lengths[kept],
        short,
        left,
        right,
        bond_messages,
        angle_messages,
        _int32(centres, device),
        _int32(np.concatenate([left_bond, right_bond]), device),
        _int32(np.concatenate([right_bond, left_bond]), device),
    )


def _incidence(reads: Integers, rows: int, device: torch.device) -> Incidence:
    flat = reads.ravel()
    # Numpy sorts 16-bit integers by radix, several times faster.
    order = np.argsort(flat.astype(np.uint16) if rows <= 65536 else flat, kind="stable")
    counts = np.bincount(flat, minlength=rows)
    width = reads.shape[1]
    return Incidence(
        _int32(flat, device),
        _int32(np.arange(0, len(flat), width), device),
        _int32(order // width, device),
        _int32(np.concatenate([[0], np.cumsum(counts)]), device),
    )


def _int32(values: NDArray[np.integer], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int32)).to(device)
