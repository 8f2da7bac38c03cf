"""Cells that a text may give: sizes and shapes a crystal can have, digit by digit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from matloop.generators.neural.representations.cif_text import (
    HUNDREDTHS,
    MOST_ANGLE,
    MOST_LENGTH,
    TENTHS,
)
from matloop.generators.neural.representations.orbits import FREE_CELL

VOLUME = (0.5, 4.0)
"""Smallest and largest volume of a crystal over the one estimated from its composition."""

LENGTH = (0.3, 10.5)
"""Shortest and longest edge of a conventional cell over that of a cube of the estimated volume."""

ANGLE = (55 * TENTHS, 140 * TENTHS)
"""Smallest and largest angle, in tenths of a degree."""

FLATTEST = 0.4
"""Smallest volume of a cell over the product of its edges."""


def expected_length(family: str, volume: float, cell: Mapping[int, int]) -> float:
    """Return the length that would give a volume with those so far (Å); 0 where angles follow.

    Parameters
    ----------
    family
        Crystal family, as in `FREE_CELL`.
    volume
        Volume expected of the conventional cell (Å³).
    cell
        Free numbers so far, by index, in steps.
    """
    index = FREE_CELL[family][len(cell)]
    if index >= 3:
        return 0.0
    powers = _powers(family)
    left = volume / (_steepness(family) * _product(powers, cell))
    rest = sum(powers[i] for i in FREE_CELL[family] if index <= i < 3)
    return float(left ** (1 / rest))


def valid_numbers(family: str, volume: float, cell: Mapping[int, int]) -> NDArray[np.bool_]:
    """Return the values of the next free number from which a cell can be finished.

    Parameters
    ----------
    family, volume, cell
        As for `expected_length`.

    Returns
    -------
    NDArray
        Shape (`MOST_LENGTH`,) in hundredths of an ångström, or (`MOST_ANGLE`,) in tenths of a
        degree.
    """
    index = FREE_CELL[family][len(cell)]
    return (_lengths if index < 3 else _angles)(family, volume, cell, index)


def _lengths(family: str, volume: float, cell: Mapping[int, int], index: int) -> NDArray[np.bool_]:
    powers, free = _powers(family), FREE_CELL[family]
    edge = HUNDREDTHS * volume ** (1 / 3)
    lengths = np.arange(MOST_LENGTH) / HUNDREDTHS
    shortest = math.ceil(LENGTH[0] * edge) / HUNDREDTHS
    longest = min(math.floor(LENGTH[1] * edge), MOST_LENGTH - 1) / HUNDREDTHS
    later = sum(powers[i] for i in free if index < i < 3)
    known = _product(powers, cell) * lengths ** powers[index]
    steep = _steepness(family)
    flat = _flatness(len(free)) if len(free) > 3 else steep
    return np.asarray(
        (lengths >= shortest)
        & (lengths <= longest)
        & (steep * known * longest**later >= VOLUME[0] * volume)
        & (flat * known * shortest**later <= VOLUME[1] * volume * (1 + 1e-9))
    )


def _angles(family: str, volume: float, cell: Mapping[int, int], index: int) -> NDArray[np.bool_]:
    product = _product(_powers(family), cell)
    low = max(FLATTEST, VOLUME[0] * volume / product)
    high = min(1.0, VOLUME[1] * volume / product * (1 + 1e-9))
    if family == "monoclinic":
        least, most = _factor_range((90 * TENTHS,), right=True)
    else:
        known = tuple(cell[i] for i in (3, 4) if i < index)
        least, most = _factor_range(known, right=False)
    return (least <= high) & (most >= low)


def _product(powers: Mapping[int, int], cell: Mapping[int, int]) -> float:
    return math.prod((cell[i] / HUNDREDTHS) ** powers[i] for i in cell if i < 3)


def _powers(family: str) -> dict[int, int]:
    """Return how often each free length enters the volume."""
    if family == "cubic":
        return {0: 3}
    if family in ("tetragonal", "trigonal", "hexagonal"):
        return {0: 2, 2: 1}
    return {0: 1, 1: 1, 2: 1}


@lru_cache(maxsize=4)
def _flatness(numbers: int) -> float:
    """Return the smallest volume of a cell of unit edges with so many free numbers."""
    known = (90 * TENTHS,) if numbers == 4 else ()
    return max(FLATTEST, float(_factor_range(known, right=numbers == 4)[0].min()))


def _steepness(family: str) -> float:
    """Return the largest volume of a cell of unit edges."""
    return math.sqrt(3) / 2 if family in ("trigonal", "hexagonal") else 1.0


@lru_cache(maxsize=64)
def _factor_range(
    known: tuple[int, ...], *, right: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and largest volume of a cell of unit edges, by its next angle.

    Parameters
    ----------
    known
        Angles before it, in tenths of a degree.
    right
        Whether all later angles are 90°.

    Returns
    -------
    tuple
        Two arrays of shape (`MOST_ANGLE`,), outside the allowed angles (inf, -inf).
    """
    angles = np.arange(MOST_ANGLE)
    cosines = np.cos(np.radians(angles / TENTHS))
    fine = cosines[ANGLE[0] : ANGLE[1] + 1]
    inside = (angles >= ANGLE[0]) & (angles <= ANGLE[1])
    if right:
        least = most = np.sqrt(1 - cosines**2)
    elif len(known) == 2:
        first, second = cosines[known[0]], cosines[known[1]]
        squares = (1 - first**2) * (1 - second**2) - (cosines - first * second) ** 2
        least = most = np.sqrt(np.maximum(squares, 0.0))
    else:
        coarse = fine[::10]
        others = [cosines] if known else [cosines[:, None], coarse[None]]
        first, second = (cosines[known[0]], cosines) if known else (others[0], others[1])
        sines = (1 - first**2) * (1 - second**2)
        nearest = np.clip(first * second, fine.min(), fine.max())
        farthest = np.maximum(
            np.abs(fine.min() - first * second), np.abs(fine.max() - first * second)
        )
        high = np.sqrt(np.maximum(sines - (nearest - first * second) ** 2, 0.0))
        low = np.sqrt(np.maximum(sines - farthest**2, 0.0))
        most, least = (high, low) if known else (high.max(axis=1), low.min(axis=1))
    return np.where(inside, least, np.inf), np.where(inside, most, -np.inf)
