"""Texts of CIF files written by a network within the grammar, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pymatgen.core import Structure
from torch import Tensor

from matloop.generators.neural.architecture import SampleRequest, Statistics
from matloop.generators.neural.architectures.cif_grammar import CifWriter
from matloop.generators.neural.architectures.cif_network import STEP_FIELDS, CifNetwork
from matloop.generators.neural.architectures.cif_steps import (
    DEGREES,
    DIGIT,
    MOST_STEPS,
    WHOLE,
    Rules,
    Step,
)
from matloop.generators.neural.architectures.completions import (
    COMPLETIONS,
    PENALISED_COMPLETIONS,
    clashes,
    costs,
)
from matloop.generators.neural.architectures.step_data import asking_nothing
from matloop.generators.neural.architectures.wyckoff_drafts import empty_draft
from matloop.generators.neural.data_statistics import standardised_properties
from matloop.generators.neural.representations.cif_text import CifCrystal, read_cif_text

_AT_ONCE = 128
_STRETCH = 24  # steps after which texts that are whole leave the batch


@torch.no_grad()
def decode(
    module: CifNetwork, statistics: Statistics, request: SampleRequest
) -> list[Structure | None]:
    """Return crystals; None for texts without a next token, and where every ending clashes.

    Parameters
    ----------
    module
        The network, in evaluation mode.
    statistics
        Of its training data.
    request
        What is asked for.
    """
    times = PENALISED_COMPLETIONS if request.penalty else COMPLETIONS
    found: list[Structure | None] = []
    for writing in _batches(module, statistics, request):
        writing.write(lambda writer: writer.group > 0)
        writing.repeat(times)
        writing.write(lambda writer: writer.whole)
        found += _best(writing, times, request)
    return found


@torch.no_grad()
def write_texts(
    module: CifNetwork, statistics: Statistics, request: SampleRequest
) -> list[str | None]:
    """Return texts as they are drawn, whether atoms clash or not; None for dead ends."""
    found: list[str | None] = []
    for writing in _batches(module, statistics, request):
        writing.write(lambda writer: writer.whole)
        found += [None if one.dead else one.crystal().text() for one in writing.writers]
    return found


def _batches(module: CifNetwork, statistics: Statistics, request: SampleRequest) -> list[_Writing]:
    generator = torch.Generator().manual_seed(request.seed)
    rng = np.random.default_rng(request.seed)
    names, allowed = statistics["elements"], request.conditions.allowed
    elements = [not allowed or name in allowed for name in names]
    rules = Rules(names, elements, request.conditions, request.charge_balance)
    drafts = [empty_draft(statistics, request, rng) for _ in range(request.count)]
    return [
        _Writing(
            module,
            statistics,
            request,
            generator,
            [CifWriter(rules, draft) for draft in drafts[start : start + _AT_ONCE]],
        )
        for start in range(0, len(drafts), _AT_ONCE)
    ]


class _Writing:
    """A batch of texts being written together.

    Attributes
    ----------
    writers
        The texts.
    likelihood
        Logarithm of the likelihood of what was written last, by text.
    """

    def __init__(
        self,
        module: CifNetwork,
        statistics: Statistics,
        request: SampleRequest,
        generator: torch.Generator,
        writers: list[CifWriter],
    ) -> None:
        self.module, self.request, self.generator = module, request, generator
        self.writers = writers
        asked = _conditions(statistics, request, writers)
        self.caches = [module.open(asked, _STRETCH)]
        if request.guidance:
            self.caches.append(module.open(asking_nothing(asked), _STRETCH))
        self.kept = list(range(len(writers)))
        self.likelihood = [0.0] * len(writers)
        self.last = _tensors([Step(0, 0, 0)] * len(writers), [0] * len(writers))
        self.last |= {
            "token": torch.zeros_like(self.last["kind"]),
            "value": torch.zeros(len(writers)),
        }

    def repeat(self, times: int) -> None:
        """Go on with every text so many times."""
        whole = [row for row, index in enumerate(self.kept) for _ in range(times)]
        self.writers = [one.copy() for one in self.writers for _ in range(times)]
        self.kept = [index * times + copy for index in self.kept for copy in range(times)]
        self.likelihood = [0.0] * len(self.writers)
        self._choose(torch.tensor(whole, dtype=torch.long))

    def write(self, until: Callable[[CifWriter], bool]) -> None:
        """Write every text until something holds of it, or nothing may come next."""
        alive = list(range(len(self.kept)))
        for number in range(MOST_STEPS):
            alive = [row for row in alive if not until(self.writers[self.kept[row]])]
            masks = [self._mask(row) for row in alive]
            pairs = list(zip(alive, masks, strict=True))
            alive = [row for row, mask in pairs if mask is not None]
            if not alive:
                break
            rows = torch.tensor(alive)
            allowed = torch.from_numpy(np.stack([mask for _, mask in pairs if mask is not None]))
            self._advance(rows, allowed)
            if number % _STRETCH == _STRETCH - 1:
                held = set(alive)
                parted = [row for row in range(len(self.kept)) if row in held]
                self.kept = [self.kept[row] for row in parted]
                self._choose(torch.tensor(parted))
                alive = list(range(len(parted)))

    def _mask(self, row: int) -> np.ndarray | None:
        writer = self.writers[self.kept[row]]
        if writer.dead or writer.steps >= MOST_STEPS:
            writer.dead = True
            return None
        mask = writer.allowed()
        return None if writer.dead else mask

    def _choose(self, rows: Tensor) -> None:
        self.last = {name: value[rows] for name, value in self.last.items()}
        if len(rows):
            self.caches = [cache.chosen(rows, _STRETCH) for cache in self.caches]

    def _advance(self, rows: Tensor, allowed: Tensor) -> None:
        writers = [self.writers[self.kept[row]] for row in rows.tolist()]
        asked = _tensors([one.step() for one in writers], [one.group for one in writers])
        last = {name: value[rows] for name, value in self.last.items()}
        logits = []
        for cache in self.caches:
            state = self.module.advance(cache, rows, last, asked)
            found = self.module.logits(state, asked["kind"], asked["group"])
            logits.append(torch.log_softmax(found.masked_fill(~allowed, -torch.inf), -1))
        scores = logits[0]
        if len(logits) > 1:
            kind = asked["kind"]
            number = (kind == WHOLE) | (kind == DEGREES) | (kind == DIGIT)
            further = scores + self.request.guidance * (scores - logits[1])
            scores = torch.where(allowed & ~number[:, None], further, scores)
        chances = torch.softmax(scores / max(self.request.temperature, 1e-3), -1)
        token = torch.multinomial(chances, 1, generator=self.generator)[:, 0]
        gained = logits[0].gather(1, token[:, None])[:, 0].tolist()
        for row, writer, chosen, gain in zip(
            rows.tolist(), writers, token.tolist(), gained, strict=True
        ):
            writer.push(chosen)
            self.likelihood[self.kept[row]] += gain
        for name in (*STEP_FIELDS, "group"):
            self.last[name][rows] = asked[name]
        self.last["token"][rows] = token
        self.last["group"][rows] = torch.tensor([one.group for one in writers])
        self.last["value"][rows] = torch.tensor([one.value for one in writers])


def _best(writing: _Writing, times: int, request: SampleRequest) -> list[Structure | None]:
    """Return the best ending of every text."""
    texts = [None if one.dead else one.crystal() for one in writing.writers]
    sound = [_sound(one) for one in texts]
    cost = costs(sound, writing.likelihood, request.penalty)
    best: list[Structure | None] = []
    for first in range(0, len(texts), times):
        rows = [row for row in range(first, first + times) if sound[row] is not None]
        if rows and request.penalty is None:
            # Likelihoods compare only between as many coordinates.
            like = _positions(texts[rows[0]])
            rows = [row for row in rows if _positions(texts[row]) == like]
        best.append(sound[min(rows, key=lambda row: cost[row])] if rows else None)
    return best


def _sound(crystal: CifCrystal | None) -> Structure | None:
    """Return the crystal that a text describes; None where its atoms clash."""
    if crystal is None:
        return None
    structure = read_cif_text(crystal.text()).structure()
    return None if clashes(structure) else structure


def _positions(crystal: CifCrystal | None) -> list[tuple[str, str]]:
    return [(site.element, site.letter) for site in crystal.sites] if crystal else []


def _conditions(
    statistics: Statistics, request: SampleRequest, writers: Sequence[CifWriter]
) -> dict[str, Tensor]:
    names, asked = statistics["elements"], request.conditions
    present = torch.zeros(len(writers), len(names))
    for row, writer in enumerate(writers):
        present[row, list(writer.required)] = 1.0
    wanted = torch.from_numpy(standardised_properties(asked.properties, statistics))
    return {
        "present": present,
        "size": torch.tensor([writer.n_atoms for writer in writers]),
        "asked_group": torch.full((len(writers),), asked.space_group),
        "properties": wanted.repeat(len(writers), 1),
    }


def _tensors(steps: Sequence[Step], groups: Sequence[int]) -> dict[str, Tensor]:
    found = {name: torch.tensor([getattr(one, name) for one in steps]) for name in STEP_FIELDS}
    return {**found, "hint": found["hint"].float(), "group": torch.tensor(groups)}
