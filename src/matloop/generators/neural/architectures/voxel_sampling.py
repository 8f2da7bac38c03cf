"""Sampling of the voxel model: compositions that fit, cells, densities, peaks, symmetry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Composition, Lattice, Structure
from torch import Tensor

from matloop.generators.neural.architecture import SampleRequest, Statistics
from matloop.generators.neural.architectures.voxel_network import MOST_OF_ONE, VoxelNetwork
from matloop.generators.neural.representations.voxels import crystal_of_peaks, symmetrised
from matloop.generators.volumes import estimated_volume
from matloop.structures.chemistry import is_charge_balanced

if TYPE_CHECKING:
    from matloop.generators.neural.architectures.voxel_flow import VoxelFlow

_AT_ONCE = 32
_DRAWS = 64  # compositions for each crystal, until one fits; they cost next to nothing
_TRIES = 3
_CELLS = 8

Contents = tuple[tuple[int, int], ...]
"""Element, by its place in the vocabulary, and number of atoms of each slot."""


@torch.no_grad()
def grow(
    architecture: VoxelFlow, module: VoxelNetwork, statistics: Statistics, request: SampleRequest
) -> list[Structure]:
    """Return crystals, at most as many as asked for."""
    rng = np.random.default_rng(request.seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    crystals: list[Structure | None] = [None] * request.count
    for _ in range(_TRIES):  # a density without enough peaks is grown anew
        open_ = [index for index, one in enumerate(crystals) if one is None]
        contents = draw_contents(module, statistics, request, len(open_), rng)
        if not contents:
            break
        for start in range(0, len(contents), _AT_ONCE):
            part = contents[start : start + _AT_ONCE]
            grown = _grown(architecture, module, statistics, request, part, generator)
            for index, crystal in zip(open_[start:], grown, strict=False):
                crystals[index] = crystal
    return [crystal for crystal in crystals if crystal is not None]


def draw_contents(
    module: VoxelNetwork,
    statistics: Statistics,
    request: SampleRequest,
    count: int,
    rng: np.random.Generator,
) -> list[Contents]:
    """Return compositions that keep the conditions, fewer than `count` where they are hard to meet.

    Parameters
    ----------
    module
        The network.
    statistics
        Of its training data.
    request
        What is asked for.
    count
        How many are wanted.
    rng
        Source of randomness.
    """
    elements: list[str] = statistics["elements"]
    wanted = request.conditions
    kept: list[Contents] = []
    if wanted.required - set(elements) or len(wanted.required) > module.slots:
        return []
    for _ in range(_DRAWS):
        if len(kept) >= count:
            break
        drawn = (
            _units(statistics, request, count, rng)
            if wanted.formula
            else _written(module, elements, request, count, rng)
        )
        for one in drawn:
            atoms = sum(number for _, number in one)
            fits = wanted.min_atoms <= atoms <= wanted.max_atoms
            if not fits or (wanted.n_atoms and atoms != wanted.n_atoms):
                continue
            if request.charge_balance and not is_charge_balanced(
                Composition({elements[element]: number for element, number in one}), "smact14"
            ):
                continue
            kept.append(one)
    return kept[:count]


def _units(
    statistics: Statistics, request: SampleRequest, count: int, rng: np.random.Generator
) -> list[Contents]:
    """Return cells of a given formula, with as many formula units as the training data has."""
    elements: list[str] = statistics["elements"]
    formula = request.conditions.formula
    order = sorted(formula, key=elements.index)
    known = {int(z): number for z, number in statistics["formula_units"].items()}
    possible = [
        z for z in known
        if z * sum(formula.values()) <= request.conditions.max_atoms
        and z * max(formula.values()) <= MOST_OF_ONE
    ]  # fmt: skip
    if not possible:
        return []
    weights = np.array([known[z] for z in possible], float)
    chosen = rng.choice(possible, count, p=weights / weights.sum())
    return [tuple((elements.index(n), int(z) * formula[n]) for n in order) for z in chosen]


def _written(
    module: VoxelNetwork,
    elements: Sequence[str],
    request: SampleRequest,
    count: int,
    rng: np.random.Generator,
) -> list[Contents]:
    """Return compositions of allowed elements, written element by element."""
    wanted, end = request.conditions, module.n_elements
    device = module.contents.to_element.weight.device
    usable = np.array([not wanted.allowed or name in wanted.allowed for name in elements])
    required = sorted(elements.index(name) for name in wanted.system)
    which = torch.full((count, module.slots), end, device=device)
    many = torch.zeros((count, module.slots), dtype=torch.long, device=device)
    going = np.ones(count, bool)
    last = np.full(count, -1)
    for slot in range(module.slots):
        chances, _ = module.contents(which[:, :slot], many[:, :slot])
        allowed = np.zeros((count, end + 1), bool)
        if required:
            allowed[:, required[slot] if slot < len(required) else end] = True
        else:
            allowed[:, :end] = usable & (np.arange(end)[None] > last[:, None])
            allowed[:, end] = slot > 0
            allowed[~allowed.any(1), end] = True
        chosen = _drawn(chances[:, -1], allowed, request.temperature, rng)
        going &= chosen != end
        if not going.any():
            break
        last = np.where(going, chosen, last)
        which[:, slot] = torch.from_numpy(np.where(going, chosen, end)).to(device)
        _, numbers = module.contents(which[:, : slot + 1], many[:, : slot + 1])
        room = np.ones((count, MOST_OF_ONE + 1), bool)
        room[:, 0] = False
        size = _drawn(numbers[:, slot], room, request.temperature, rng)
        many[:, slot] = torch.from_numpy(np.where(going, size, 0)).to(device)
    pairs = zip(which.tolist(), many.tolist(), strict=True)
    written = [tuple((e, n) for e, n in zip(*pair, strict=True) if n) for pair in pairs]
    return [one for one in written if one]


def _drawn(
    chances: Tensor, allowed: NDArray[np.bool_], temperature: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    logits = chances.double().cpu().numpy() / max(temperature, 1e-3)
    logits = np.where(allowed, logits, -np.inf)
    return np.asarray((logits + rng.gumbel(size=logits.shape)).argmax(1))


def _grown(
    architecture: VoxelFlow,
    module: VoxelNetwork,
    statistics: Statistics,
    request: SampleRequest,
    contents: Sequence[Contents],
    generator: torch.Generator,
) -> list[Structure | None]:
    from matloop.generators.neural.architectures.voxel_flow import HEIGHT

    elements: list[str] = statistics["elements"]
    device = module.contents.to_element.weight.device
    which = torch.full((len(contents), module.slots), module.n_elements)
    many = torch.zeros((len(contents), module.slots), dtype=torch.long)
    for index, one in enumerate(contents):
        for slot, (element, number) in enumerate(one):
            which[index, slot], many[index, slot] = element, number
    composition = module.composition(which.to(device), many.to(device))
    counts = [{elements[element]: number for element, number in one} for one in contents]
    cell = _cells(module, composition, counts, request.temperature, generator)
    context = composition + module.from_cell(cell.to(device))
    n = architecture.points
    state = torch.randn((len(contents), module.slots, n, n, n), generator=generator).to(device)
    used = (many > 0).to(device)[..., None, None, None]
    state = state * used * request.temperature
    times = torch.linspace(0.0, 1.0, architecture.steps + 1).tolist()
    for now, then in pairwise(times):
        final = module.flow(state, torch.full((len(state),), now, device=device), context) * used
        state = state + (then - now) / (1 - now) * (final - state)
    grids = (state / HEIGHT).cpu().numpy()
    crystals: list[Structure | None] = []
    for grid, count, numbers in zip(grids, counts, cell.tolist(), strict=True):
        matrix = _matrix(numbers, count)
        crystal = (
            None
            if matrix is None
            else crystal_of_peaks(grid, list(count), list(count.values()), matrix)
        )
        crystals.append(None if crystal is None else symmetrised(crystal))
    return crystals


def _cells(
    module: VoxelNetwork,
    composition: Tensor,
    counts: Sequence[dict[str, int]],
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """Return the six numbers of a cell each, drawn again where they are those of no cell."""
    drawn = [
        module.cell_shape.draw(composition, temperature, generator).cpu() for _ in range(_CELLS)
    ]
    found = drawn[0].clone()
    for index, count in enumerate(counts):
        for cells in drawn:
            if _matrix(cells[index].tolist(), count) is not None:
                found[index] = cells[index]
                break
    return found


def _matrix(numbers: Sequence[float], counts: dict[str, int]) -> NDArray[np.float64] | None:
    """Return the lattice vectors of a cell; None if there is none, or of no sensible volume."""
    expected = estimated_volume(counts)
    if not all(math.isfinite(value) for value in numbers) or max(map(abs, numbers)) > 3:
        return None
    lengths = [expected ** (1 / 3) * math.exp(value) for value in numbers[:3]]
    angles = [90 + 30 * value for value in numbers[3:]]
    if not all(30 < angle < 150 for angle in angles) or sum(angles) > 355:
        return None
    try:
        lattice = Lattice.from_parameters(*lengths, *angles)
    except ValueError:
        return None
    sensible = 0.5 < lattice.volume / expected < 2.5
    return np.array(lattice.matrix) if sensible else None
