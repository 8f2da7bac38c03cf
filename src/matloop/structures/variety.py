"""How much variety there is in a batch of crystals: distinct ones, elements, prototypes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pymatgen.core import Structure

from matloop.structures.identity import IncomparableError, KnownIndex, Matcher, Reduced
from matloop.structures.symmetry import SymmetryError, space_group


@dataclass(frozen=True)
class Variety:
    """Shares of a batch of crystals.

    Attributes
    ----------
    uniqueness
        Distinct crystals per crystal; what cannot be compared counts as distinct.
    novelty
        Crystals that match none of the known ones, per crystal.
    top_formula, formula
        Share of the most frequent reduced formula, and which it is.
    top_prototype, prototype
        The same of anonymous formula and space group number.
    """

    uniqueness: float
    novelty: float
    top_formula: float
    formula: str
    top_prototype: float
    prototype: str


def variety(
    structures: Sequence[Structure],
    known: Sequence[tuple[str, Structure]] = (),
    matcher: Matcher | None = None,
    symprec: float = 0.1,
) -> Variety:
    """Return how varied a batch of crystals is.

    Parameters
    ----------
    structures
        The batch, at least one.
    known
        Name and structure of crystals that are not new.
    matcher
        Decides what is the same; pymatgen's `StructureMatcher` at the default tolerances.
    symprec
        Tolerance of the space groups (Å).
    """
    matcher = matcher or Matcher()
    batch, old = KnownIndex(matcher), KnownIndex(matcher, known)
    distinct = novel = 0
    formulas: Counter[str] = Counter()
    prototypes: Counter[str] = Counter()
    for index, structure in enumerate(structures):
        formulas[str(structure.composition.reduced_formula)] += 1
        prototypes[_prototype(structure, symprec)] += 1
        crystal = _reduced(matcher, structure)
        if crystal is None:
            distinct += 1
            novel += 1
            continue
        novel += old.find(crystal) is None
        if batch.find(crystal) is None:
            distinct += 1
            batch.add(str(index), crystal)
    count = len(structures)
    (formula, most), (prototype, same) = _top(formulas), _top(prototypes)
    return Variety(distinct / count, novel / count, most / count, formula, same / count, prototype)


def element_histogram(structures: Iterable[Structure]) -> dict[str, float]:
    """Return the share of each element among all atoms; empty without atoms."""
    counts: Counter[str] = Counter()
    for structure in structures:
        count_elements(counts, structure)
    return shares_of(counts)


def count_elements(counts: Counter[str], structure: Structure) -> None:
    """Add the atoms of a crystal to those counted, by element."""
    for element, amount in structure.composition.element_composition.items():
        counts[str(element)] += amount


def shares_of(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each element among the atoms counted; empty without atoms."""
    total = sum(counts.values())
    return {name: float(counts[name] / total) for name in sorted(counts)} if total else {}


def divergence(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Return the Jensen-Shannon divergence of two histograms (bits): 0 if equal, 1 if disjoint.

    References
    ----------
    J. Lin, IEEE Trans. Inf. Theory 37, 145 (1991).
    """
    names = sorted({*first, *second})
    p = np.array([first.get(name, 0.0) for name in names])
    q = np.array([second.get(name, 0.0) for name in names])
    if not p.sum() or not q.sum():
        return 0.0
    middle = (p + q) / 2

    def relative(part: np.ndarray) -> float:
        there = part > 0
        return float((part[there] * np.log2(part[there] / middle[there])).sum())

    return min(max((relative(p) + relative(q)) / 2, 0.0), 1.0)


def _prototype(structure: Structure, symprec: float) -> str:
    try:
        number = str(space_group(structure, symprec).number)
    except SymmetryError:
        number = "?"
    return f"{structure.composition.anonymized_formula} in space group {number}"


def _reduced(matcher: Matcher, structure: Structure) -> Reduced | None:
    try:
        return matcher.reduce(structure)
    except IncomparableError:
        return None


def _top(counts: Counter[str]) -> tuple[str, int]:
    return min(counts.items(), key=lambda item: (-item[1], item[0]))
