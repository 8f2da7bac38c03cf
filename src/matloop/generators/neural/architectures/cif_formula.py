"""The formula of a CIF as far as it is written: elements by electronegativity, and their counts."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import lru_cache

from pymatgen.core import Composition

from matloop.generators.neural.architecture import Conditions
from matloop.generators.neural.architectures.cif_steps import (
    COUNT,
    ELEMENT,
    MOST_COUNT,
    Rules,
    Step,
)
from matloop.generators.neural.architectures.wyckoff_drafts import Draft, possible_groups
from matloop.structures.chemistry import is_charge_balanced


class Formula:
    """A formula, and what may come next.

    Parameters
    ----------
    rules
        What the text must say.
    draft
        The empty crystal with the conditions on its content.

    Attributes
    ----------
    counts
        Elements so far, by their place among the names, and how many atoms there are of each.
    ended
        Whether it is whole.
    """

    def __init__(self, rules: Rules, draft: Draft) -> None:
        self.counts: list[tuple[int, int]] = []
        self.ended = False
        self._rules = rules
        self._order, self._least, self._most = draft.order, draft.least, draft.most
        self._wanted = dict(draft.left)
        self._element = -1

    def copy(self) -> Formula:
        """Return another formula at the same place."""
        found = copy.copy(self)
        found.counts = list(self.counts)
        return found

    @property
    def content(self) -> dict[str, int]:
        """Atoms of each element so far."""
        return {self._rules.names[element]: count for element, count in self.counts}

    def groups(self) -> tuple[bool, ...]:
        """Return which space groups can hold it, as the conditions allow."""
        return _groups(self._rules.conditions.space_group, _key(self.counts))

    def step(self) -> Step:
        """Return what the next token is about."""
        atoms = sum(count for _, count in self.counts)
        if self._element < 0:
            return Step(ELEMENT, 0, len(self._rules.names), atoms=atoms)
        return Step(COUNT, 1, self._element, atoms=atoms)

    def push(self, token: int) -> None:
        """Write a token that is allowed."""
        if self._element >= 0:
            self.counts.append((self._element, token))
            self._element = -1
        elif token == len(self._rules.names):
            self.ended = True
        else:
            self._element = token

    def elements(self) -> list[bool]:
        """Return which elements may come next, and at the end whether the formula may end."""
        rules = self._rules
        found = [False] * (len(rules.names) + 1)
        placed = sum(count for _, count in self.counts)
        last = self.counts[-1][0] if self.counts else -1
        found[-1] = bool(self.counts) and self._may_end(self.counts)
        if self._order:
            following = [element for element in self._order if element > last][:1]
        elif placed < self._most:
            following = [e for e in range(last + 1, len(rules.names)) if rules.elements[e]]
        else:
            following = []
        for element in following:
            found[element] = next(self._amounts(element), 0) > 0
        return found

    def amounts(self) -> list[int]:
        """Return how many atoms of the last element there may be."""
        return list(self._amounts(self._element))

    def _amounts(self, element: int) -> Iterator[int]:
        rules = self._rules
        if self._wanted:
            yield self._wanted[element]
            return
        placed = sum(count for _, count in self.counts)
        later = [e for e in self._order if e > element]
        more = later or (not self._order and any(rules.elements[element + 1 :]))
        group = rules.conditions.space_group
        for count in range(1, min(MOST_COUNT, self._most - placed - len(later)) + 1):
            formula = [*self.counts, (element, count)]
            if group and not any(_groups(group, _key(formula))):
                continue
            ends = placed + count == self._most or not more
            if not ends or (not later and self._may_end(formula)):
                yield count

    def _may_end(self, formula: Sequence[tuple[int, int]]) -> bool:
        rules = self._rules
        if not set(self._order) <= {element for element, _ in formula}:
            return False
        if not self._least <= sum(count for _, count in formula) <= self._most:
            return False
        group = rules.conditions.space_group
        if group and not any(_groups(group, _key(formula))):
            return False
        content = {rules.names[element]: count for element, count in formula}
        return not rules.balanced or is_charge_balanced(Composition(content), "smact14")


def _key(formula: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(sorted(count for _, count in formula))


@lru_cache(maxsize=20_000)
def _groups(number: int, counts: tuple[int, ...]) -> tuple[bool, ...]:
    """Return which space groups can hold so many atoms of each element."""
    wanted = Draft(dict(enumerate(counts)), (), 0, 0)
    return tuple(possible_groups(Conditions(space_group=number), wanted))
