"""Cell contents a chemical space allows: drawing one, and finding the nearest one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from math import comb, gcd

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Element

from matloop.documents.space import ChemicalSpace
from matloop.structures.chemistry import compositions, is_charge_balanced

Counts = dict[str, int]
"""Atoms of each element in a cell."""

MOST_FORMULAS = 20_000
"""Formulas of one set of elements are listed up to about this many, smallest first."""

_DRAWS = 50
_COMMON_STATES = 5.0


def favoured_arity(space: ChemicalSpace) -> int:
    """Return how many elements a proposal should hold rather than fewer or more.

    All of a named system, or as many as `max_elements` allows. A long list of elements without a
    limit stands for crystals of up to four.
    """
    limited = bool(space.system or space.max_elements)
    return space.most_elements if limited else max(space.min_elements, min(4, space.most_elements))


def draw_counts(
    space: ChemicalSpace,
    rng: np.random.Generator,
    *,
    full_system: float,
    simplicity: float,
    small_cells: float,
    largest: int,
) -> tuple[Counts, int] | None:
    """Draw the content of a primitive cell.

    Parameters
    ----------
    space
        Space the content lies in.
    rng
        Source of randomness.
    full_system
        How much likelier a formula is for each element nearer to `favoured_arity`.
    simplicity
        A formula unit of n atoms has weight n to the power of minus this; where charge balance is
        required, five times as much if common oxidation states alone balance it.
    small_cells
        A cell of z formula units has weight z to the power of minus this.
    largest
        Most atoms in the cell.

    Returns
    -------
    tuple of Counts and int, or None
        Atoms of each element, and the number of formula units; None if the space holds nothing.
    """
    arities = np.arange(space.min_elements, space.most_elements + 1)
    weights = full_system ** -np.abs(arities - favoured_arity(space)).astype(float)
    for _ in range(_DRAWS):
        arity = int(rng.choice(arities, p=weights / weights.sum()))
        picked = sorted(rng.choice(len(space.allowed), size=arity, replace=False))
        elements = tuple(space.allowed[index] for index in picked)
        formulas = formulas_of(elements, largest, space.charge_balance == "required")
        if not len(formulas):
            continue
        sizes = formulas.sum(axis=1)
        fits = largest // sizes >= -(-space.min_atoms // sizes)
        chances = np.where(fits, sizes ** -float(simplicity), 0.0)
        if space.charge_balance == "required":
            chances *= np.where(_commonly_neutral(elements, largest), _COMMON_STATES, 1.0)
        if not chances.any():
            continue
        row = int(rng.choice(len(formulas), p=chances / chances.sum()))
        size = int(sizes[row])
        units = np.arange(max(1, -(-space.min_atoms // size)), largest // size + 1)
        likely = units ** -float(small_cells)
        z = int(rng.choice(units, p=likely / likely.sum()))
        return {e: int(n) * z for e, n in zip(elements, formulas[row], strict=True)}, z
    return None


def nearest_counts(
    space: ChemicalSpace, counts: Mapping[str, int], rng: np.random.Generator, slack: int = 0
) -> Counts | None:
    """Return the allowed cell content that needs the fewest atoms added and removed.

    Parameters
    ----------
    space
        Space the content shall lie in.
    counts
        Where to start from.
    rng
        Chooses between contents equally near.
    slack
        Contents that need up to this many changes more than the nearest are chosen from as well;
        the start itself is not, unless slack is 0.

    Returns
    -------
    Counts or None
        None if no formula of these elements, or with one more, is allowed.
    """
    start = {name: int(n) for name, n in counts.items() if n > 0 and name in space.allowed}
    options: list[tuple[int, Counts]] = []
    for elements in _neighbouring_systems(space, tuple(start), rng):
        formulas = formulas_of(elements, space.max_atoms, space.charge_balance == "required")
        if not len(formulas):
            continue
        here = np.array([start.get(name, 0) for name in elements])
        lost = sum(start.values()) - int(here.sum())
        sizes = formulas.sum(axis=1)
        for z in range(1, space.max_atoms // int(sizes.min()) + 1):
            cells = formulas[sizes * z <= space.max_atoms] * z
            cells = cells[cells.sum(axis=1) >= space.min_atoms]
            changes = np.abs(cells - here).sum(axis=1) + lost
            for row in np.argsort(changes, kind="stable")[:20]:
                options.append(
                    (int(changes[row]), dict(zip(elements, map(int, cells[row]), strict=True)))
                )
    if slack:
        options = [(change, cell) for change, cell in options if change > 0]
    if not options:
        return None
    least = min(change for change, _ in options)
    close = [cell for change, cell in options if change <= least + slack]
    chosen = close[int(rng.integers(len(close)))]
    return {name: n for name, n in chosen.items() if n}


def is_allowed(space: ChemicalSpace, counts: Mapping[str, int]) -> bool:
    """Say whether a cell content lies in the space, charge balance included."""
    content = Composition(dict(counts))
    if space.objection(content) is not None:
        return False
    return space.charge_balance == "off" or is_charge_balanced(content)


@lru_cache(maxsize=4096)
def formulas_of(elements: tuple[str, ...], largest: int, neutral: bool) -> NDArray[np.int64]:
    """Return the reduced formulas that hold each of the elements, smallest first.

    Shape (formulas, elements). Where there would be more than `MOST_FORMULAS` of them, the larger
    ones are left out.
    """
    count = len(elements)
    while largest > count and comb(largest, count) > MOST_FORMULAS:
        largest -= 1
    if largest < count:
        return np.zeros((0, count), dtype=np.int64)
    system = ChemicalSpace(
        elements=elements,
        min_elements=count,
        min_atoms=count,
        max_atoms=largest,
        charge_balance="required" if neutral else "off",
    )
    rows = [[round(cell[name]) for name in elements] for cell in compositions(system)]
    return np.array([row for row in rows if gcd(*row) == 1], dtype=np.int64).reshape(-1, count)


@lru_cache(maxsize=4096)
def _commonly_neutral(elements: tuple[str, ...], largest: int) -> NDArray[np.bool_]:
    states = [Element(name).common_oxidation_states or (0,) for name in elements]
    charges = np.array(list(product(*states)), dtype=np.int64)
    return np.asarray((formulas_of(elements, largest, True) @ charges.T == 0).any(axis=1))


# The systems of the start itself, one element fewer and one element more. In wide spaces the one
# more is a sample, so that the work stays bounded.
def _neighbouring_systems(
    space: ChemicalSpace, start: tuple[str, ...], rng: np.random.Generator
) -> list[tuple[str, ...]]:
    order = space.allowed
    others = [name for name in order if name not in start]
    if len(others) > 6:
        others = [others[index] for index in sorted(rng.choice(len(others), 6, replace=False))]
    systems = [start, *((*start, name) for name in others)]
    systems += [tuple(name for name in start if name != gone) for gone in start]
    return [
        tuple(sorted(system, key=order.index))
        for system in systems
        if space.min_elements <= len(system) <= space.most_elements
    ]
