"""Known structures with other elements in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from math import log

import numpy as np
from monty.json import MSONable
from pymatgen.core import Structure

from matloop.documents.base import Scalar
from matloop.documents.space import ChemicalSpace
from matloop.generators.cells import (
    Seen,
    counts_of,
    crystal,
    element_names,
    is_sane,
    plain_cell,
    symbols_of,
)
from matloop.generators.formulas import favoured_arity, is_allowed
from matloop.generators.likeness import likeliest, log_likelihood, neutral_states
from matloop.generators.volumes import estimated_volume
from matloop.protocols import Parent, Proposal, ProposalRequest
from matloop.structures.symmetry import SymmetryError, space_group

_WIDTH = 8
_COMMON_STATES = 5.0
_MOST_MAPPINGS = 120
_MOST_RANKS = 1000
_WIDE = 8


@dataclass(frozen=True)
class Substitution(MSONable):
    """Data-mined substitution: known crystals with likely ions put in place of theirs.

    Parents are reference phases, templates of any chemical system, and what the campaign has found.
    Either every element is exchanged for one of the space, or, in parents that already lie in
    the space, one orbit of equivalent sites changes its element. Salts are weighed by the
    probabilities of Hautier et al. (Inorg. Chem. 50, 656, 2011), everything else by the distance on
    Pettifor's chemical scale (Solid State Commun. 51, 31, 1984). The cell is scaled to the volume
    expected of the new composition.

    Attributes
    ----------
    temperature
        Divides the mean log-probability per exchanged element: the chance of a substitution falls
        by a factor e when the mean falls by this much.
    min_log_probability
        Substitutions whose mean log-probability per element is below this are never made.
    full_system
        How much likelier a result is for each element nearer to the whole system (or to four, in a
        long list of elements without `max_elements`).
    partial
        Also exchange single orbits in parents that lie in the space.
    partial_weight
        Weight of such an exchange relative to a full one of the same probability.
    max_parents
        Most parents looked at; found crystals are always among them, references are drawn.
    """

    temperature: float = 0.5
    min_log_probability: float = -8.0
    full_system: float = 4.0
    partial: bool = True
    partial_weight: float = 0.1
    max_parents: int = 1000

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError("temperature must be positive")
        for name in ("partial_weight", "full_system"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive")
        if self.max_parents < 1:
            raise ValueError("max_parents must be at least 1")

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return crystals in the order they were drawn; each parent and mapping comes once.

        Of results that agree within 5 % but for their volume, with each other or with a crystal of
        the request, only the first is proposed.
        """
        rng = np.random.default_rng(request.seed)
        options: list[tuple[float, Parent, Structure, _Mapping]] = []
        seen = Seen()
        for parent, cell in self._parents(request, rng):
            seen.is_new(cell)
            for mapping in self._mappings(cell, request.space):
                # The Gumbel trick draws without replacement, with chances ∝ exp(score).
                score = self._score(mapping, request.space)
                options.append((score + rng.gumbel(), parent, cell, mapping))
        options.sort(key=lambda option: -option[0])
        proposals: list[Proposal] = []
        for _, parent, cell, mapping in options:
            if len(proposals) >= request.count:
                break
            child = _substituted(cell, mapping.symbols)
            if child is None or not is_allowed(request.space, counts_of(symbols_of(child))):
                continue
            if seen.is_new(child):
                chosen: dict[str, Scalar] = {
                    "mapping": mapping.text,
                    "log_probability": round(mapping.log_probability, 6),
                }
                proposals.append(Proposal(child, (parent.parent_id,), chosen))
        return proposals

    def _score(self, mapping: _Mapping, space: ChemicalSpace) -> float:
        score = mapping.log_probability / mapping.classes / self.temperature
        away = abs(len(set(mapping.symbols)) - favoured_arity(space))
        score -= away * log(self.full_system)
        if space.charge_balance == "required" and not mapping.ionic:
            score -= log(_COMMON_STATES)
        return score + (0.0 if mapping.full else log(self.partial_weight))

    def _parents(
        self, request: ProposalRequest, rng: np.random.Generator
    ) -> list[tuple[Parent, Structure]]:
        space = request.space
        unique: dict[str, Parent] = {}
        for parent in (*request.found, *request.references):
            unique.setdefault(parent.parent_id, parent)
        found = [unique[parent_id] for parent_id in {p.parent_id: 0 for p in request.found}]
        known = {parent.parent_id for parent in found}
        others = [
            parent
            for parent in unique.values()
            if parent.parent_id not in known
            and len(element_names(parent.structure)) <= space.most_elements
        ]
        room = self.max_parents - len(found)
        if len(others) > max(room, 0):
            kept = sorted(rng.choice(len(others), size=max(room, 0), replace=False))
            others = [others[index] for index in kept]
        cells = ((parent, plain_cell(parent.structure)) for parent in (*found, *others))
        return [
            (parent, cell)
            for parent, cell in cells
            if cell is not None and space.min_atoms <= len(cell) <= space.max_atoms
        ]

    def _mappings(self, cell: Structure, space: ChemicalSpace) -> Iterator[_Mapping]:
        symbols = symbols_of(cell)
        before = tuple(counts_of(symbols).items())
        sources = [name for name, _ in before]
        full = len(before) >= space.min_elements
        for targets in _target_choices(sources, space.allowed) if full else ():
            swaps = {old: new for (old, _), new in zip(before, targets, strict=True)}
            after = tuple((swaps[name], number) for name, number in before)
            if after != before:
                text = ", ".join(f"{old} > {new}" for old, new in swaps.items() if old != new)
                yield from self._likely(
                    before, after, [swaps[symbol] for symbol in symbols], text, full=True
                )
        if self.partial and element_names(cell) <= set(space.allowed):
            yield from self._orbit_swaps(cell, symbols, space)

    def _orbit_swaps(
        self, cell: Structure, symbols: list[str], space: ChemicalSpace
    ) -> Iterator[_Mapping]:
        orbits = _orbits(cell)
        for head in sorted(set(orbits)):
            sites = [index for index, orbit in enumerate(orbits) if orbit == head]
            old = symbols[head]
            rest = counts_of(symbols[i] for i in range(len(symbols)) if orbits[i] != head)
            if old not in rest:
                continue  # a whole element: that is a full exchange
            options = [name for name in space.allowed if name != old]
            for new in likeliest(old, options, _WIDTH):
                before = (*rest.items(), (old, len(sites)))
                after = (*rest.items(), (new, len(sites)))
                swapped = [new if orbits[i] == head else s for i, s in enumerate(symbols)]
                text = f"{old} > {new} on {len(sites)} of {symbols.count(old)}"
                if len(sites) < symbols.count(old) and len({*orbits}) > len({*symbols}):
                    text += f" (site {head})"
                yield from self._likely(before, after, swapped, text, full=False)

    def _likely(
        self,
        before: tuple[tuple[str, int], ...],
        after: tuple[tuple[str, int], ...],
        symbols: list[str],
        text: str,
        *,
        full: bool,
    ) -> Iterator[_Mapping]:
        chance = log_likelihood(before, after)
        if chance >= self.min_log_probability * len(before):
            ionic = bool(neutral_states(after))
            yield _Mapping(symbols, text, chance, len(before), full, ionic)


