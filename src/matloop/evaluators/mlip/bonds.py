"""Bonds of several crystals put one after the other, and what their pulls add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from matloop.evaluators.mlip.model import Floats, Integers, Member
from matloop.evaluators.mlip.neighbours import Neighbours


@dataclass(frozen=True)
class Candidates:
    """Neighbour lists of several crystals put one after the other: what a graph is cut out of.

    Short bonds of all crystals come first.
    """

    first: Integers
    second: Integers
    shift: Floats
    owner: Integers
    short: int
    left: Integers
    right: Integers

    def vectors(self, members: Sequence[Member]) -> Floats:
        """Return the vector from the first atom of each bond to the second (Å), shape (b, 3)."""
        positions = np.concatenate([member.positions for member in members])
        cells = np.stack([member.cell for member in members])
        offsets = np.matmul(self.shift[:, None, :], cells[self.owner])[:, 0]
        found: Floats = positions[self.second] - positions[self.first] + offsets
        return found


class Gatherer:
    """Puts neighbour lists together, and keeps the last result while they stay the same."""

    def __init__(self) -> None:
        self._last: tuple[tuple[Neighbours, ...], Candidates] | None = None

    def __call__(self, members: Sequence[Member]) -> Candidates:
        """Return the neighbour lists that the members keep, one after the other."""
        lists = tuple(m.scratch for m in members if isinstance(m.scratch, Neighbours))
        if self._last is not None:
            before, candidates = self._last
            if len(before) == len(lists) and all(
                a is b for a, b in zip(before, lists, strict=True)
            ):
                return candidates
        candidates = gather(lists, [len(member.numbers) for member in members])
        self._last = lists, candidates
        return candidates


def gather(lists: Sequence[Neighbours], counts: Sequence[int]) -> Candidates:
    """Put the neighbour lists of several crystals one after the other."""
    shorts = np.array([item.short for item in lists])
    longs = np.array([len(item.first) - item.short for item in lists])
    atoms = np.concatenate([[0], np.cumsum(counts)[:-1]])
    total = int(shorts.sum())
    # Local direction d < s is bond d forwards, s + d backwards; globally forward ones come first.
    before = np.cumsum(shorts) - shorts
    left, right = (
        np.concatenate(
            [
                angles + start + (angles >= item.short) * (total - item.short)
                for item, start, angles in zip(lists, before.tolist(), sides, strict=True)
            ]
        )
        for sides in ([item.left for item in lists], [item.right for item in lists])
    )
    parts = [(item, slice(None, item.short)) for item in lists]
    parts += [(item, slice(item.short, None)) for item in lists]
    offsets = np.repeat(np.concatenate([atoms, atoms]), np.concatenate([shorts, longs]))
    places = np.arange(len(lists))
    return Candidates(
        np.concatenate([item.first[part] for item, part in parts]) + offsets,
        np.concatenate([item.second[part] for item, part in parts]) + offsets,
        np.concatenate([item.shift[part] for item, part in parts]),
        np.repeat(np.concatenate([places, places]), np.concatenate([shorts, longs])),
        total,
        left,
        right,
    )


def forces_and_stresses(
    members: Sequence[Member],
    first: Integers,
    second: Integers,
    owner: Integers,
    vectors: Floats,
    pulls: Floats,
) -> tuple[Floats, Floats]:
    """Return the forces on all atoms (eV/Å) and the members' Cauchy stresses (eV/Å^3).

    Parameters
    ----------
    members
        The crystals.
    first, second, owner
        Atoms and crystal of each bond.
    vectors
        From the first atom to the second (Å), shape (b, 3).
    pulls
        Derivative of the energy with respect to each vector (eV/Å), shape (b, 3).
    """
    atoms = sum(len(member.numbers) for member in members)
    forces = np.empty((atoms, 3))
    for axis in range(3):
        pull = pulls[:, axis]
        forces[:, axis] = np.bincount(first, pull, atoms) - np.bincount(second, pull, atoms)
    virials = np.empty((len(members), 3, 3))
    for a in range(3):
        for b in range(a, 3):
            product = vectors[:, a] * pulls[:, b] + vectors[:, b] * pulls[:, a]
            virials[:, a, b] = np.bincount(owner, 0.5 * product, len(members))
            virials[:, b, a] = virials[:, a, b]
    volumes = np.abs(np.linalg.det(np.stack([member.cell for member in members])))
    return forces, virials / volumes[:, None, None]


def lonely_members(members: Sequence[Member], first: Integers, second: Integers) -> list[int]:
    """Return the members with an atom that has no bond."""
    counts = [len(member.numbers) for member in members]
    atoms = sum(counts)
    bonds = np.bincount(first, minlength=atoms) + np.bincount(second, minlength=atoms)
    owners = np.repeat(np.arange(len(members)), counts)
    found: list[int] = np.unique(owners[bonds == 0]).tolist()
    return found
