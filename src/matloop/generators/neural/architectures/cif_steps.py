"""The steps that write canonical CIF: what a token is about, and what a text must say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matloop.generators.neural.architecture import Conditions

ELEMENT, COUNT, GROUP, WHOLE, DEGREES, DIGIT, LETTER = range(7)
"""Kinds of tokens: element or the end of the formula; how many; space group; whole part of a
length; whole part of an angle; a decimal; Wyckoff letter."""

MOST_COUNT = 64
GROUPS = 231
WIDTH = GROUPS
"""Most tokens of a kind."""

MOST_STEPS = 352

CELL_FIELD = 3
LETTER_FIELD = CELL_FIELD + 3 * 6 - 3
COORDINATE_FIELD = LETTER_FIELD + 1
FIELDS = COORDINATE_FIELD + 9
"""Places of the text that are told apart, each decimal of each number: formula 0, count 1, group 2,
cell 3 to 17, letter 18, coordinates 19 on."""


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
