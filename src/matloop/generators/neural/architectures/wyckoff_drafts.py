"""A symmetric crystal as far as it is written, and what may still be written."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from pymatgen.core import Composition

from matloop.generators.neural.architecture import Conditions, SampleRequest, Statistics
from matloop.generators.neural.architectures.wyckoff_network import CELL, COORDINATE, GROUPS
from matloop.generators.neural.representations.orbits import (
    FREE_CELL,
    LETTERS,
    free_axes,
    multiplicities,
    positions,
)
from matloop.generators.wyckoff import space_group
from matloop.structures.chemistry import is_charge_balanced

MOST_SITES = 20
"""Most occupied Wyckoff positions of a crystal."""


@dataclass
class Draft:
    """One crystal as far as it is written, and what may still be written.

    Attributes
    ----------
    left
        Atoms of each element, by its place in the vocabulary, that must still be placed; empty
        without a formula.
    order
        Elements that must all occur, in order; empty without such a condition.
    """

    left: dict[int, int]
    order: tuple[int, ...]
    least: int
    most: int
    group: int = 0
    sites: list[tuple[int, int]] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    atoms: int = 0
    dead: bool = False

    def letters(self, element: int) -> list[bool]:
        """Return which letters may take an element."""
        room = self.left.get(element, 0) if self.left else self.most - self.atoms
        first = self.sites[-1][1] if self.sites and self.sites[-1][0] == element else 0
        others = sorted(count for other, count in self.left.items() if other != element and count)
        sizes, fixed = _sizes(self.group)
        allowed = [False] * len(LETTERS)
        for letter, size in enumerate(sizes):
            if not 0 < size <= room or letter < first or letter in self.used:
                continue
            used = frozenset(self.used | {letter}) if letter in fixed else frozenset(self.used)
            rest = room - size
            if self.left and not fits(self.group, used, letter, (rest, *others)):
                continue
            exact = not self.left and self.least == self.most
            if exact and not reachable(self.group, used, 0, rest):
                continue
            allowed[letter] = True
        return allowed

    def elements(self, allowed: Sequence[bool]) -> list[bool]:
        """Return which elements may come next, stopping aside."""
        last = self.sites[-1][0] if self.sites else -1
        found = [False] * len(allowed)
        if len(self.sites) >= MOST_SITES:
            return found
        if self.order:
            candidates = self._required(last)
        else:
            candidates = [e for e in range(max(last, 0), len(allowed)) if allowed[e]]
        for element in candidates:
            found[element] = any(self.letters(element))
        return found

    def _required(self, last: int) -> list[int]:
        if last < 0:
            return [self.order[0]]
        if self.left.get(last, 0):
            return [last]
        following = [e for e in self.order if e > last][:1]
        return following if self.left else [last, *following]

    def may_stop(self, names: Sequence[str], *, balanced: bool) -> bool:
        """Whether the crystal is whole."""
        present = {element for element, _ in self.sites}
        if not self.sites or any(self.left.values()) or not set(self.order) <= present:
            return False
        if not self.least <= self.atoms <= self.most:
            return False
        return not balanced or is_charge_balanced(Composition(self.counts(names)), "smact14")

    def counts(self, names: Sequence[str]) -> dict[str, int]:
        """Return the atoms of each element in the primitive cell."""
        sizes, _ = _sizes(self.group)
        found: dict[str, int] = {}
        for element, letter in self.sites:
            found[names[element]] = found.get(names[element], 0) + sizes[letter]
        return found

    def place(self, element: int, letter: int) -> None:
        """Put an element, by its place in the vocabulary, on a position."""
        sizes, fixed = _sizes(self.group)
        self.sites.append((element, letter))
        self.atoms += sizes[letter]
        if letter in fixed:
            self.used.add(letter)
        if self.left:
            self.left[element] -= sizes[letter]

    def slots(self) -> list[tuple[int, int, int, int]]:
        """Return the numbers that are to be drawn: kind, element, letter, axis."""
        family = space_group(self.group).lattice_type
        found = [(CELL, 0, 0, axis) for axis in FREE_CELL[family]]
        by_letter = positions(self.group)
        for element, letter in self.sites:
            axes = free_axes(by_letter[LETTERS[letter]])
            found += [(COORDINATE, element, letter, axis) for axis in axes]
        return found


def empty_draft(statistics: Statistics, request: SampleRequest, rng: np.random.Generator) -> Draft:
    """Return an empty crystal with its conditions; the formula units are drawn where open."""
    conditions, names = request.conditions, statistics["elements"]
    least, most = conditions.min_atoms, conditions.max_atoms
    if conditions.n_atoms:
        least = most = conditions.n_atoms
    left: dict[int, int] = {}
    if conditions.formula:
        unit = sum(conditions.formula.values())
        sizes = list(range(max(1, math.ceil(least / unit)), most // unit + 1))
        known = {int(z): count for z, count in statistics["formula_units"].items()}
        weights = np.array([known.get(z, 0) + 1.0 for z in sizes])
        z = int(rng.choice(sizes, p=weights / weights.sum())) if sizes else 0
        left = {names.index(s): z * n for s, n in conditions.formula.items() if s in names}
        least = most = unit * z
    required = conditions.required
    unknown = not required <= set(names) or not most
    order = tuple(sorted(names.index(s) for s in required if s in names))
    return Draft(left, order, least, most, dead=unknown)


def possible_groups(conditions: Conditions, draft: Draft) -> list[bool]:
    """Return which groups can hold what must be placed."""
    wanted = range(1, GROUPS) if not conditions.space_group else [conditions.space_group]
    possible = [False] * GROUPS
    for number in () if draft.dead else wanted:
        if draft.left:
            possible[number] = fits(number, frozenset(), 0, tuple(sorted(draft.left.values())))
        elif draft.least == draft.most:
            possible[number] = reachable(number, frozenset(), 0, draft.most)
        else:
            sizes, _ = _sizes(number)
            possible[number] = min(size for size in sizes if size) <= draft.most
    return possible


@lru_cache(maxsize=512)
def _sizes(group: int) -> tuple[tuple[int, ...], frozenset[int]]:
    """Return the sites of each letter in the primitive cell, and which letters take one orbit."""
    sizes = [0] * len(LETTERS)
    for letter, size in multiplicities(group).items():
        sizes[LETTERS.index(letter)] = size
    fixed = {LETTERS.index(letter) for letter, one in positions(group).items() if one.freedom == 0}
    return tuple(sizes), frozenset(fixed)


@lru_cache(maxsize=200_000)
def reachable(group: int, used: frozenset[int], first: int, count: int) -> bool:
    """Whether exactly so many atoms fit on positions of a group from a letter on.

    Parameters
    ----------
    group
        International number.
    used
        Positions without free coordinates that are taken, by their place in `LETTERS`.
    first
        The first position that may be used.
    count
        Atoms in the primitive cell.
    """
    sizes, fixed = _sizes(group)
    sums = {0}
    for letter in range(first, len(LETTERS)):
        size = sizes[letter]
        if not size or letter in used or size > count:
            continue
        if letter in fixed:
            sums |= {one + size for one in sums if one + size <= count}
        else:
            grown = set(sums)
            for one in sums:
                grown.update(range(one, count + 1, size))
            sums = grown
        if count in sums:
            return True
    return count in sums


@lru_cache(maxsize=200_000)
def fits(group: int, used: frozenset[int], first: int, counts: tuple[int, ...]) -> bool:
    """Whether so many atoms of each element fit on positions of a group together.

    Parameters
    ----------
    group
        International number.
    used
        Positions without free coordinates that are taken.
    first
        The first position that the first element may use; the others may use any.
    counts
        Atoms of each element in the primitive cell.
    """
    if not counts:
        return True
    count, others = counts[0], counts[1:]
    if not others or not all(reachable(group, used, 0, other) for other in others):
        return not others and reachable(group, used, first, count)
    sizes, fixed = _sizes(group)
    free = {s for at, s in enumerate(sizes) if s and at >= first and at not in fixed}
    single: dict[int, list[int]] = {}
    for letter in fixed:
        if letter >= first and letter not in used and sizes[letter] <= count:
            single.setdefault(sizes[letter], []).append(letter)
    # Positions of one size are alike for the elements that follow, so only their number counts.
    for numbers in itertools.product(*(range(len(own) + 1) for own in single.values())):
        rest = count - sum(n * size for n, size in zip(numbers, single, strict=True))
        taken = [own[:n] for own, n in zip(single.values(), numbers, strict=True)]
        if (
            rest >= 0
            and _sums(rest, frozenset(free))
            and fits(group, used | frozenset(itertools.chain(*taken)), 0, others)
        ):
            return True
    return False


@lru_cache(maxsize=20_000)
def _sums(count: int, sizes: frozenset[int]) -> bool:
    """Whether a number is a sum of sizes, each any number of times."""
    return count == 0 or any(_sums(count - size, sizes) for size in sizes if size <= count)
