"""Crystals as data for networks that write them step by step: statistics, rows, conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matloop.generators.neural.architecture import Condition, Row, Statistics, TrainingCrystal
from matloop.generators.neural.architectures.wyckoff_network import GROUPS
from matloop.generators.neural.data_statistics import (
    elements_of,
    formula_units,
    property_scales,
    standardised_properties,
)
from matloop.generators.neural.representations.orbits import (
    LETTERS,
    element_order,
    site_symmetries,
)
from matloop.generators.wyckoff import space_group

LOSS_SCALE = 10.0
"""Unit of the losses (nats), so that they are of the order of one."""

SUPPORTS: frozenset[Condition] = frozenset(
    {
        "elements",
        "system",
        "formula",
        "space_group",
        "n_atoms",
        "properties",
        "charge_balance",
        "penalty",
    }
)
"""What can be asked where no step that the conditions forbid is ever drawn."""


def statistics_of(crystals: Sequence[TrainingCrystal], properties: Sequence[str]) -> Statistics:
    """Return elements, scales of the properties, table of positions, cells by formula units."""
    return {
        "elements": element_order(elements_of(crystals)),
        "properties": property_scales(crystals, properties),
        "positions": _position_table(),
        "formula_units": formula_units(crystals),
    }


def content_row(
    crystal: TrainingCrystal, counts: Mapping[str, int], statistics: Statistics
) -> dict[str, NDArray[Any]]:
    """Return what a crystal may be asked for: ``counts`` of its elements, ``properties``.

    Parameters
    ----------
    crystal
        With its properties.
    counts
        Atoms of each element in the primitive cell; all are among those of the statistics.
    statistics
        Of the training data.
    """
    names = statistics["elements"]
    amounts = np.zeros(len(names), dtype=np.float32)
    for symbol, count in counts.items():
        amounts[names.index(symbol)] = count
    properties = standardised_properties(crystal.properties, statistics)
    return {"counts": amounts, "properties": properties}


def padded(rows: Sequence[Row], name: str, length: int) -> NDArray[Any]:
    """Return one array of all rows, shape (m, length, ...), zero where a row has ended."""
    first = rows[0][name]
    found = np.zeros((len(rows), length, *first.shape[1:]), first.dtype)
    for index, row in enumerate(rows):
        found[index, : len(row[name])] = row[name]
    return found


def filled(rows: Sequence[Row], name: str, length: int) -> Tensor:
    """Return where `padded` holds what a row has, shape (m, length)."""
    sizes = torch.tensor([len(row[name]) for row in rows])
    return torch.arange(length)[None] < sizes[:, None]


def given_conditions(
    rows: Sequence[Row], rng: np.random.Generator | None, drop: float
) -> tuple[Tensor, Tensor]:
    """Return which conditions each crystal is given: all at random, none in validation.

    Parameters
    ----------
    rows
        With their ``properties``.
    rng
        Randomness; None for no conditions.
    drop
        Share of the crystals that are given none but properties.

    Returns
    -------
    tuple
        Ones where each of three conditions is given, shape (m, 3), else zeros; and properties, NaN
        where they are not given, shape (m, p).
    """
    asked = torch.from_numpy(np.stack([row["properties"] for row in rows]))
    if rng is None:
        return torch.zeros((len(rows), 3)), torch.full_like(asked, torch.nan)
    keep = rng.random((len(rows), 3)) > 0.5
    keep[rng.random(len(rows)) < drop] = False
    asked[torch.from_numpy(rng.random(asked.shape) < 0.5)] = torch.nan
    return torch.from_numpy(keep.astype(np.float32)), asked


def asking_nothing(conditions: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the conditions of a network with all of them left out; a latent vector is none."""
    found = {name: torch.zeros_like(value) for name, value in conditions.items()}
    found["properties"] = torch.full_like(conditions["properties"], torch.nan)
    if "latent" in conditions:
        found["latent"] = conditions["latent"]
    return found


def _position_table() -> dict[str, list[list[int]] | list[list[str]]]:
    """Return multiplicity, freedom and site symmetry of every letter of every group."""
    sizes = np.zeros((GROUPS, len(LETTERS)), dtype=int)
    freedom = np.zeros((GROUPS, len(LETTERS)), dtype=int)
    symmetry = [[""] * len(LETTERS) for _ in range(GROUPS)]
    for number in range(1, GROUPS):
        symbols = site_symmetries(number)
        for position in space_group(number).positions:
            column = LETTERS.index(position.letter)
            sizes[number, column] = position.multiplicity
            freedom[number, column] = position.freedom
            symmetry[number][column] = symbols[position.letter]
    return {"multiplicity": sizes.tolist(), "freedom": freedom.tolist(), "symmetry": symmetry}
