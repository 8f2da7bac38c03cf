"""The element contents of many crystals or compositions, read in one pass, by chemical system.

A pymatgen `Composition` is slow to make and to ask, because its elements are hashed and compared in
Python. Here the identity of the element objects is the key, and each chemical system is one table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Structure

Array = NDArray[np.float64]


class Contents(NamedTuple):
    """What the members of one chemical system consist of.

    Attributes
    ----------
    elements
        Symbols, sorted; none for members without atoms.
    rows
        Places of the members in what was read, ascending, shape (members,).
    amounts
        Atoms of each element, all positive, shape (members, elements).
    """

    elements: tuple[str, ...]
    rows: NDArray[np.intp]
    amounts: Array

    @property
    def fractions(self) -> Array:
        """Atomic fractions, shape (members, elements)."""
        return np.asarray(self.amounts / self.amounts.sum(axis=1, keepdims=True))


def content(composition: Composition) -> dict[str, float]:
    """Return the amount of each element; charges are ignored, and an isotope is its element."""
    amounts: dict[str, float] = {}
    for species, amount in composition.items():
        if amount > 0:
            symbol = species.symbol
            amounts[symbol] = amounts.get(symbol, 0.0) + amount
    return amounts


def system_of(composition: Composition) -> tuple[str, ...]:
    """Return the symbols of the elements, sorted."""
    return tuple(sorted(content(composition)))


def fractions_of(composition: Composition, system: Sequence[str]) -> Array:
    """Return the atomic fractions of the elements of a system, in its order."""
    held = content(composition)
    amounts = np.array([held.get(element, 0.0) for element in system])
    return np.asarray(amounts / amounts.sum())


def of_compositions(compositions: Sequence[Composition]) -> list[Contents]:
    """Return the contents of compositions, as `content` has them, one table per chemical system."""
    last: tuple[Any, ...] = ()
    group = _Group(last)
    groups = {last: group}
    for row, composition in enumerate(compositions):
        held = composition._data
        names = tuple(held)
        # Most follow one like themselves, which is seen sooner than a group is found.
        if len(names) != len(last) or (names and names[0] is not last[0]) or names != last:
            last = names
            key = tuple(map(id, names))
            if (found := groups.get(key)) is None:
                found = groups[key] = _Group(names)
            group = found
        group.rows.append(row)
        group.amounts.extend(held.values())
    return _by_system(groups.values(), lambda row: content(compositions[row]))


def of_crystals(structures: Sequence[Structure]) -> list[Contents]:
    """Return the contents of crystals, one table per chemical system.

    They are those of `Structure.composition`, which is not made.

    Raises
    ------
    ValueError
        If an amount is negative.
    """
    species: dict[int, Any] = {}  # by identity; being here they live, and no other takes their id
    groups: dict[tuple[int, ...], _Group] = {}
    for row, structure in enumerate(structures):
        amounts: dict[int, float] = {}
        for site in structure.sites:
            for one, amount in site._species._data.items():
                name = id(one)
                if name in amounts:
                    amounts[name] += amount
                else:
                    species[name] = one
                    amounts[name] = amount
        key = tuple(amounts)
        if (group := groups.get(key)) is None:
            group = groups[key] = _Group(tuple(species[name] for name in key))
        group.rows.append(row)
        group.amounts.extend(amounts.values())
    return _by_system(groups.values(), lambda row: content(structures[row].composition))


class _Group:
    # Members with the same species in the same order.

    def __init__(self, species: tuple[Any, ...]) -> None:
        self.species = species
        self.rows: list[int] = []
        self.amounts: list[float] = []  # of one member after the other

    def table(self) -> Array:
        amounts = np.fromiter(self.amounts, float, len(self.amounts))
        return amounts.reshape(len(self.rows), len(self.species))


_Part = tuple[NDArray[np.intp], Array]


def _by_system(
    groups: Iterable[_Group], content_of: Callable[[int], dict[str, float]]
) -> list[Contents]:
    parts: dict[tuple[str, ...], list[_Part]] = {}
    for group in groups:
        if not group.rows:
            continue
        rows, amounts = np.array(group.rows), group.table()
        plain = (amounts >= Composition.amount_tolerance).all(axis=1)
        for row in rows[~plain].tolist():
            found = content_of(row)
            system = tuple(sorted(found))
            part = np.array([row]), np.array([[found[element] for element in system]])
            parts.setdefault(system, []).append(part)
        if plain.any():
            symbols = [one.symbol for one in group.species]
            system = tuple(sorted(set(symbols)))
            parts.setdefault(system, []).append(
                (rows[plain], _added_up(amounts[plain], symbols, system))
            )
    return [_joined(system, found) for system, found in parts.items()]


def _added_up(amounts: Array, symbols: list[str], system: tuple[str, ...]) -> Array:
    # One column per element, however many species it has.
    table = np.zeros((len(amounts), len(system)))
    for column, symbol in enumerate(symbols):
        table[:, system.index(symbol)] += amounts[:, column]
    return table


def _joined(system: tuple[str, ...], parts: list[_Part]) -> Contents:
    if len(parts) == 1:
        return Contents(system, *parts[0])
    rows = np.concatenate([part[0] for part in parts])
    order = rows.argsort()
    return Contents(system, rows[order], np.concatenate([part[1] for part in parts])[order])
