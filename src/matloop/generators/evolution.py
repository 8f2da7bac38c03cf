"""Evolutionary search: children of the best crystals found so far."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from monty.json import MSONable
from pymatgen.core import Structure

from matloop.documents.space import ChemicalSpace
from matloop.generators.cells import (
    SANE_CONTACT,
    Array,
    Seen,
    contact_limits,
    element_names,
    is_sane,
    plain_cell,
    reduced,
    symbols_of,
)
from matloop.generators.formulas import favoured_arity, is_allowed, nearest_counts
from matloop.generators.operators import (
    Draft,
    crossover,
    doubled,
    is_open,
    permutation,
    rattle,
    recompose,
    relieve,
    strain,
)
from matloop.protocols import Parent, Proposal, ProposalRequest

_MOST_MISSES = 150


@dataclass(frozen=True)
class Evolution(MSONable):
    """Evolutionary search: crossover and mutations of the best crystals found.

    Parents are the crystals found, best first. While they are few, reference phases of the space
    that hold at least two elements join them behind, those of most elements first. Each child is
    brought to an allowed composition of at least two elements, and atoms that are too close are
    pushed apart. It is given up if that fails, or if it agrees within 5 % with a parent or another
    child, whatever the volume.

    Cut-and-splice crossover: Deaven and Ho, Phys. Rev. Lett. 75, 288 (1995); the operators for
    crystals: Glass, Oganov and Hansen, Comput. Phys. Commun. 175, 713 (2006).

    Attributes
    ----------
    crossover
        Weight of joining slabs of two parents.
    strain
        Weight of a random symmetric strain of the cell, with a small rattle.
    permutation
        Weight of swapping unlike atoms.
    composition
        Weight of adding, removing or exchanging atoms.
    rattle
        Weight of moving all atoms a little.
    supercell
        Weight of doubling the cell, then applying one of the mutations.
    pressure
        Selection pressure: the best parent is chosen e to this power times as often as the last.
    strain_sigma
        Standard deviation of a strain component.
    rattle_sigma
        Standard deviation of an atom's step along each axis (Å).
    min_distance
        Shortest distance as a fraction of the sum of two covalent radii, at least 0.5. In spaces
        with charge balance, anions keep further apart.
    full_system
        How much likelier a child is kept for each element nearer to the whole system (or to four,
        in a long list of elements without `max_elements`).
    min_parents
        References join while fewer crystals than this were found.
    """

    crossover: float = 4.0
    strain: float = 1.0
    permutation: float = 2.0
    composition: float = 2.0
    rattle: float = 1.0
    supercell: float = 1.0
    pressure: float = 2.0
    strain_sigma: float = 0.1
    rattle_sigma: float = 0.35
    min_distance: float = 0.7
    full_system: float = 4.0
    min_parents: int = 8

    def __post_init__(self) -> None:
        weights = self._weights()
        negative = sorted(name for name, weight in weights.items() if weight < 0)
        if negative:
            raise ValueError(f"{negative[0]} is a weight and must not be negative")
        if not any(weights.values()):
            raise ValueError("at least one operator needs a weight above 0")
        if not SANE_CONTACT <= self.min_distance <= 1:
            raise ValueError(f"min_distance must lie between {SANE_CONTACT} and 1")
        for name in ("strain_sigma", "rattle_sigma"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1")
        if self.full_system < 1:
            raise ValueError("full_system must be at least 1")
        if not 0 <= self.pressure <= 50:
            raise ValueError("pressure must lie between 0 and 50")

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return children; none without parents, fewer than asked where many tries fail."""
        rng = np.random.default_rng(request.seed)
        parents = self._parents(request)
        if not parents:
            return []
        ranks = np.arange(len(parents)) / max(1, len(parents) - 1)
        chances = np.exp(-self.pressure * ranks)
        chances /= chances.sum()
        seen = Seen()
        for parent in parents:
            seen.is_new(parent.cell)
        proposals: list[Proposal] = []
        misses = 0
        while len(proposals) < request.count and misses < _MOST_MISSES:
            child = self._child(parents, chances, request.space, seen, rng)
            misses = misses + 1 if child is None else 0
            if child is not None:
                proposals.append(child)
        return proposals

    def _weights(self) -> dict[str, float]:
        names = ("crossover", "strain", "permutation", "composition", "rattle", "supercell")
        return {name: float(getattr(self, name)) for name in names}

    def _parents(self, request: ProposalRequest) -> list[_Candidate]:
        space = request.space
        allowed = set(space.allowed)
        few = len(request.found) < self.min_parents
        behind = [
            parent
            for parent in (request.references if few else ())
            if min(2, space.most_elements)
            <= len(element_names(parent.structure))
            <= space.most_elements
        ]
        behind.sort(key=lambda parent: -len(element_names(parent.structure)))
        chosen: dict[str, _Candidate] = {}
        for parent in (*request.found, *behind):
            if parent.parent_id in chosen or not element_names(parent.structure) <= allowed:
                continue
            cell = plain_cell(parent.structure)
            if cell is not None and len(cell) <= 2 * space.max_atoms and is_sane(cell):
                chosen[parent.parent_id] = _Candidate(parent, cell)
        return list(chosen.values())

    def _child(
        self,
        parents: list[_Candidate],
        chances: Array,
        space: ChemicalSpace,
        seen: Seen,
        rng: np.random.Generator,
    ) -> Proposal | None:
        weights = self._weights()
        if len(parents) == 1:
            weights["crossover"] = 0.0
            if not any(weights.values()):
                return None
        shares = np.array(list(weights.values())) / sum(weights.values())
        operator = str(rng.choice(list(weights), p=shares))
        first = parents[int(rng.choice(len(parents), p=chances))]
        used = [first]
        if operator == "crossover":
            others = np.array(
                [0.0 if one is first else p for one, p in zip(parents, chances, strict=True)]
            )
            second = parents[int(rng.choice(len(parents), p=others / others.sum()))]
            used.append(second)
            draft: Draft | None = crossover(*_matched(first.draft, second.draft, space, rng), rng)
        else:
            draft, operator = self._mutant(first.draft, operator, space, rng)
        if draft is None:
            return None
        cell = self._mended(draft, space, rng)
        if cell is None or not seen.is_new(cell):
            return None
        ids = tuple(candidate.parent.parent_id for candidate in used)
        return Proposal(cell, ids, {"operator": operator})

    def _mutant(
        self, parent: Draft, operator: str, space: ChemicalSpace, rng: np.random.Generator
    ) -> tuple[Draft | None, str]:
        if operator == "supercell":
            if 2 * len(parent.symbols) > space.max_atoms:
                return None, operator
            inner = ("strain", "permutation", "composition", "rattle")
            picked = inner[int(rng.integers(len(inner)))]
            draft, _ = self._mutant(doubled(parent, rng), picked, space, rng)
            return draft, f"supercell, {picked}"
        match operator:
            case "strain":
                # On its own a strain keeps every symmetry-fixed position where it was.
                strained = strain(parent, rng, self.strain_sigma)
                return rattle(strained, rng, 0.1 * self.rattle_sigma), operator
            case "permutation":
                return permutation(parent, rng), operator
            case "rattle":
                return rattle(parent, rng, self.rattle_sigma), operator
        target = nearest_counts(space, parent.counts, rng, slack=2)
        return (recompose(parent, target, rng) if target else None), operator

    def _mended(
        self, draft: Draft, space: ChemicalSpace, rng: np.random.Generator
    ) -> Structure | None:
        counts = draft.counts
        if len(counts) < min(2, space.most_elements) or not is_allowed(space, counts):
            target = nearest_counts(space, draft.counts, rng)
            if target is None:
                return None
            draft = recompose(draft, target, rng)
        away = abs(len(draft.counts) - favoured_arity(space))
        if rng.random() > self.full_system**-away:
            return None
        ionic = space.charge_balance == "required"
        limits = contact_limits(draft.symbols, self.min_distance, ionic)
        draft = relieve(draft, limits)
        if not is_open(draft, limits):
            return None
        found = reduced(draft.symbols, draft.matrix, draft.frac)
        if found is None or len(found[0]) < space.min_atoms:
            return None
        # Pure elements are known; a space of several elements is not searched for them.
        pure = len(found[0].symbol_set) < min(2, space.most_elements)
        return None if pure else found[0]


class _Candidate:
    """A parent with its cell as operators take it."""

    def __init__(self, parent: Parent, cell: Structure) -> None:
        self.parent = parent
        self.cell = cell
        self.draft = Draft(
            tuple(symbols_of(cell)), np.array(cell.lattice.matrix), np.array(cell.frac_coords)
        )


# Slabs of cells of very different size would not join: the smaller parent is doubled while it fits.
def _matched(
    first: Draft, second: Draft, space: ChemicalSpace, rng: np.random.Generator
) -> tuple[Draft, Draft]:
    pair = [first, second]
    for one, other in ((0, 1), (1, 0)):
        while (
            abs(log(2 * pair[one].volume / pair[other].volume))
            < abs(log(pair[one].volume / pair[other].volume))
            and 2 * len(pair[one].symbols) <= space.max_atoms
        ):
            pair[one] = doubled(pair[one], rng)
    return pair[0], pair[1]
