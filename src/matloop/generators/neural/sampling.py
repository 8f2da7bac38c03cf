"""Samples of a trained model, with the constraints held after sampling and every loss counted."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from pymatgen.core import Composition, Structure

from matloop.errors import ConfigurationError
from matloop.generators.cells import Seen, is_sane, plain_cell
from matloop.generators.neural.architecture import Condition, Conditions, SampleRequest
from matloop.generators.neural.model_file import TrainedModel
from matloop.generators.neural.training_settings import torch_threads
from matloop.structures.chemistry import is_charge_balanced
from matloop.structures.symmetry import SymmetryError, space_group

IDLE_ROUNDS = 3
"""Rounds in a row without a crystal that meets every condition, after which sampling ends."""

_LEAST = 16


@dataclass(frozen=True)
class Sample:
    """Crystals drawn from a model, and what became of the others.

    Attributes
    ----------
    structures
        Niggli-reduced primitive cells that meet every condition.
    drawn
        Crystals that were begun.
    rejected
        How many were lost, by reason; with the structures they add up to `drawn`.
    """

    structures: tuple[Structure, ...]
    drawn: int
    rejected: dict[str, int]


def draw(
    model: TrainedModel,
    request: SampleRequest,
    *,
    distinct: bool = True,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Sample:
    """Draw crystals until there are enough, or asking again brings too little.

    Conditions that the architecture supports are held while sampling, the others by rejection
    here; no condition is ever dropped.

    Parameters
    ----------
    model
        A trained model.
    request
        What is asked for.
    distinct
        Whether repetitions within the sample are left out (5 % in lengths and positions, 1°).
    on_progress
        Told the number of crystals so far.

    Raises
    ------
    ConfigurationError
        If the model cannot know what is asked: an unknown element or property, inpainting or a
        penalty with an architecture that has neither.
    """
    check(model, request)
    kept: list[Structure] = []
    rejected: Counter[str] = Counter()
    seen, drawn, idle, number = Seen(), 0, 0, 0
    supported = _supported(model, request)
    while len(kept) < request.count and idle < IDLE_ROUNDS:
        wanted, before = _next_round(request.count, len(kept), drawn), len(kept)
        asked = replace(supported, count=wanted, seed=_seed(request.seed, number))
        with torch_threads(1):
            found = model.architecture.sample(model.module, model.statistics, asked)
        rejected["ended nowhere"] += wanted - len(found)
        for structure in found:
            cell = plain_cell(structure)
            reason = "no crystal" if cell is None else _objection(cell, request)
            if not reason and distinct and cell is not None and not seen.is_new(cell):
                reason = "repeated"
            if reason or cell is None:
                rejected[reason] += 1
            else:
                kept.append(cell)
        drawn, number = drawn + wanted, number + 1
        idle = idle + 1 if len(kept) == before else 0
        on_progress(min(len(kept), request.count))
    rejected["more than asked for"] += len(kept[request.count :])
    return Sample(
        tuple(kept[: request.count]), drawn, {reason: n for reason, n in rejected.items() if n}
    )


def check(model: TrainedModel, request: SampleRequest) -> None:
    """Raise ConfigurationError if a model can never give what is asked for."""
    conditions, supports = request.conditions, model.architecture.supports
    known: list[str] = model.statistics.get("elements", [])
    unknown = sorted(conditions.required - set(known)) if known else []
    if unknown:
        raise ConfigurationError(
            f"the model has never seen {', '.join(unknown)}; it knows {', '.join(known)}"
        )
    if known and conditions.elements and not set(conditions.elements) & set(known):
        raise ConfigurationError(f"the model knows none of {', '.join(conditions.elements)}")
    strange = sorted(set(conditions.properties) - set(model.card.properties))
    if strange:
        there = ", ".join(model.card.properties) or "none"
        raise ConfigurationError(f"the model knows no property {strange[0]!r}; it knows: {there}")
    if not 0 <= conditions.space_group <= 230:
        raise ConfigurationError(f"space group {conditions.space_group}: they are 1 to 230")
    name = model.card.architecture
    if request.fixed is not None and "fixed" not in supports:
        raise ConfigurationError(f"{name} cannot complete a partial structure")
    if request.penalty is not None and "penalty" not in supports:
        raise ConfigurationError(f"{name} cannot be pushed by a penalty")


def _next_round(count: int, kept: int, drawn: int) -> int:
    """Return how many to draw next, by how many came through before."""
    rate = max(kept / drawn, 0.1) if drawn else 0.8
    return min(max(_LEAST, math.ceil(1.1 * (count - kept) / rate)), 4 * count + _LEAST)


def _supported(model: TrainedModel, request: SampleRequest) -> SampleRequest:
    """Return the request with what the architecture holds by itself; the rest is checked later."""
    supports, asked = model.architecture.supports, request.conditions
    fields: tuple[Condition, ...] = (
        "elements",
        "system",
        "formula",
        "space_group",
        "n_atoms",
        "properties",
    )
    blank = Conditions()
    kept = {name: getattr(asked if name in supports else blank, name) for name in fields}
    if "system" not in supports and "elements" in supports and asked.required:
        kept["elements"] = tuple(sorted(asked.required))
    conditions = replace(asked, **kept)
    balanced = request.charge_balance and "charge_balance" in supports
    return replace(request, conditions=conditions, charge_balance=balanced)


def _objection(cell: Structure, request: SampleRequest) -> str:
    """Return which condition a crystal breaks; empty for none."""
    asked, present = request.conditions, set(cell.symbol_set)
    if not is_sane(cell):
        return "atoms on top of each other"
    if asked.allowed and not present <= asked.allowed:
        return "holds other elements"
    if asked.required and present != set(asked.required):
        return "lacks elements"
    if asked.formula and cell.composition.reduced_formula != _reduced(asked):
        return "has another formula"
    least, most = (asked.n_atoms,) * 2 if asked.n_atoms else (asked.min_atoms, asked.max_atoms)
    if not least <= len(cell) <= most:
        return "has too few or too many atoms"
    if request.charge_balance and not is_charge_balanced(cell.composition, "smact14"):
        return "is not charge balanced"
    if asked.space_group and not _has_group(cell, asked.space_group):
        return "has another space group"
    return ""


def _has_group(cell: Structure, number: int) -> bool:
    try:
        return space_group(cell).number == number
    except SymmetryError:
        return False


def _reduced(conditions: Conditions) -> str:
    return str(Composition(dict(conditions.formula)).reduced_formula)


def _seed(seed: int, number: int) -> int:
    return int(hashlib.sha256(f"{seed}/{number}".encode()).hexdigest()[:7], 16)
