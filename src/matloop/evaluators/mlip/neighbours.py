"""Neighbour lists with a skin: found once, exact until atoms or cell have moved too far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pymatgen.optimization.neighbors import find_points_in_spheres

from matloop.evaluators.mlip.model import Floats, Integers, Member


@dataclass(frozen=True)
class Neighbours:
    """Pairs of atoms that may be bonded, and pairs of short bonds that may form an angle.

    A bond k leads from atom ``first[k]`` to the image ``shift[k]`` of atom ``second[k]``; each pair
    of atoms appears once. Short bonds come first. With s short bonds, direction d < s is short bond
    d seen from its first atom, and direction s + d the same bond seen from its second atom.

    Attributes
    ----------
    first, second
        Atoms of each bond, shape (b,).
    shift
        Periodic image of the second atom, in lattice vectors, shape (b, 3).
    short
        Number of short bonds.
    left, right
        Directions that form an angle around a common atom, each unordered pair once, shape (a,).
    positions, cell
        Where the list was made (Å).
    """

    first: Integers
    second: Integers
    shift: Floats
    short: int
    left: Integers
    right: Integers
    positions: Floats
    cell: Floats


def find_neighbours(member: Member, cutoff: float, short_cutoff: float, skin: float) -> Neighbours:
    """Return pairs within one cutoff and angles of bonds within another, plus a skin (Å)."""
    pairs = find_points_in_spheres(
        np.ascontiguousarray(member.positions),
        np.ascontiguousarray(member.positions),
        cutoff + skin,
        np.ones(3, dtype=np.int64),
        np.ascontiguousarray(member.cell),
        1e-8,
        0.1,
    )
    first, second, shift, distance = pairs
    # One of the two directions of each pair; of an atom's own images, one half of space.
    half = (first < second) | (
        (first == second)
        & (
            (shift[:, 0] > 0)
            | ((shift[:, 0] == 0) & ((shift[:, 1] > 0) | ((shift[:, 1] == 0) & (shift[:, 2] > 0))))
        )
    )
    first, second, shift, distance = first[half], second[half], shift[half], distance[half]
    is_short = distance <= short_cutoff + skin
    order = np.argsort(~is_short, kind="stable")
    first, second = first[order].astype(np.int64), second[order].astype(np.int64)
    short = int(is_short.sum())
    left, right = _angles(np.concatenate([first[:short], second[:short]]))
    return Neighbours(
        first,
        second,
        shift[order].astype(np.float64),
        short,
        left,
        right,
        member.positions.copy(),
        member.cell.copy(),
    )


def outdated(found: Neighbours, member: Member, cutoff: float, skin: float) -> bool:
    """Return whether a pair within the cutoff could be missing from the list.

    Let F take the list's cell to the present one, and u be the largest distance of an atom from
    where F alone would have taken it. A pair now within r was, when the list was made, within
    (r + 2 u) / s, s being the smallest singular value of F.
    """
    deformation = np.linalg.solve(found.cell, member.cell)
    strayed = member.positions - found.positions @ deformation
    furthest = float(np.sqrt((strayed * strayed).sum(axis=1).max()))
    smallest = float(np.linalg.svd(deformation, compute_uv=False)[-1])
    return not (cutoff + 2.0 * furthest <= (cutoff + skin) * smallest)


def _angles(centres: Integers) -> tuple[Integers, Integers]:
    """Return each unordered pair of directions around the same atom once."""
    if len(centres) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    order = np.argsort(centres, kind="stable")
    counts = np.bincount(centres)
    ends = np.repeat(np.cumsum(counts), counts)
    later = ends - np.arange(len(centres)) - 1  # directions of the same atom that follow
    left = np.repeat(np.arange(len(centres)), later)
    starts = np.cumsum(later) - later
    right = left + 1 + np.arange(len(left)) - np.repeat(starts, later)
    return order[left], order[right]
