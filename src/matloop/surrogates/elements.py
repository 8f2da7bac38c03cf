"""Element properties as one table without gaps, and statistics of a composition over it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from itertools import pairwise, product
from math import gcd

import numpy as np
from numpy.typing import NDArray
from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
from pymatgen.core import Composition, Element

Array = NDArray[np.float64]

HEAVIEST = 103
"""Atomic number of the heaviest element with enough data."""

PROPERTIES: tuple[str, ...] = (
    "number",
    "mendeleev",
    "row",
    "group",
    "mass",
    "electronegativity",
    "covalent_radius",
    "van_der_waals_radius",
    "molar_volume",
    "melting_point",
    "ionization_energy",
    "electron_affinity",
    "valence_s",
    "valence_p",
    "valence_d",
    "valence_f",
    "valence",
    "unfilled",
    "highest_oxidation",
    "lowest_oxidation",
)
_SHELL_SIZE = {"s": 2, "p": 6, "d": 10, "f": 14}
_STATISTICS = ("mean", "spread", "min", "max", "range")
_MOST_ASSIGNMENTS = 20_000

COMPOSITION_FEATURES: tuple[str, ...] = (
    *(f"{name}_{statistic}" for statistic in _STATISTICS for name in PROPERTIES),
    "n_elements",
    "entropy",
    "norm_2",
    "norm_3",
    "ionicity_mean",
    "ionicity_max",
    "is_neutral",
    "ion_charge_mean",
)


@cache
def table() -> Array:
    """Return the properties of all elements, shape (104, 20); row 0 is empty.

    An element without a number takes that of the element nearest to it by Mendeleev number, so
    that chemically alike elements stay alike. Numbers come from pymatgen's periodic table, covalent
    radii (Å) from Cordero et al., Dalton Trans. 2008, 2832; molar volumes are per atom (Å^3).
    """
    rows = np.full((HEAVIEST + 1, len(PROPERTIES)), np.nan)
    for number in range(1, HEAVIEST + 1):
        rows[number] = _properties(Element.from_Z(number))
    mendeleev = rows[:, PROPERTIES.index("mendeleev")]
    for values in rows.T:
        known = np.flatnonzero(np.isfinite(values))
        gaps = np.abs(mendeleev[:, None] - mendeleev[known])
        nearest = known[np.argmin(np.nan_to_num(gaps), axis=1)]
        values[:] = np.where(np.isfinite(values), values, values[nearest])
    rows[0] = 0.0
    rows.flags.writeable = False
    return rows


def column(name: str) -> Array:
    """Return one property of all elements, indexed by atomic number."""
    return np.asarray(table()[:, PROPERTIES.index(name)])


def describe_composition(composition: Composition) -> tuple[float, ...]:
    """Return the descriptor of a composition, named by `COMPOSITION_FEATURES`.

    Raises
    ------
    ValueError
        If it is empty, or holds an element that there are no data for.
    """
    amounts = {element.symbol: amount for element, amount in composition.items()}
    if not amounts:
        raise ValueError("the composition is empty")
    counts = {Element(symbol).Z: amount for symbol, amount in sorted(amounts.items())}
    if max(counts) > HEAVIEST:
        raise ValueError(f"no data for the element {Element.from_Z(max(counts)).symbol}")
    whole = {number: round(amount) for number, amount in counts.items()}
    if any(abs(whole[number] - amount) > 1e-6 for number, amount in counts.items()):
        raise ValueError("the composition has no whole numbers of atoms")
    divisor = gcd(*whole.values())
    numbers = tuple(sorted(whole))
    return composition_features(numbers, tuple(whole[number] // divisor for number in numbers))


@lru_cache(maxsize=100_000)
def composition_features(numbers: tuple[int, ...], counts: tuple[int, ...]) -> tuple[float, ...]:
    """Return the descriptor of a composition, named by `COMPOSITION_FEATURES`.

    Mean, mean absolute deviation, extremes and range of element properties weighted by atomic
    fraction follow Ward et al., npj Comput. Mater. 2, 16028 (2016).

    Parameters
    ----------
    numbers
        Atomic numbers, each once.
    counts
        Atoms of each.
    """
    fractions = np.asarray(counts, dtype=float) / sum(counts)
    values = table()[list(numbers)]
    mean = fractions @ values
    spread = fractions @ np.abs(values - mean)
    low, high = values.min(axis=0), values.max(axis=0)
    electronegativity = column("electronegativity")[list(numbers)]
    ionicity = 1.0 - np.exp(-0.25 * np.subtract.outer(electronegativity, electronegativity) ** 2)
    charges = ionic_charges(numbers, counts)
    return (
        *mean,
        *spread,
        *low,
        *high,
        *(high - low),
        float(len(numbers)),
        float(-np.sum(fractions * np.log(fractions))),
        float(np.sum(fractions**2) ** (1 / 2)),
        float(np.sum(fractions**3) ** (1 / 3)),
        float(fractions @ ionicity @ fractions),
        float(ionicity.max()),
        float(charges is not None),
        float(fractions @ np.abs(charges)) if charges is not None else 0.0,
    )


@lru_cache(maxsize=100_000)
def ionic_charges(numbers: tuple[int, ...], counts: tuple[int, ...]) -> tuple[float, ...] | None:
    """Return common oxidation states that add up to zero, one per element; None if none do.

    Among several assignments the one wins that puts the most charge on the most electronegative
    element; no cation is more electronegative than an anion.
    """
    if len(numbers) < 2:
        return None
    order = np.argsort(column("electronegativity")[list(numbers)], kind="stable")
    states = [_common_states(numbers[index]) for index in order]
    if not all(states) or np.prod([len(s) for s in states]) > _MOST_ASSIGNMENTS:
        return None
    best: tuple[float, ...] | None = None
    for assignment in product(*states):
        total = sum(state * counts[index] for state, index in zip(assignment, order, strict=True))
        falls = all(np.sign(first) >= np.sign(second) for first, second in pairwise(assignment))
        if total == 0 and falls and (best is None or assignment[-1] < best[-1]):
            best = tuple(float(state) for state in assignment)
    if best is None:
        return None
    charges = dict(zip(order.tolist(), best, strict=True))
    return tuple(charges[index] for index in range(len(numbers)))


@cache
def _common_states(number: int) -> tuple[int, ...]:
    return tuple(sorted(int(state) for state in Element.from_Z(number).common_oxidation_states))


def _properties(element: Element) -> list[float]:
    shells = _valence_shells(element)
    states = list(element.common_oxidation_states)
    occupied = [min(shells[kind], _SHELL_SIZE[kind]) for kind in "spdf"]
    unfilled = sum(_SHELL_SIZE[k] - shells[k] for k in "spdf" if 0 < shells[k] < _SHELL_SIZE[k])
    return [
        float(element.Z),
        _number(lambda: element.data["Mendeleev no"]),
        float(element.row),
        float(element.group),
        float(element.atomic_mass),
        _number(lambda: element.data["X"]),
        _number(lambda: CovalentRadius.radius[element.symbol]),
        _number(lambda: element.data["Van der waals radius"]),
        _number(lambda: element.data["Molar volume"]) / 0.602214,  # cm^3/mol to Å^3
        _number(lambda: element.data["Melting point"]),
        _number(lambda: element.data["Ionization energies"][0]),
        _number(lambda: element.data["Electron affinity"]),
        *(float(count) for count in occupied),
        float(sum(occupied)),
        float(unfilled),
        float(max(states, default=0)),
        float(min(states, default=0)),
    ]


def _valence_shells(element: Element) -> dict[str, int]:
    """Count the electrons outside the noble-gas core by shell kind, from ``[Ar].3d2.4s2``."""
    shells = dict.fromkeys("spdf", 0)
    for kind, count in re.findall(r"\d([spdf])(\d+)", element.data["Electronic structure"]["0"]):
        shells[kind] += int(count)
    return shells


def _number(read: Callable[[], float]) -> float:
    try:
        return float(read())
    except (KeyError, TypeError, ValueError, IndexError):
        return float("nan")