@dataclass(frozen=True)
class _Mapping:
    symbols: list[str]
    text: str
    log_probability: float
    classes: int
    full: bool
    ionic: bool


# Every way to put distinct elements of the space in place of a parent's; in wide spaces the
# likeliest only, so that the work stays bounded.
def _target_choices(sources: list[str], allowed: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if len(allowed) <= _WIDE:
        yield from permutations(allowed, len(sources))
        return
    best = [likeliest(source, allowed, _WIDTH) for source in sources]
    distinct = 0
    for ranks in _rank_order(len(sources)):
        targets = tuple(options[rank] for options, rank in zip(best, ranks, strict=True))
        if len(set(targets)) == len(targets):
            yield targets
            distinct += 1
            if distinct == _MOST_MAPPINGS:
                return


@cache
def _rank_order(count: int) -> tuple[tuple[int, ...], ...]:
    order = sorted(product(range(_WIDTH), repeat=count), key=lambda ranks: (sum(ranks), ranks))
    return tuple(order[:_MOST_RANKS])


def _substituted(cell: Structure, symbols: list[str]) -> Structure | None:
    before = estimated_volume(counts_of(symbols_of(cell)))
    scale = (estimated_volume(counts_of(symbols)) / before) ** (1 / 3)
    child = crystal(symbols, np.array(cell.lattice.matrix) * scale, np.array(cell.frac_coords))
    child = plain_cell(child)
    return child if child is not None and is_sane(child) else None


def _orbits(cell: Structure) -> list[int]:
    try:
        return list(space_group(cell, symprec=0.01).orbits)
    except SymmetryError:
        return list(range(len(cell)))
