"""Evolutionary operators: children made from one or two parents.

Each takes reduced primitive cells and returns the raw child, without any check of distances or
composition: `recompose` and `relieve` mend those. The crossover follows Deaven and Ho (Phys. Rev.
Lett. 75, 288, 1995) and, for crystals, Glass, Oganov and Hansen (USPEX, Comput. Phys. Commun. 175,
713, 2006).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from matloop.generators.cells import (
    Array,
    contact_limits,
    contact_ratio,
    counts_of,
    image_vectors,
)
from matloop.generators.volumes import estimated_volume

_VOID_TRIALS = 60
_PUSHES = 60


@dataclass(frozen=True)
class Draft:
    """A crystal on its way: what operators take and return.

    Attributes
    ----------
    symbols
        Chemical symbol of each site.
    matrix
        Lattice vectors in rows, shape (3, 3) (Å).
    frac
        Fractional coordinates, shape (sites, 3).
    """

    symbols: tuple[str, ...]
    matrix: Array
    frac: Array

    @property
    def counts(self) -> dict[str, int]:
        """Atoms of each element."""
        return counts_of(self.symbols)

    @property
    def volume(self) -> float:
        """Volume of the cell (Å³)."""
        return abs(float(np.linalg.det(self.matrix)))

    def scaled(self, volume: float) -> Draft:
        """Return the same crystal with another volume (Å³)."""
        return replace(self, matrix=self.matrix * (volume / self.volume) ** (1 / 3))


def crossover(first: Draft, second: Draft, rng: np.random.Generator) -> Draft | None:
    """Return a slab of one parent joined to the complementary slab of the other.

    Both parents are cut across the same random axis after random shifts, so that no origin is
    special; the lattice is a random mean of the two. The child holds atoms of both parents: None
    where a slab is empty. Its volume per atom is the mean of the parents'.
    """
    axis = int(rng.integers(3))
    cut = rng.uniform(0.3, 0.7)
    below = (first.frac + rng.random(3)) % 1.0
    second = _turned(second, rng)
    above = (second.frac + rng.random(3)) % 1.0
    mine, yours = below[:, axis] < cut, above[:, axis] >= cut
    if not mine.any() or not yours.any():
        return None
    symbols = (
        *(symbol for symbol, kept in zip(first.symbols, mine, strict=True) if kept),
        *(symbol for symbol, kept in zip(second.symbols, yours, strict=True) if kept),
    )
    weight = rng.uniform(0.25, 0.75)
    matrix = weight * upright(first.matrix) + (1 - weight) * upright(second.matrix)
    child = Draft(symbols, matrix, np.concatenate([below[mine], above[yours]]))
    density = first.volume / len(first.symbols) + second.volume / len(second.symbols)
    return child.scaled(0.5 * density * len(symbols))


def strain(parent: Draft, rng: np.random.Generator, sigma: float) -> Draft:
    """Return the parent under a random symmetric strain, at its old volume.

    The six strain components are normal with standard deviation `sigma`; shears are halved, as in
    Glass et al. (2006).
    """
    values = rng.normal(0.0, sigma, 6)
    tensor = np.eye(3) + np.array(
        [
            [values[0], values[5] / 2, values[4] / 2],
            [values[5] / 2, values[1], values[3] / 2],
            [values[4] / 2, values[3] / 2, values[2]],
        ]
    )
    return replace(parent, matrix=parent.matrix @ tensor).scaled(parent.volume)


def permutation(parent: Draft, rng: np.random.Generator) -> Draft | None:
    """Return the parent with one to three pairs of unlike atoms swapped; None if all are alike."""
    symbols = list(parent.symbols)
    if len(set(symbols)) < 2:
        return None
    for _ in range(int(rng.integers(1, 4))):
        one = int(rng.integers(len(symbols)))
        unlike = [index for index, symbol in enumerate(symbols) if symbol != symbols[one]]
        other = unlike[int(rng.integers(len(unlike)))]
        symbols[one], symbols[other] = symbols[other], symbols[one]
    return replace(parent, symbols=tuple(symbols))


def rattle(parent: Draft, rng: np.random.Generator, sigma: float) -> Draft:
    """Return the parent with every atom moved by a normal step of width `sigma` (Å)."""
    steps = rng.normal(0.0, sigma, parent.frac.shape) @ np.linalg.inv(parent.matrix)
    return replace(parent, frac=parent.frac + steps)


def doubled(parent: Draft, rng: np.random.Generator) -> Draft:
    """Return two cells of the parent side by side, along one of its axes or a diagonal.

    The new lattice is one of the seven sublattices of index 2.
    """
    choices = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)]
    parity = np.array(choices[int(rng.integers(7))])
    # Sublattice of all n with n · parity even: double the first odd axis, add it to the other ones.
    first = int(np.argmax(parity))
    transform = np.eye(3, dtype=int)
    for axis in range(3):
        if axis == first:
            transform[axis, axis] = 2
        elif parity[axis]:
            transform[axis, first] = 1
    shift = np.eye(3)[first]
    frac = np.concatenate([parent.frac, parent.frac + shift]) @ np.linalg.inv(transform)
    return Draft(parent.symbols * 2, transform @ parent.matrix, frac)


def recompose(parent: Draft, target: Mapping[str, int], rng: np.random.Generator) -> Draft:
    """Return the parent changed into another cell content, at the volume expected of it.

    Atoms in excess become atoms that lack, at random; what is then still in excess is removed,
    and what still lacks goes where there is most room.
    """
    symbols, frac = list(parent.symbols), parent.frac
    have = parent.counts
    excess = [name for name in have for _ in range(max(0, have[name] - target.get(name, 0)))]
    lack = [name for name in target for _ in range(max(0, target[name] - have.get(name, 0)))]
    rng.shuffle(excess)
    rng.shuffle(lack)
    both = min(len(excess), len(lack))
    for old, new in zip(excess[:both], lack[:both], strict=True):
        sites = [index for index, symbol in enumerate(symbols) if symbol == old]
        symbols[sites[int(rng.integers(len(sites)))]] = new
    for old in excess[both:]:
        sites = [index for index, symbol in enumerate(symbols) if symbol == old]
        gone = sites[int(rng.integers(len(sites)))]
        symbols.pop(gone)
        frac = np.delete(frac, gone, axis=0)
    volume = parent.volume * estimated_volume(target) / estimated_volume(have)
    draft = Draft(tuple(symbols), parent.matrix, frac).scaled(volume)
    for new in lack[both:]:
        draft = _inserted(draft, new, rng)
    return draft


def relieve(draft: Draft, limits: Array) -> Draft:
    """Return the draft with atoms that sit too close pushed apart along their joining lines.

    A fixed number of small steps; what is still too close then is for the caller to reject.
    """
    images = image_vectors(draft.matrix, 1.1 * float(limits.max()))
    if images is None or len(images) > 500:
        return draft
    shifts = images @ draft.matrix
    inverse = np.linalg.inv(draft.matrix)
    frac = draft.frac
    # A margin, so that pairs do not come to rest just below their limit.
    aims = 1.05 * limits[:, :, None]
    for _ in range(_PUSHES):
        apart = frac[:, None, :] - frac[None, :, :]
        vectors = ((apart - np.round(apart)) @ draft.matrix)[:, :, None, :] + shifts
        lengths = np.linalg.norm(vectors, axis=-1)
        close = (lengths < aims) & (lengths > 1e-6)
        if not close.any():
            break
        overlap = np.where(close, aims - lengths, 0.0) / np.where(close, lengths, 1.0)
        frac = frac + 0.25 * (overlap[..., None] * vectors).sum(axis=(1, 2)) @ inverse
    return replace(draft, frac=frac)


def is_open(draft: Draft, limits: Array) -> bool:
    """Say whether no two atoms are closer than their limit."""
    return bool(contact_ratio(draft.matrix, draft.frac, limits) >= 1.0)


def upright(matrix: Array) -> Array:
    """Return the same cell with the first vector along x and the second in the xy plane."""
    turned = np.linalg.cholesky(matrix @ matrix.T)
    return np.asarray(turned, dtype=float)


# The same crystal with its axes renamed, so that the cut crosses it in another direction.
def _turned(parent: Draft, rng: np.random.Generator) -> Draft:
    order = rng.permutation(3)
    return replace(parent, matrix=parent.matrix[order], frac=parent.frac[:, order])


def _inserted(draft: Draft, symbol: str, rng: np.random.Generator) -> Draft:
    points = rng.random((_VOID_TRIALS, 3))
    symbols = (*draft.symbols, symbol)
    limits = contact_limits(symbols, 1.0)
    room = [
        float(_clearance(draft, point, limits[-1, :-1])) if len(draft.symbols) else 0.0
        for point in points
    ]
    best = points[int(np.argmax(room))]
    return Draft(symbols, draft.matrix, np.concatenate([draft.frac, best[None]]))


def _clearance(draft: Draft, point: Array, limits: Sequence[float] | Array) -> float:
    apart = draft.frac - point
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    vectors = ((apart - np.round(apart))[:, None, :] + shifts) @ draft.matrix
    return float((np.linalg.norm(vectors, axis=-1).min(axis=1) / np.asarray(limits)).min())
