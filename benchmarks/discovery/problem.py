"""A pool of candidates with known truth, as a campaign would meet it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pymatgen.core import Composition, Lattice, Structure

from benchmarks.discovery.known import KnownHull
from matloop.documents.candidate import Candidate, Origin
from matloop.documents.objective import Objective
from matloop.errors import ConfigurationError
from matloop.surrogates.representations import Representation

Array = NDArray[np.float64]

DISTANCE = "e_above_hull"
UNIT = "eV/atom"

_CUT = 2026  # seed that cuts a pool in halves


@dataclass(frozen=True)
class Problem:
    """What is to be found, what is known before anything is bought, and what buying reveals.

    Attributes
    ----------
    candidates
        The pool. Their quantities are cheap ones only.
    truth
        Distance of each to the hull that is known at the start (eV/atom), revealed on buying.
    stable
        Which of them are discoveries. No policy sees it.
    estimates
        Distance to the same hull by each cheap method (eV/atom), NaN where there is none.
    inputs
        Names of further quantities that the candidates carry.
    representation
        What the surrogate sees of a crystal.
    prototypes
        Label of each candidate's kind, for the diversity of what is found.
    threshold
        Distance to the final hull up to which a candidate is a discovery (eV/atom).
    hull, formation
        Hull that bought compounds join, and their formation energies; None where the hull is fixed.
    notes
        What a reader has to know of the data.
    """

    name: str
    candidates: Sequence[Candidate]
    truth: Array
    stable: NDArray[np.bool_]
    estimates: Mapping[str, Array]
    representation: Representation
    prototypes: Sequence[str]
    threshold: float = 0.0
    inputs: tuple[str, ...] = ()
    hull: Callable[[], KnownHull] | None = None
    formation: Array | None = None
    notes: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def objective(self) -> Objective:
        """What the policies are told to look for."""
        discovery = f"{DISTANCE} <= {self.threshold:g} {UNIT}"
        return Objective(minimize=DISTANCE, discovery=discovery)

    @cached_property
    def compositions(self) -> list[Composition]:
        """Composition of each candidate."""
        return [candidate.structure.composition for candidate in self.candidates]


def drawn(problem: Problem, size: int, seed: int) -> Problem:
    """Return the problem with a pool of so many candidates, drawn by lot."""
    rows = np.random.default_rng(seed).permutation(len(problem.candidates))[:size]
    return _restricted(problem, np.sort(rows))


def halved(problem: Problem, half: str) -> Problem:
    """Return the ``first`` or the ``second`` half of a pool that is cut by lot, always alike.

    What was chosen on one half is reported on the other.
    """
    order = np.random.default_rng(_CUT).permutation(len(problem.candidates))
    middle = len(order) // 2
    rows = order[:middle] if half == "first" else order[middle:]
    return _restricted(problem, np.sort(rows))


def _restricted(problem: Problem, rows: NDArray[np.int64]) -> Problem:
    return replace(
        problem,
        candidates=[problem.candidates[row] for row in rows],
        truth=problem.truth[rows],
        stable=problem.stable[rows],
        estimates={name: values[rows] for name, values in problem.estimates.items()},
        prototypes=[problem.prototypes[row] for row in rows],
        formation=problem.formation[rows] if problem.formation is not None else None,
    )


def read_table(path: Path, required: Sequence[str]) -> pd.DataFrame:
    """Return a CSV file that has all columns asked for.

    Raises
    ------
    ConfigurationError
        In one line: no such file, no table, no rows, or which columns are missing.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path}: no such file")
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=["", "nan"], low_memory=False)
    except (ValueError, OSError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"{path}: this is no CSV table: {reason}") from error
    missing = [name for name in required if name not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns[:12])) + (", ..." if table.shape[1] > 12 else "")
        raise ConfigurationError(
            f"{path}: has no column {', '.join(missing)}; it has {found or 'none'}"
        )
    if not len(table):
        raise ConfigurationError(f"{path}: has no rows")
    return table


def numbers(table: pd.DataFrame, column: str, path: Path, *, gaps: bool = False) -> Array:
    """Return a column as numbers, shape (n,).

    Raises
    ------
    ConfigurationError
        If a cell is no finite number, and gaps are not allowed.
    """
    try:
        values = table[column].to_numpy(dtype=float)
    except ValueError as error:
        raise ConfigurationError(f"{path}: column {column} holds no numbers: {error}") from error
    if not gaps and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0]) + 2
        raise ConfigurationError(f"{path}, line {row}: {column} is no finite number")
    return np.asarray(np.where(np.isfinite(values), values, np.nan))


def composition(formula: str, path: Path, line: int) -> Composition:
    """Return a formula's composition.

    Raises
    ------
    ConfigurationError
        If it is none.
    """
    try:
        return Composition(formula)
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"{path}, line {line}: {formula!r} is no formula") from error


def placeholder(formula: Composition) -> Structure:
    """Return a cell that holds a composition; where its atoms stand means nothing."""
    reduced = formula.reduced_composition
    names = [element for element, amount in reduced.items() for _ in range(round(amount))]
    places = [[index / len(names), 0.0, 0.0] for index in range(len(names))]
    return Structure(Lattice.orthorhombic(3.0 * len(names), 3.0, 3.0), names, places)


def candidate(name: str, structure: Structure) -> Candidate:
    """Return a candidate of which nothing is known yet."""
    return Candidate(candidate_id=name, structure=structure, origin=Origin(generator="table"))
