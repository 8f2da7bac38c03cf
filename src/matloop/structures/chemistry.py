"""Charge neutrality of compositions, and the compositions of a chemical space.

The rule is that of SMACT (Davies et al., Chem 1, 617, 2016): some set of known oxidation states
adds up to zero, and in it every cation is less electronegative than every anion. As in the field's
validity metric (Xie et al., CDVAE, ICLR 2022), a single element and an alloy of metals alone count
as balanced.
"""

from __future__ import annotations

import itertools
import math
import random
import warnings
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Element, Structure

from matloop.documents.candidate import sole_element
from matloop.documents.space import ChemicalSpace

Rules = Literal["icsd24", "smact14"]
"""Which oxidation states count as known.

``icsd24`` is the default of SMACT 4: states with at least three reports in the ICSD of 2024.
``smact14`` is the older, wider list that SMACT used before version 3, and with it the
compositional validities published for CDVAE, DiffCSP, FlowMM and their kin."""

_Counts = tuple[int, ...]
_Content = tuple[tuple[str, ...], _Counts]


def is_charge_balanced(composition: Composition, rules: Rules = "icsd24") -> bool:
    """Whether the composition obeys the SMACT rule; remembered by reduced formula.

    Elements without known oxidation states balance only in alloys and on their own.
    """
    reduced = composition.element_composition.reduced_composition
    return _is_balanced(reduced.alphabetical_formula.replace(" ", ""), rules)


def balanced_states(composition: Composition, rules: Rules = "icsd24") -> dict[str, int] | None:
    """Return a set of oxidation states that balances a composition, one per element.

    Of several it is the one in which most atoms have a common state. None where no set does, as in
    alloys, which need none.
    """
    reduced = composition.element_composition.reduced_composition
    elements = tuple(element.symbol for element in reduced)
    states = _allowed_states(elements, rules)
    counts = np.array([round(reduced[element]) for element in elements])
    neutral = states[states @ counts == 0]
    if not len(neutral):
        return None
    common = [Element(element).common_oxidation_states for element in elements]
    usual = [[s in known for s, known in zip(row, common, strict=True)] for row in neutral]
    best = int(np.argmax(np.array(usual) @ counts))
    return dict(zip(elements, map(int, neutral[best]), strict=True))


def compositions(
    space: ChemicalSpace, rules: Rules = "icsd24", limit: int = 50_000
) -> list[Composition]:
    """Return the cell contents a chemical space allows, smallest cells first.

    Each is the content of one cell, so SrTiO3 and Sr2Ti2O6 are two. The order depends on the
    arguments alone: atoms, number of elements, elements in the order of `space.allowed`, counts.

    Parameters
    ----------
    space
        Its elements, limits and charge balance are respected.
    rules
        Oxidation states that count where the space requires charge balance.
    limit
        Most cell contents considered. A space with more of them is sampled: this many are drawn
        evenly among all, always the same ones.
    """
    return list(_compositions(space, rules, limit))


@cache
def _is_balanced(formula: str, rules: Rules) -> bool:
    from smact.screening import smact_validity

    states = None if rules == "icsd24" else rules
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have no electronegativity: the rule knows
        return bool(smact_validity(Composition(formula), oxidation_states_set=states))


@lru_cache(maxsize=16)
def _compositions(space: ChemicalSpace, rules: Rules, limit: int) -> tuple[Composition, ...]:
    contents = list(_contents(space, limit))
    if space.charge_balance == "required":
        contents = _balanced(contents, rules)
    return tuple(
        Composition(dict(zip(elements, counts, strict=True))) for elements, counts in contents
    )


def _contents(space: ChemicalSpace, limit: int) -> Iterator[_Content]:
    # A cell content is a choice of k elements and a cut of n atoms into k parts: k - 1 cut points.
    allowed = space.allowed
    blocks = [
        (atoms, k, math.comb(len(allowed), k), math.comb(atoms - 1, k - 1))
        for atoms in range(space.min_atoms, space.max_atoms + 1)
        for k in range(space.min_elements, min(space.most_elements, atoms) + 1)
    ]
    total = sum(choices * cuts for _, _, choices, cuts in blocks)
    if total <= limit:
        for atoms, k, _, _ in blocks:
            for elements in itertools.combinations(allowed, k):
                for cut in itertools.combinations(range(1, atoms), k - 1):
                    yield elements, _parts(cut, atoms)
        return
    start = 0
    ranks = iter(sorted(random.Random(0).sample(range(total), limit)))
    rank = next(ranks, None)
    for atoms, k, choices, cuts in blocks:
        while rank is not None and rank < start + choices * cuts:
            choice, cut_rank = divmod(rank - start, cuts)
            elements = tuple(allowed[i] for i in _combination(choice, len(allowed), k))
            cut = tuple(i + 1 for i in _combination(cut_rank, atoms - 1, k - 1))
            yield elements, _parts(cut, atoms)
            rank = next(ranks, None)
        start += choices * cuts


