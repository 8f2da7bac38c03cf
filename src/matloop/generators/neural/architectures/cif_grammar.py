"""The grammar of canonical CIF: which token may come next, so that no other can be written.

Most of a CIF follows from the rest of it. Only where the text is open is there a step: element and
count of the formula, space group, free numbers of the cell, Wyckoff letters, free coordinates.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition

from matloop.generators.neural.architecture import Conditions
from matloop.generators.neural.architectures.cif_cells import expected_length, valid_numbers
from matloop.generators.neural.architectures.wyckoff_drafts import (
    Draft,
    possible_groups,
)
from matloop.generators.neural.representations.cif_text import (
    HUNDREDTHS,
    MOST_ANGLE,
    THOUSANDTHS,
    CifCrystal,
    Site,
)
from matloop.generators.neural.representations.normalizer import polar_axes
from matloop.generators.neural.representations.orbits import (
    FREE_CELL,
    LETTERS,
    free_axes,
    positions,
)
from matloop.generators.volumes import estimated_volume
from matloop.generators.wyckoff import space_group
from matloop.structures.chemistry import is_charge_balanced

ELEMENT, COUNT, GROUP, WHOLE, DEGREES, DIGIT, LETTER = range(7)
"""Kinds of tokens: element or the end of the formula; how many; space group; whole part of a
length; whole part of an angle; a decimal; Wyckoff letter."""

MOST_COUNT = 64
GROUPS = 231
WIDTH = GROUPS
"""Most tokens of a kind."""

MOST_STEPS = 352

_SAME = 1.5e-3  # two atoms closer than this along every primitive axis are one to a reader
_CELL_FIELDS = 3  # fields: formula 0, count 1, group 2, cell 3 to 17, letter 18, coordinates 19 on
_LETTER_FIELD = _CELL_FIELDS + 3 * 6 - 3
_COORDINATE_FIELDS = _LETTER_FIELD + 1
FIELDS = _COORDINATE_FIELDS + 9
"""Places of the text that are told apart: each decimal of each number is one."""


@dataclass(frozen=True)
class Rules:
    """What a text must say.

    Attributes
    ----------
    names
        The elements, by electronegativity.
    elements
        Which of them may occur.
    conditions
        Space group, if any.
    balanced
        Whether the formula must be charge balanced.
    """

    names: Sequence[str]
    elements: Sequence[bool]
    conditions: Conditions
    balanced: bool = False


@dataclass(frozen=True)
class Step:
    """What the next token is about.

    Attributes
    ----------
    kind
        Kind of the token.
    field
        Place of the text.
    element
        Element of the row, by its place among the names; their number where there is none.
    letter
        Wyckoff letter of the row, 0 where there is none.
    atoms
        Atoms of the formula so far, or of the element that are still without a row.
    hint
        Length that would give the estimated volume (Å); 0 outside the cell.
    """

    kind: int
    field: int
    element: int
    letter: int = 0
    atoms: int = 0
    hint: float = 0.0


class CifWriter:
    """A text as far as it is written, and what may come next.

    Parameters
    ----------
    rules
        What the text must say.
    draft
        The empty crystal with the conditions on its content.

    Attributes
    ----------
    dead
        Whether nothing may come next although the text is not whole.
    value
        The number that was written last, as far as it is: periods, or ångström over ten, or the
        angle over 180°; 0 after other tokens.
    """

    def __init__(self, rules: Rules, draft: Draft) -> None:
        self.rules, self.dead, self.value, self.steps = rules, draft.dead, 0.0, 0
        self._draft, self._wanted = draft, dict(draft.left)
        self._step: Step | None = None
        self._formula: list[tuple[int, int]] = []
        self._element = -1
        self._counted = False
        self._group = 0
        self._cell: dict[int, int] = {}
        self._free_cell: tuple[int, ...] = ()
        self._axes: tuple[int, ...] = ()
        self._free: list[int] = []
        self._sites: list[Site] = []
        self._anchor: tuple[int, ...] = ()
        self._number, self._parts = 0, 0
        self._valid: NDArray[np.bool_] | None = None
        self._volume = 0.0

    @property
    def whole(self) -> bool:
        """Whether the text is complete."""
        return self._at_rows and not any(self._draft.left.values()) and not self._open_axes

    @property
    def group(self) -> int:
        """The space group; 0 before it is chosen."""
        return self._group

    @property
    def required(self) -> tuple[int, ...]:
        """Elements that must all occur, by their place among the names; empty for any."""
        return self._draft.order

    @property
    def n_atoms(self) -> int:
        """Atoms of the primitive cell; 0 where that is open."""
        return self._draft.most if self._draft.least == self._draft.most else 0

    def copy(self) -> CifWriter:
        """Return another writer at the same place of the same text."""
        found = copy.copy(self)
        draft = self._draft
        found._draft = replace(
            draft, left=dict(draft.left), sites=list(draft.sites), used=set(draft.used)
        )
        found._formula, found._cell = list(self._formula), dict(self._cell)
        found._free, found._sites = list(self._free), list(self._sites)
        return found

    @property
    def _at_rows(self) -> bool:
        return self._group > 0 and len(self._cell) == len(self._free_cell)

    @property
    def _open_axes(self) -> int:
        return len(self._axes) - len(self._free)

    def step(self) -> Step:
        """Return what the next token is about; the text must not be whole."""
        if self._step is None:
            self._step = self._next_step()
        return self._step

    def _next_step(self) -> Step:
        names = len(self.rules.names)
        if not self._counted:
            atoms = sum(count for _, count in self._formula)
            if self._element < 0:
                return Step(ELEMENT, 0, names, atoms=atoms)
            return Step(COUNT, 1, self._element, atoms=atoms)
        if not self._group:
            return Step(GROUP, 2, names)
        if not self._at_rows:
            index = self._free_cell[len(self._cell)]
            field = _CELL_FIELDS + (3 * index if index < 3 else 9 + 2 * (index - 3))
            kind = DIGIT if self._parts else (WHOLE if index < 3 else DEGREES)
            return Step(kind, field + self._parts, names, hint=self._expected_length())
        if not self._open_axes:
            element = self._current()
            return Step(LETTER, _LETTER_FIELD, element, atoms=self._draft.left[element])
        element, letter = self._draft.sites[-1]
        axis = self._axes[len(self._free)]
        field = _COORDINATE_FIELDS + 3 * axis + self._parts
        return Step(DIGIT, field, element, letter)

    def allowed(self) -> NDArray[np.bool_]:
        """Return which tokens may come next, shape (`WIDTH`,)."""
        found = np.zeros(WIDTH, dtype=bool)
        kind = self.step().kind
        if kind == ELEMENT:
            found[: len(self.rules.names) + 1] = self._elements()
        elif kind == COUNT:
            found[list(self._counts(self._element))] = True
        elif kind == GROUP:
            found[:GROUPS] = _groups(self.rules.conditions.space_group, _key(self._formula))
        elif kind == LETTER:
            found[: len(LETTERS)] = self._draft.letters(self._current())
        else:
            valid = self._numbers()
            ways = valid[self._span()].reshape(-1, 10 ** (self._parts_left() - 1))
            found[: len(ways)] = ways.any(axis=1)
            later = self._axes[len(self._free) + 1 :]
            if self._at_rows and self._parts == 2 and set(later) <= set(self._anchor):
                found[:10] &= self._apart(len(later))
        if not found.any():
            self.dead = True
        return found

    def push(self, token: int) -> None:
        """Write a token that is allowed."""
        kind = self.step().kind
        self.steps += 1
        self._step = None
        self.value = 0.0
        if kind == ELEMENT:
            if token == len(self.rules.names):
                self._finish_formula()
            else:
                self._element = token
        elif kind == COUNT:
            self._formula.append((self._element, token))
            self._element = -1
        elif kind == GROUP:
            self._choose_group(token)
        elif kind == LETTER:
            self._choose_letter(token)
        else:
            self._write_digit(token)

    def crystal(self) -> CifCrystal:
        """Return what the whole text says."""
        cell = tuple(self._cell[index] for index in self._free_cell)
        return CifCrystal(self._group, cell, tuple(self._sites))

    # The formula.

    def _elements(self) -> list[bool]:
        """Return which elements may come next, and at the end whether the formula may end."""
        rules, draft = self.rules, self._draft
        found = [False] * (len(rules.names) + 1)
        placed = sum(count for _, count in self._formula)
        last = self._formula[-1][0] if self._formula else -1
        found[-1] = bool(self._formula) and self._may_end(self._formula)
        if draft.order:
            following = [element for element in draft.order if element > last][:1]
        elif placed < draft.most:
            following = [e for e in range(last + 1, len(rules.names)) if rules.elements[e]]
        else:
            following = []
        for element in following:
            found[element] = next(self._counts(element), 0) > 0
        return found

    def _counts(self, element: int) -> Iterator[int]:
        """Yield how many atoms of an element there may be."""
        rules, draft = self.rules, self._draft
        if self._wanted:
            yield self._wanted[element]
            return
        placed = sum(count for _, count in self._formula)
        later = [e for e in draft.order if e > element]
        more = later or (not draft.order and any(rules.elements[element + 1 :]))
        group = rules.conditions.space_group
        for count in range(1, min(MOST_COUNT, draft.most - placed - len(later)) + 1):
            formula = [*self._formula, (element, count)]
            if group and not any(_groups(group, _key(formula))):
                continue
            ends = placed + count == draft.most or not more
            if not ends or (not later and self._may_end(formula)):
                yield count

    def _may_end(self, formula: Sequence[tuple[int, int]]) -> bool:
        draft, rules = self._draft, self.rules
        if not set(draft.order) <= {element for element, _ in formula}:
            return False
        if not draft.least <= sum(count for _, count in formula) <= draft.most:
            return False
        group = rules.conditions.space_group
        if group and not any(_groups(group, _key(formula))):
            return False
        content = {rules.names[element]: count for element, count in formula}
        return not rules.balanced or is_charge_balanced(Composition(content), "smact14")

    def _finish_formula(self) -> None:
        self._counted = True
        self._draft.left = dict(self._formula)
        self._draft.order = tuple(element for element, _ in self._formula)
        self._draft.least = self._draft.most = sum(self._draft.left.values())

    # The space group and the cell.

    def _choose_group(self, number: int) -> None:
        group = space_group(number)
        self._group = self._draft.group = number
        self._free_cell = FREE_CELL[group.lattice_type]
        names = self.rules.names
        content = {names[element]: count for element, count in self._formula}
        self._volume = estimated_volume(content) * group.centring

    def _expected_length(self) -> float:
        return expected_length(space_group(self._group).lattice_type, self._volume, self._cell)

    # The rows of the sites.

    def _current(self) -> int:
        return next(element for element, count in self._formula if self._draft.left[element])

    def _choose_letter(self, letter: int) -> None:
        first = not self._draft.sites
        element = self._current()
        self._draft.place(element, letter)
        self._axes = _axes_of(self._group, letter)
        self._free = []
        self._anchor = polar_axes(self._group) if first else ()
        self._go_on()

    def _go_on(self) -> None:
        """Write coordinates that follow from the free origin, and the row when it is whole."""
        while self._open_axes and self._axes[len(self._free)] in self._anchor:
            self._free.append(0)
        if not self._open_axes:
            element, letter = self._draft.sites[-1]
            name = self.rules.names[element]
            self._sites.append(Site(name, LETTERS[letter], tuple(self._free)))

    # Numbers.

    def _numbers(self) -> NDArray[np.bool_]:
        """Return which values the number that is being written may have."""
        if self._valid is None:
            if self._at_rows:
                self._valid = self._valid_coordinates()
            else:
                family = space_group(self._group).lattice_type
                self._valid = valid_numbers(family, self._volume, self._cell)
        return self._valid

    def _valid_coordinates(self) -> NDArray[np.bool_]:
        """Return the coordinates that keep rows of the same element and letter in order."""
        valid = np.ones(THOUSANDTHS, dtype=bool)
        before = self._sites[-1] if self._sites else None
        if not self._free and before is not None and before.free:
            element, letter = self._draft.sites[-1]
            if (before.element, before.letter) == (self.rules.names[element], LETTERS[letter]):
                valid[: before.free[0]] = False
        return valid

    def _apart(self, zeros: int) -> NDArray[np.bool_]:
        """Return which last digits keep the atoms of the row off each other and those before.

        Atoms of different positions meet only where one of them lies on a position of higher
        symmetry, and then its own images meet too.
        """
        _, letter = self._draft.sites[-1]
        position = positions(self._group)[LETTERS[letter]]
        points = np.zeros((10, 3))
        points[:, self._axes] = [
            [*self._free, 10 * self._number + digit, *[0] * zeros] for digit in range(10)
        ]
        sites = position.sites(points / THOUSANDTHS)
        others = [one for one in self._sites if one.letter == LETTERS[letter]]
        known = np.zeros((len(others), 3))
        known[:, self._axes] = np.reshape([one.free for one in others], (-1, len(self._axes)))
        taken = position.sites(known / THOUSANDTHS).reshape(-1, 3)
        first, second = np.triu_indices(sites.shape[1], 1)
        own = sites[:, first] - sites[:, second]
        met = sites[:, :, None] - taken[None, None]
        apart = np.concatenate([own, met.reshape(10, -1, 3)], axis=1)
        distance = np.abs(apart - np.round(apart)).max(axis=2, initial=0)
        return np.asarray((distance > _SAME).all(axis=1))

    def _parts_left(self) -> int:
        """Return how many tokens of the number are still to be written."""
        whole = 3 if self._at_rows or self._free_cell[len(self._cell)] < 3 else 2
        return whole - self._parts

    def _span(self) -> slice:
        """Return the values that begin with what is written of the number."""
        size = 10 ** self._parts_left()
        return slice(self._number * size, (self._number + 1) * size) if self._parts else slice(None)

    def _write_digit(self, token: int) -> None:
        self._number = 10 * self._number + token
        self._parts += 1
        left = self._parts_left()
        number = self._number * 10**left
        if self._at_rows:
            self.value = number / THOUSANDTHS
        else:
            length = self._free_cell[len(self._cell)] < 3
            self.value = number / HUNDREDTHS / 10 if length else number / MOST_ANGLE
        if left:
            return
        self._number, self._parts, self._valid = 0, 0, None
        if self._at_rows:
            self._free.append(number)
            self._go_on()
        else:
            self._cell[self._free_cell[len(self._cell)]] = number


def replayed(
    writer: CifWriter, crystal: CifCrystal, most: int = MOST_STEPS
) -> list[tuple[Step, int, float, NDArray[np.bool_]]] | None:
    """Return the steps that write a crystal: each with its token, number and allowed tokens.

    None where a token is not allowed, or there are too many.
    """
    found: list[tuple[Step, int, float, NDArray[np.bool_]]] = []
    names = {name: index for index, name in enumerate(writer.rules.names)}
    family = space_group(crystal.space_group).lattice_type
    tokens: list[int] = []
    for name, count in crystal.counts.items():
        tokens += [names[name], count]
    tokens += [len(names), crystal.space_group]
    for index, value in zip(FREE_CELL[family], crystal.cell, strict=True):
        if index < 3:
            tokens += [value // 100, value // 10 % 10, value % 10]
        else:
            tokens += [value // 10, value % 10]
    polar = polar_axes(crystal.space_group)
    for number, site in enumerate(crystal.sites):
        tokens.append(LETTERS.index(site.letter))
        axes = _axes_of(crystal.space_group, tokens[-1])
        for axis, value in zip(axes, site.free, strict=True):
            if number or axis not in polar:
                tokens += [value // 100, value // 10 % 10, value % 10]
    if len(tokens) > most or max(crystal.counts.values()) > MOST_COUNT:
        return None
    for token in tokens:
        step, allowed = writer.step(), writer.allowed()
        if not 0 <= token < WIDTH or not allowed[token]:
            return None
        writer.push(token)
        found.append((step, token, writer.value, allowed))
    return found


@lru_cache(maxsize=2048)
def _axes_of(group: int, letter: int) -> tuple[int, ...]:
    return tuple(free_axes(positions(group)[LETTERS[letter]]))


def _key(formula: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(sorted(count for _, count in formula))


@lru_cache(maxsize=20_000)
def _groups(number: int, counts: tuple[int, ...]) -> tuple[bool, ...]:
    """Return which space groups can hold so many atoms of each element."""
    wanted = Draft(dict(enumerate(counts)), (), 0, 0)
    return tuple(possible_groups(Conditions(space_group=number), wanted))
