"""Sampling of the Wyckoff GAN: templates that fit, completions, and the critic's choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Composition, Structure
from scipy.optimize import linear_sum_assignment

from matloop.generators.neural.architecture import Conditions, SampleRequest, Statistics
from matloop.generators.neural.architectures.completions import clashes
from matloop.generators.neural.architectures.gan_networks import Made, gumbel
from matloop.generators.neural.representations.orbits import (
    FREE_CELL,
    Orbit,
    SymmetricCrystal,
    free_axes,
    multiplicities,
    positions,
)
from matloop.generators.wyckoff import space_group
from matloop.structures.chemistry import is_charge_balanced

if TYPE_CHECKING:
    from matloop.generators.neural.architectures.wyckoff_gan import Pair, WyckoffGan

_AT_ONCE = 32
_TRIES = 3
_SEARCH = 2000
_NEVER = -1e9

Scores = NDArray[np.float64]
Template = tuple[int, tuple[str, ...]]


@torch.no_grad()
def fill_templates(
    architecture: WyckoffGan, module: Pair, statistics: Statistics, request: SampleRequest
) -> list[Structure]:
    """Return crystals of templates that the conditions leave, at most as many as asked for."""
    templates, weights = _fitting(statistics, request.conditions)
    if not templates:
        return []
    rng = np.random.default_rng(request.seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    crystals: list[Structure | None] = [None] * request.count
    for _ in range(_TRIES):  # a template in which all completions fail is drawn anew
        open_ = [index for index, one in enumerate(crystals) if one is None]
        for start in range(0, len(open_), _AT_ONCE):
            part = open_[start : start + _AT_ONCE]
            drawn = [templates[i] for i in rng.choice(len(templates), len(part), p=weights)]
            filled = _fill(architecture, module, statistics, request, drawn, generator)
            for index, crystal in zip(part, filled, strict=True):
                crystals[index] = crystal
    return [crystal for crystal in crystals if crystal is not None]


def assign(
    scores: Scores, sizes: Sequence[int], elements: Sequence[str], conditions: Conditions
) -> list[int] | None:
    """Return the element of each orbit with the highest sum of scores; None if there is no way.

    Parameters
    ----------
    scores
        Of each element on each orbit, shape (orbits, elements); forbidden ones below -1e8.
    sizes
        Atoms of each orbit.
    elements
        The vocabulary.
    conditions
        A formula to keep, or a system whose elements must all occur.
    """
    if conditions.formula:
        wanted = {elements.index(name): count for name, count in conditions.formula.items()}
        units, rest = divmod(sum(sizes), sum(wanted.values()))
        left = {element: units * count for element, count in wanted.items()}
        return None if rest else _assign_counts(scores, sizes, left)
    best = scores.argmax(1)
    if conditions.system:
        required = [elements.index(name) for name in conditions.system]
        if len(required) > len(sizes):
            return None
        cost = scores.max(1)[None] - scores[:, required].T
        _, orbits = linear_sum_assignment(cost)
        best[orbits] = required
    chosen = [int(element) for element in best]
    possible = all(scores[orbit, element] > _NEVER / 10 for orbit, element in enumerate(chosen))
    return chosen if possible else None


def _assign_counts(scores: Scores, sizes: Sequence[int], left: dict[int, int]) -> list[int] | None:
    """Search depth first, largest orbits and likeliest elements first, for exact counts."""
    order = sorted(range(len(sizes)), key=lambda orbit: -sizes[orbit])
    chosen = [0] * len(sizes)
    steps = 0

    def search(depth: int) -> bool:
        nonlocal steps
        if depth == len(order):
            return True
        orbit = order[depth]
        for element in sorted(left, key=lambda e: -scores[orbit, e]):
            steps += 1
            if steps > _SEARCH or left[element] < sizes[orbit]:
                continue
            left[element] -= sizes[orbit]
            chosen[orbit] = element
            if search(depth + 1):
                return True
            left[element] += sizes[orbit]
        return False

    return chosen if search(0) else None


def _fitting(
    statistics: Statistics, conditions: Conditions
) -> tuple[list[Template], Scores | None]:
    """Return the templates that conditions on group and size leave, with their weights."""
    templates: list[Template] = []
    counts: list[int] = []
    fewest, formula = len(conditions.required) or 1, conditions.formula
    if not set(conditions.allowed) <= set(statistics["elements"]) and conditions.required:
        return [], None  # an element it never saw
    for text, count in statistics["templates"].items():
        number, _, letters = text.partition(":")
        group = int(number)
        if conditions.space_group and group != conditions.space_group:
            continue
        atoms = sum(multiplicities(group)[letter] for letter in letters)
        if conditions.n_atoms and atoms != conditions.n_atoms:
            continue
        if not conditions.min_atoms <= atoms <= conditions.max_atoms or len(letters) < fewest:
            continue
        if formula and atoms % sum(formula.values()):
            continue
        templates.append((group, tuple(letters)))
        counts.append(count)
    weights = np.array(counts, float)
    return templates, weights / weights.sum() if len(weights) else None


def _fill(
    architecture: WyckoffGan,
    module: Pair,
    statistics: Statistics,
    request: SampleRequest,
    templates: Sequence[Template],
    generator: torch.Generator,
) -> list[Structure | None]:
    from matloop.generators.neural.architectures.wyckoff_gan import template_row

    elements: list[str] = statistics["elements"]
    rows = [template_row(*one) for one in templates for _ in range(architecture.completions)]
    batch = architecture.collate(rows, statistics, None)
    device = module.critic.elements_table.device
    noise = module.generator.noise_for(batch, generator) * request.temperature
    logits = module.generator.logits(_on(batch, device), noise.to(device)).cpu()
    drawn = logits + request.temperature * gumbel(logits.shape, generator, logits.device)
    allowed = request.conditions.allowed
    if allowed:
        forbidden = torch.tensor([name not in allowed for name in elements])
        drawn = drawn.masked_fill(forbidden, _NEVER)
    chosen = [
        assign(scores[: len(row["size"])], row["size"].tolist(), elements, request.conditions)
        for scores, row in zip(drawn.double().numpy(), rows, strict=True)
    ]
    hot = torch.zeros_like(logits)
    for index, one in enumerate(chosen):
        if one is not None:
            hot[index, range(len(one)), one] = 1.0
    batch = _on(batch, device)
    made = module.generator.build(batch, noise.to(device), hot.to(device))
    scores = module.critic(made, batch).cpu().numpy()
    crystals: list[Structure | None] = []
    per = architecture.completions
    for index, template in enumerate(templates):
        best: Structure | None = None
        tries = range(index * per, (index + 1) * per)
        for k in sorted(tries, key=lambda k: -scores[k]):
            one = chosen[k]
            if one is None:
                continue
            best = _crystal(template, [elements[i] for i in one], made, k, request)
            if best is not None:
                break
        crystals.append(best)
    return crystals


def _crystal(
    template: Template, symbols: Sequence[str], made: Made, index: int, request: SampleRequest
) -> Structure | None:
    """Return one completion as a primitive cell; None if it clashes or its charges do not fit."""
    number, letters = template
    free, cell = made.free[index].cpu().numpy(), made.cell[index].cpu().numpy()
    family = space_group(number).lattice_type
    orbits = [
        Orbit(symbol, letter, tuple(float(x) for x in row[free_axes(positions(number)[letter])]))
        for symbol, letter, row in zip(symbols, letters, free, strict=False)
    ]
    numbers = tuple(float(cell[place]) for place in FREE_CELL[family])
    if request.charge_balance and not is_charge_balanced(_composition(number, orbits), "smact14"):
        return None
    try:
        crystal = SymmetricCrystal(number, numbers, tuple(orbits)).structure()
    except (ValueError, ZeroDivisionError):  # angles that no cell has
        return None
    if not np.isfinite(crystal.lattice.matrix).all() or clashes(crystal):
        return None
    return crystal


def _composition(number: int, orbits: Sequence[Orbit]) -> Composition:
    return Composition(SymmetricCrystal(number, (), tuple(orbits)).counts)


def _on(batch: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}