def _parts(cut: tuple[int, ...], atoms: int) -> _Counts:
    return tuple(right - left for left, right in itertools.pairwise((0, *cut, atoms)))


def _combination(rank: int, n: int, k: int) -> tuple[int, ...]:
    # The combination of k out of range(n) that itertools.combinations would yield at this rank.
    chosen = []
    for item in range(n):
        if k == 0:
            break
        starting_here = math.comb(n - item - 1, k - 1)
        if rank < starting_here:
            chosen.append(item)
            k -= 1
        else:
            rank -= starting_here
    return tuple(chosen)


def _balanced(contents: list[_Content], rules: Rules) -> list[_Content]:
    # The same rule as `is_charge_balanced`, for all contents of one choice of elements at once.
    from smact import metals

    members: dict[tuple[str, ...], list[int]] = {}
    for index, (elements, _) in enumerate(contents):
        members.setdefault(elements, []).append(index)
    keep = np.zeros(len(contents), dtype=bool)
    for elements, indices in members.items():
        if len(elements) == 1 or all(element in metals for element in elements):
            keep[indices] = True
            continue
        counts = np.array([contents[index][1] for index in indices])
        keep[indices] = (counts @ _allowed_states(elements, rules).T == 0).any(axis=1)
    return [content for content, kept in zip(contents, keep, strict=True) if kept]


@lru_cache(maxsize=4096)
def _allowed_states(elements: tuple[str, ...], rules: Rules) -> NDArray[np.int64]:
    # Every choice of one state per element in which all cations are less electronegative than all
    # anions, as rows; none where an electronegativity is unknown.
    known = [_states(element, rules) for element in elements]
    affinities = np.array([_electronegativity(element) for element in elements])
    if np.isnan(affinities).any():
        return np.empty((0, len(elements)), dtype=np.int64)
    grid = np.meshgrid(*(np.array(states, dtype=np.int64) for states in known), indexing="ij")
    rows = np.stack([axis.ravel() for axis in grid], axis=1)
    cations = np.where(rows > 0, affinities, -np.inf).max(axis=1)
    anions = np.where(rows < 0, affinities, np.inf).min(axis=1)
    return np.asarray(rows[cations < anions])


@cache
def _states(element: str, rules: Rules) -> tuple[int, ...]:
    import smact
    from smact.screening import ICSD24FilterConfig
    from smact.utils.oxidation import ICSD24OxStatesFilter

    if rules == "smact14":
        return tuple(smact.Element(element).oxidation_states_smact14 or ())
    return _icsd24(ICSD24OxStatesFilter, ICSD24FilterConfig).get(element, ())


@cache
def _icsd24(source: type, config: type) -> dict[str, tuple[int, ...]]:
    default = config()
    table = source().filter(
        consensus=default.consensus,
        include_zero=default.include_zero,
        commonality=default.commonality,
    )
    return {
        str(row["element"]): tuple(map(int, str(row["oxidation_state"]).split()))
        for _, row in table.iterrows()
    }


@cache
def _electronegativity(element: str) -> float:
    import smact

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have none, which is the answer
        value = smact.Element(element).pauling_eneg
    return math.nan if value is None else float(value)


def reduced_formula(structure: Structure) -> str:
    """Return the reduced formula of a crystal as pymatgen writes it, each composition once.

    Parameters
    ----------
    structure
        Any crystal; empty for one without sites.
    """
    amounts: dict[Element, int] = {}
    for site in structure:
        element = sole_element(site)
        if element is None:
            return str(structure.composition.reduced_formula)
        amounts[element] = amounts.get(element, 0) + 1
    return _reduced_formula(tuple(amounts.items()))


@lru_cache(maxsize=65_536)
def _reduced_formula(amounts: tuple[tuple[Element, int], ...]) -> str:
    return str(Composition(dict(amounts)).reduced_formula)
