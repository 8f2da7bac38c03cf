"""A small picture of a crystal: its conventional cell as shaded spheres, in plain SVG."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Structure

from matloop.reports.figures.theme import mixed

Vectors = NDArray[np.float64]

_EDGE = 1e-2  # fraction of a cell within which an atom sits on a face and is drawn on both sides
_MOST_ATOMS = 220
_TURN = np.deg2rad(-24.0)  # around the upright axis, so that faces are seen aslant
_TILT = np.deg2rad(12.0)  # towards the reader, so that the top is seen


@dataclass(frozen=True)
class Picture:
    """A drawing, to be placed in an SVG element or symbol of the page.

    Attributes
    ----------
    width, height
        Size of its view box; the longer one is about 100.
    shapes
        SVG markup.
    elements
        Elements drawn, whose `gradients` the page must hold.
    """

    width: float
    height: float
    shapes: str
    elements: tuple[str, ...]


def crystal_picture(structure: Structure) -> Picture:
    """Return a picture of one cell, atoms on its faces repeated.

    Parameters
    ----------
    structure
        Ordered crystal; drawn in the cell as given.
    """
    cell, atoms, elements = _scene(structure)
    turn = _view(structure)
    atoms, corners = atoms @ turn, cell @ turn
    radii = np.array([_radius(element) for element in elements])
    bonds = _bonds(atoms, elements)
    points = np.vstack([atoms[:, :2], corners[:, :2]])
    reach = float(radii.max()) + 0.15
    low, high = points.min(axis=0) - reach, points.max(axis=0) + reach
    scale = 100.0 / float(max(high - low))
    size = (high - low) * scale

    def place(vector: Vectors) -> tuple[float, float]:
        return (vector[0] - low[0]) * scale, (high[1] - vector[1]) * scale

    drawn: list[tuple[float, str]] = []
    for start, end in _edges():
        (x1, y1), (x2, y2) = place(corners[start]), place(corners[end])
        drawn.append(
            (
                float(min(corners[start][2], corners[end][2])) - 10.0,
                f'<line class="cell" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>',
            )
        )
    for first, second in bonds:
        middle = (atoms[first] + atoms[second]) / 2
        for own, other in ((first, second), (second, first)):
            (x1, y1), (x2, y2) = place(atoms[own]), place(middle)
            colour = mixed(_colour(elements[own]), "#404550", 0.25)
            depth = float(min(atoms[own][2], atoms[other][2])) - 0.01
            drawn.append(
                (
                    depth,
                    f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                    f'stroke="{colour}" stroke-width="{0.16 * scale:.1f}"/>',
                )
            )
    for atom, element, radius in zip(atoms, elements, radii, strict=True):
        x, y = place(atom)
        drawn.append(
            (
                float(atom[2]),
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius * scale:.1f}" '
                f'fill="url(#atom-{element})"/>',
            )
        )
    shapes = "".join(shape for _, shape in sorted(drawn, key=lambda item: item[0]))
    return Picture(float(size[0]), float(size[1]), shapes, tuple(sorted(set(elements))))


def gradients(elements: Iterable[str]) -> str:
    """Return the SVG definitions that pictures of these elements refer to."""
    stops = []
    for symbol in sorted(set(elements)):
        colour = _colour(symbol)
        light, dark = mixed(colour, "#ffffff", 0.62), mixed(colour, "#101418", 0.38)
        stops.append(
            f'<radialGradient id="atom-{symbol}" cx="0.36" cy="0.32" r="0.75">'
            f'<stop offset="0" stop-color="{light}"/><stop offset="0.45" stop-color="{colour}"/>'
            f'<stop offset="1" stop-color="{dark}"/></radialGradient>'
        )
    return (
        '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
        + "".join(stops)
        + "</defs></svg>"
    )


def element_legend(elements: Iterable[str]) -> list[tuple[str, str]]:
    """Return (element, colour) pairs, in the order of electronegativity."""
    ordered = sorted({Element(symbol) for symbol in elements})
    return [(element.symbol, _colour(element.symbol)) for element in ordered]


def _scene(structure: Structure) -> tuple[Vectors, Vectors, list[str]]:
    # Corners of the cell, atoms with their copies on opposite faces, and their elements.
    fractions: list[Vectors] = []
    elements: list[str] = []
    for site in structure:
        wrapped = np.mod(site.frac_coords, 1.0)
        wrapped[wrapped > 1 - _EDGE] -= 1.0
        shifts = [(0, 1) if abs(x) < _EDGE else (0,) for x in wrapped]
        for shift in product(*shifts):
            fractions.append(wrapped + np.array(shift))
            elements.append(site.specie.symbol)
    if len(fractions) > _MOST_ATOMS:
        fractions = [np.mod(site.frac_coords, 1.0) for site in structure]
        elements = [site.specie.symbol for site in structure]
    matrix = structure.lattice.matrix
    corners = np.array(list(product((0, 1), repeat=3)), dtype=float)
    return corners @ matrix, np.array(fractions) @ matrix, elements


def _edges() -> list[tuple[int, int]]:
    # Corners are numbered by their coordinates as binary digits; an edge differs in one.
    pairs = [(a, a ^ bit) for a in range(8) for bit in (1, 2, 4)]
    return [(a, b) for a, b in pairs if a < b]


def _view(structure: Structure) -> Vectors:
    # c points up, a to the right, then a small turn; columns are screen x, y and towards the eye.
    a, _, c = structure.lattice.matrix
    up = c / np.linalg.norm(c)
    right = a - up * float(a @ up)
    right /= np.linalg.norm(right)
    near = np.cross(right, up)
    base = np.column_stack([right, up, near])
    turn = np.array(
        [
            [np.cos(_TURN), 0.0, -np.sin(_TURN)],
            [0.0, 1.0, 0.0],
            [np.sin(_TURN), 0.0, np.cos(_TURN)],
        ]
    )
    tilt = np.array(
        [
            [1.0, 0.0, 0.0],
            [0.0, np.cos(_TILT), np.sin(_TILT)],
            [0.0, -np.sin(_TILT), np.cos(_TILT)],
        ]
    )
    view: Vectors = base @ turn @ tilt
    return view


def _bonds(atoms: Vectors, elements: list[str]) -> list[tuple[int, int]]:
    # Neighbours nearer than 1.15 times the sum of covalent radii; never between two of the most
    # electropositive kind, whose contacts clutter ionic crystals.
    distances = np.linalg.norm(atoms[:, None] - atoms[None], axis=-1)
    radii = np.array([_covalent(element) for element in elements])
    electronegativity = {e: Element(e).X for e in sorted(set(elements))}
    spread = max(electronegativity.values()) - min(electronegativity.values())
    close = distances < 1.15 * (radii[:, None] + radii[None])
    pairs = []
    for i, j in zip(*np.nonzero(np.triu(close, 1)), strict=True):
        ionic = spread > 1.0
        differ = abs(electronegativity[elements[i]] - electronegativity[elements[j]])
        if not ionic or differ > 0.4:
            pairs.append((int(i), int(j)))
    return pairs


@cache
def _colour(symbol: str) -> str:
    from ase.data import atomic_numbers
    from ase.data.colors import jmol_colors

    red, green, blue = (round(255 * x) for x in jmol_colors[atomic_numbers[symbol]])
    return mixed(f"#{red:02x}{green:02x}{blue:02x}", "#8b9199", 0.3)  # softer on a page


@cache
def _covalent(symbol: str) -> float:
    from ase.data import atomic_numbers, covalent_radii

    return float(covalent_radii[atomic_numbers[symbol]])


@cache
def _radius(symbol: str) -> float:
    return 0.22 + 0.32 * _covalent(symbol)
