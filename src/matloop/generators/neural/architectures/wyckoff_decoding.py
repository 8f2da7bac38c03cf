"""Constrained decoding of symmetric crystals: no step that the constraints forbid can be drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pymatgen.core import Structure
from torch import Tensor

from matloop.generators.neural.architecture import (
    Conditions,
    SampleRequest,
    Statistics,
)
from matloop.generators.neural.architectures.causal_network import Cache
from matloop.generators.neural.architectures.completions import (
    COMPLETIONS,
    PENALISED_COMPLETIONS,
    clashes,
    costs,
)
from matloop.generators.neural.architectures.step_data import asking_nothing
from matloop.generators.neural.architectures.wyckoff_drafts import (
    MOST_SITES,
    Draft,
    empty_draft,
    possible_groups,
)
from matloop.generators.neural.architectures.wyckoff_network import (
    CELL,
    COORDINATE,
    GROUP,
    SITE,
    WyckoffNetwork,
)
from matloop.generators.neural.data_statistics import standardised_properties
from matloop.generators.neural.representations.orbits import (
    FREE_CELL,
    LETTERS,
    Orbit,
    SymmetricCrystal,
    free_axes,
    positions,
)
from matloop.generators.wyckoff import space_group

_AT_ONCE = 128


@torch.no_grad()
def decode(
    module: WyckoffNetwork,
    statistics: Statistics,
    request: SampleRequest,
    latent: Tensor | None = None,
) -> list[Structure | None]:
    """Return crystals; None for those that run into a dead end, or clash in every completion.

    Parameters
    ----------
    module
        The network, in evaluation mode.
    statistics
        Of its training data.
    request
        What is asked for.
    latent
        Vectors to write from, shape (request.count, latent), for a network that has them.
    """
    generator = torch.Generator().manual_seed(request.seed)
    rng = np.random.default_rng(request.seed)
    crystals: list[Structure | None] = []
    for start in range(0, request.count, _AT_ONCE):
        count = min(_AT_ONCE, request.count - start)
        drafts = [empty_draft(statistics, request, rng) for _ in range(count)]
        points = None if latent is None else latent[start : start + count]
        crystals += _Writing(module, statistics, request, generator, drafts, points).finish()
    return crystals


class _Writing:
    """A batch of crystals being written together."""

    def __init__(
        self,
        module: WyckoffNetwork,
        statistics: Statistics,
        request: SampleRequest,
        generator: torch.Generator,
        drafts: list[Draft],
        latent: Tensor | None,
    ) -> None:
        self.module, self.request, self.generator = module, request, generator
        self.names: list[str] = statistics["elements"]
        self.drafts = drafts
        conditions = _conditions(statistics, request.conditions, drafts)
        if latent is not None:
            conditions["latent"] = latent
        self.cache = module.open(conditions, MOST_SITES + 2)
        self.free: Cache | None = None
        if request.guidance:
            self.free = module.open(asking_nothing(conditions), MOST_SITES + 2)
        self.last = _step(len(drafts))
        allowed = request.conditions.allowed
        self.allowed = [not allowed or name in allowed for name in self.names]

    def finish(self) -> list[Structure | None]:
        self._choose_groups()
        self._choose_sites()
        kept = [index for index, draft in enumerate(self.drafts) if not draft.dead]
        whole = dict(zip(kept, self._complete(kept), strict=True)) if kept else {}
        return [whole.get(index) for index in range(len(self.drafts))]

    def _choose_groups(self) -> None:
        rows = torch.arange(len(self.drafts))
        logits = self._logits(rows, _step(len(rows)), self.module.to_group)
        possible = torch.tensor([possible_groups(self.request.conditions, d) for d in self.drafts])
        chosen = self._draw(logits.masked_fill(~possible, -torch.inf))
        for draft, number, any_left in zip(
            self.drafts, chosen.tolist(), possible.any(1).tolist(), strict=True
        ):
            draft.group, draft.dead = number, not any_left
        self.last["group"] = chosen

    def _choose_sites(self) -> None:
        stop = len(self.names)
        alive = [index for index, draft in enumerate(self.drafts) if not draft.dead]
        while alive:
            masks = []
            for index in list(alive):
                draft = self.drafts[index]
                mask = draft.elements(self.allowed)
                ends = draft.may_stop(self.names, balanced=self.request.charge_balance)
                if not any(mask) and not ends:
                    draft.dead = True
                    alive.remove(index)
                    continue
                masks.append([*mask, ends])
            if not alive:
                return
            rows = torch.tensor(alive)
            asked = _step(len(rows), kind=SITE, group=self.last["group"][rows])
            states = self._states(rows, asked)
            logits = self._guided([self.module.to_element(state) for state in states])
            element = self._draw(logits.masked_fill(~torch.tensor(masks), -torch.inf))
            groups = self.last["group"][rows]
            named = element.clamp(max=stop)
            logits = self._guided(
                [self.module.letter_logits(state, named, groups) for state in states]
            )
            letters = torch.tensor(
                [
                    self.drafts[index].letters(e) if e < stop else [True] * len(LETTERS)
                    for index, e in zip(alive, element.tolist(), strict=True)
                ]
            )
            there = torch.isfinite(logits) & letters
            there[element == stop] = True
            letter = self._draw(torch.nan_to_num(logits, neginf=0).masked_fill(~there, -torch.inf))
            letter[element == stop] = 0
            for name, value in (("kind", torch.full_like(element, SITE)), ("element", element)):
                self.last[name][rows] = value
            self.last["letter"][rows] = letter
            pairs = zip(list(alive), element.tolist(), letter.tolist(), strict=True)
            for index, e, chosen in pairs:
                if e == stop:
                    alive.remove(index)
                else:
                    self.drafts[index].place(e, chosen)

    def _complete(self, kept: list[int]) -> list[Structure | None]:
        """Draw cells and coordinates several times, and return the best crystals without a clash.

        The best is the likeliest, or the one with the lowest penalty where there is one.
        """
        times = PENALISED_COMPLETIONS if self.request.penalty else COMPLETIONS
        rows = torch.tensor(kept).repeat_interleave(times)
        slots = [self.drafts[index].slots() for index in rows.tolist()]
        self.cache = self.cache.chosen(rows, max(map(len, slots)))
        self.free = None  # numbers are drawn from the conditional model alone
        self.last = {name: value[rows] for name, value in self.last.items()}
        values: list[list[float]] = [[] for _ in slots]
        likelihood = torch.zeros(len(slots))
        for number in range(max(map(len, slots))):
            rows = torch.tensor([row for row, own in enumerate(slots) if number < len(own)])
            asked_for = torch.tensor([slots[row][number] for row in rows.tolist()])
            kind, element, letter, axis = asked_for.unbind(1)
            asked = {
                "kind": kind,
                "element": element,
                "letter": letter,
                "axis": axis,
                "value": torch.zeros(len(rows)),
                "group": self.last["group"][rows],
            }
            (state,) = self._states(rows, asked)
            value, density = self._draw_number(state, kind)
            likelihood[rows] += density
            for name in ("kind", "element", "letter", "axis"):
                self.last[name][rows] = asked[name]
            self.last["value"][rows] = value
            for row, drawn in zip(rows.tolist(), value.tolist(), strict=True):
                values[row].append(drawn)
        found = [
            _crystal(self.drafts[index], self.names, numbers)
            for index, numbers in zip(np.repeat(kept, times).tolist(), values, strict=True)
        ]
        sound = [one if one is not None and not clashes(one) else None for one in found]
        cost = costs(sound, likelihood.tolist(), self.request.penalty)
        best = []
        for first in range(0, len(sound), times):
            whole = [row for row in range(first, first + times) if sound[row] is not None]
            best.append(sound[min(whole, key=lambda row: cost[row])] if whole else None)
        return best

    def _states(self, rows: Tensor, asked: dict[str, Tensor]) -> list[Tensor]:
        last = {name: value[rows] for name, value in self.last.items()}
        caches = [self.cache] if self.free is None else [self.cache, self.free]
        return [self.module.advance(cache, rows, last, asked) for cache in caches]

    def _logits(self, rows: Tensor, asked: dict[str, Tensor], head: torch.nn.Module) -> Tensor:
        return self._guided([head(state) for state in self._states(rows, asked)])

    def _guided(self, logits: list[Tensor]) -> Tensor:
        if len(logits) == 1:
            return logits[0]
        asked, free = (torch.log_softmax(one, -1) for one in logits)
        return torch.where(
            torch.isfinite(free), asked + self.request.guidance * (asked - free), asked
        )

    def _draw(self, logits: Tensor) -> Tensor:
        """Return one choice per row; the first where nothing is allowed."""
        blocked = ~torch.isfinite(logits).any(1)
        safe = logits.clone()
        safe[blocked] = 0.0
        chances = torch.softmax(safe / max(self.request.temperature, 1e-3), -1)
        drawn: Tensor = torch.multinomial(chances, 1, generator=self.generator)[:, 0]
        return drawn

    def _draw_number(self, state: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """Return one number per row, and its log density."""
        value, density = torch.zeros(len(kind)), torch.zeros(len(kind))
        heads, heat = self.module.numbers, max(self.request.temperature, 1e-3)
        for wanted in (CELL, COORDINATE):
            chosen, periodic = kind == wanted, wanted == COORDINATE
            if chosen.any():
                drawn = heads.draw(
                    state[chosen], periodic=periodic, temperature=heat, generator=self.generator
                )
                value[chosen] = drawn
                density[chosen] = heads.log_density(state[chosen], drawn, periodic=periodic)
        return value, density


def _conditions(
    statistics: Statistics, conditions: Conditions, drafts: Sequence[Draft]
) -> dict[str, Tensor]:
    names = statistics["elements"]
    fractions = torch.zeros(len(drafts), len(names))
    present = torch.zeros(len(drafts), len(names))
    atoms = torch.zeros(len(drafts), dtype=torch.long)
    for row, draft in enumerate(drafts):
        present[row, list(draft.order)] = 1.0
        for element, count in draft.left.items():
            fractions[row, element] = count / sum(draft.left.values())
        if draft.least == draft.most:
            atoms[row] = draft.most
    wanted = torch.from_numpy(standardised_properties(conditions.properties, statistics))
    return {
        "fractions": fractions,
        "present": present,
        "atoms": atoms,
        "properties": wanted.repeat(len(drafts), 1),
    }


def _crystal(draft: Draft, names: Sequence[str], values: Sequence[float]) -> Structure | None:
    family = space_group(draft.group).lattice_type
    n_cell = len(FREE_CELL[family])
    numbers = list(values[n_cell:])
    orbits, by_letter = [], positions(draft.group)
    for element, letter in draft.sites:
        n_free = len(free_axes(by_letter[LETTERS[letter]]))
        orbits.append(Orbit(names[element], LETTERS[letter], tuple(numbers[:n_free])))
        numbers = numbers[n_free:]
    try:
        return SymmetricCrystal(draft.group, tuple(values[:n_cell]), tuple(orbits)).structure()
    except (ValueError, ZeroDivisionError):  # angles that close no cell
        return None


def _step(count: int, kind: int = GROUP, group: Tensor | None = None) -> dict[str, Tensor]:
    whole = {n: torch.zeros(count, dtype=torch.long) for n in ("element", "letter", "axis")}
    return {
        **whole,
        "kind": torch.full((count,), kind),
        "value": torch.zeros(count),
        "group": torch.zeros(count, dtype=torch.long) if group is None else group,
    }
