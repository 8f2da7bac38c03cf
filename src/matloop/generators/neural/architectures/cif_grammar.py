"""The grammar of canonical CIF: which token may come next, so that no other can be written.

Most of a CIF follows from the rest of it. Only where the text is open is there a step: element and
count of the formula, space group, free numbers of the cell, Wyckoff letters, free coordinates.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from matloop.generators.neural.architectures.cif_cells import expected_length, valid_numbers
from matloop.generators.neural.architectures.cif_formula import Formula
from matloop.generators.neural.architectures.cif_steps import (
    CELL_FIELD,
    COORDINATE_FIELD,
    COUNT,
    DEGREES,
    DIGIT,
    ELEMENT,
    GROUP,
    GROUPS,
    LETTER,
    LETTER_FIELD,
    MOST_COUNT,
    MOST_STEPS,
    WHOLE,
    WIDTH,
    Rules,
    Step,
)
from matloop.generators.neural.architectures.wyckoff_drafts import Draft
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

_SAME = 1.5e-3  # two atoms closer than this along every primitive axis are one to a reader


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
        self._draft, self._formula = draft, Formula(rules, draft)
        self._step: Step | None = None
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
        found._formula, found._cell = self._formula.copy(), dict(self._cell)
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
        if not self._formula.ended:
            return self._formula.step()
        if not self._group:
            return Step(GROUP, 2, names)
        if not self._at_rows:
            index = self._free_cell[len(self._cell)]
            field = CELL_FIELD + (3 * index if index < 3 else 9 + 2 * (index - 3))
            kind = DIGIT if self._parts else (WHOLE if index < 3 else DEGREES)
            return Step(kind, field + self._parts, names, hint=self._expected_length())
        if not self._open_axes:
            element = self._current()
            return Step(LETTER, LETTER_FIELD, element, atoms=self._draft.left[element])
        element, letter = self._draft.sites[-1]
        axis = self._axes[len(self._free)]
        field = COORDINATE_FIELD + 3 * axis + self._parts
        return Step(DIGIT, field, element, letter)

    def allowed(self) -> NDArray[np.bool_]:
        """Return which tokens may come next, shape (`WIDTH`,)."""
        found = np.zeros(WIDTH, dtype=bool)
        kind = self.step().kind
        if kind == ELEMENT:
            found[: len(self.rules.names) + 1] = self._formula.elements()
        elif kind == COUNT:
            found[self._formula.amounts()] = True
        elif kind == GROUP:
            found[:GROUPS] = self._formula.groups()
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
        if kind in (ELEMENT, COUNT):
            self._formula.push(token)
            if self._formula.ended:
                self._finish_formula()
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

    def _finish_formula(self) -> None:
        counts = self._formula.counts
        self._draft.left = dict(counts)
        self._draft.order = tuple(element for element, _ in counts)
        self._draft.least = self._draft.most = sum(self._draft.left.values())

    def _choose_group(self, number: int) -> None:
        group = space_group(number)
        self._group = self._draft.group = number
        self._free_cell = FREE_CELL[group.lattice_type]
        self._volume = estimated_volume(self._formula.content) * group.centring

    def _expected_length(self) -> float:
        return expected_length(space_group(self._group).lattice_type, self._volume, self._cell)

    # The rows of the sites.

    def _current(self) -> int:
        return next(element for element, _ in self._formula.counts if self._draft.left[element])

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
