"""Where the names of phases stand in a Gibbs triangle, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from matloop.reports.contents import HullPoint
from matloop.reports.figures.theme import html_formula

_LETTER = 0.014  # half width of a letter, in edge lengths of the triangle
_LINE = 0.024  # half height of a line
_MARKER = 0.035  # half width of a marker


def placed_labels(
    phases: Sequence[HullPoint], obstacles: Sequence[HullPoint], right: str, top: str
) -> dict[str, list[tuple[HullPoint, str]]]:
    """Return phases with the text of their labels, by plotly text position.

    Each label takes the first place beside its point where it covers no other and no marker; one
    that finds none is left out.

    Parameters
    ----------
    phases
        Phases to name, each of another composition.
    obstacles
        Further points whose markers no label may cover.
    right, top
        Elements of these two corners.
    """
    taken = [(*_place(point, right, top), _MARKER, _MARKER) for point in (*phases, *obstacles)]
    placed: dict[str, list[tuple[HullPoint, str]]] = {}
    for point in sorted(phases, key=lambda p: (len(p.fractions), p.e_form, p.point_id)):
        x, y = _place(point, right, top)
        half = _LETTER * len(_name(point))
        for position, cx, cy in _options(point, x, y, half + _MARKER):
            box = (cx, cy, half, _LINE)
            others = [other for other in taken if other[:2] != (x, y)]
            if not any(_overlap(box, other) for other in others):
                taken.append(box)
                placed.setdefault(position, []).append((point, _spaced(point, position)))
                break
    return placed


def _place(point: HullPoint, right: str, top: str) -> tuple[float, float]:
    # Cartesian coordinates in a triangle of edge 1, its left corner at the origin.
    a, c = point.fractions.get(top, 0.0), point.fractions.get(right, 0.0)
    return c + a / 2, a * float(np.sqrt(3)) / 2


def _options(point: HullPoint, x: float, y: float, reach: float) -> list[tuple[str, float, float]]:
    beside = [("middle right", x + reach, y), ("middle left", x - reach, y)]
    if x < 0.5:
        beside.reverse()
    above = ("top center", x, y + _MARKER + 2.2 * _LINE)
    below = ("bottom center", x, y - _MARKER - 2.2 * _LINE)
    if y == 0:
        return [below]
    return [above] if len(point.fractions) == 1 else [*beside, above, below]


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(abs(one[i] - other[i]) < one[i + 2] + other[i + 2] for i in (0, 1))


def _name(point: HullPoint) -> str:
    # A corner is the element, whatever its molecule.
    return next(iter(point.fractions)) if len(point.fractions) == 1 else point.formula


def _spaced(point: HullPoint, position: str) -> str:
    text = html_formula(_name(point))
    if len(point.fractions) == 1:
        text = f"<b>{text}</b>"
    if position.startswith("middle"):
        return "\u00a0" * 3 + text + "\u00a0" * 3
    return f"{text}<br>\u00a0" if position.startswith("top") else f"<br>{text}"
