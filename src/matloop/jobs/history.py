"""What a campaign has seen, in a table: learn and advance read what is new, and not all the rest.

Each iteration stores one row per candidate under the name ``history``. A row changes only where the
candidate met a stage in the iteration, or where it has an energy and a hull has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from sys import intern

import numpy as np
import pyarrow as pa

from matloop.documents.artifact import Artifact
from matloop.documents.objective import Objective, ranks
from matloop.ledger.interface import Ledger
from matloop.protocols import Observation
from matloop.structures.columns import MEDIA_TYPE, read_table, write_table

HISTORY = "history"
"""Name of the artifact among the resources of a state."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One candidate as the ladder left it, without its crystals.

    Attributes
    ----------
    candidate_id
        Its id.
    iteration, index
        Where it was proposed.
    generator
        Who proposed it.
    formula
        Reduced formula.
    utility
        Against the hull as it is now; None where a quantity is missing. With several goals it is
        less the number of candidates that dominate this one: see `ranked`.
    discovery
        Whether it meets the criterion, against the hull as it is now.
    work
        Deterministic cost spent on it (atoms times force evaluations).
    has_energy
        Whether it must be judged again when a hull changes.
    goals
        With several goals, what each reads, larger is better; empty where a quantity is missing.
    feasible
        With several goals, whether no constraint is violated.
    """

    candidate_id: str
    iteration: int
    index: int
    generator: str
    formula: str
    utility: float | None
    discovery: bool
    work: float
    has_energy: bool
    goals: tuple[float, ...] = ()
    feasible: bool = True

    @classmethod
    def of(cls, observation: Observation, index: int, objective: Objective) -> Seen:
        """Return the row of an observation."""
        final = observation.final
        goals: tuple[float, ...] = ()
        if objective.several:
            found = objective.gains_of([final.quantities])[0]
            goals = tuple(found.tolist()) if np.isfinite(found).all() else ()
        return cls(
            candidate_id=final.candidate_id,
            iteration=observation.iteration,
            index=index,
            generator=intern(observation.generator),
            formula=intern(final.structure.composition.reduced_formula),
            utility=observation.utility,
            discovery=observation.discovery,
            work=observation.work,
            has_energy="energy_per_atom" in final.quantities,
            goals=goals,
            feasible=not goals or objective.violated(final.quantities) is None,
        )


def ranked(rows: Sequence[Seen]) -> list[Seen]:
    """Return rows with several goals, each with its utility among all of them."""
    known = [row for row in rows if row.goals]
    if not known:
        return list(rows)
    found = ranks(np.array([row.goals for row in known]), np.array([row.feasible for row in known]))
    utilities = dict(zip((row.candidate_id for row in known), found.tolist(), strict=True))
    return [replace(row, utility=utilities.get(row.candidate_id)) for row in rows]


_ROWS = 4096  # made into objects at once

_TYPES: Mapping[str, pa.DataType] = {
    "candidate_id": pa.string(),
    "iteration": pa.int32(),
    "index": pa.int32(),
    "generator": pa.string(),
    "formula": pa.string(),
    "utility": pa.float64(),
    "discovery": pa.bool_(),
    "work": pa.float64(),
    "has_energy": pa.bool_(),
}
_GOALS: Mapping[str, pa.DataType] = {"goals": pa.list_(pa.float64()), "feasible": pa.bool_()}


def read_history(ledger: Ledger, artifact: Artifact | None) -> list[Seen]:
    """Return the rows of a table, in the order proposed; none where there is no table.

    Parameters
    ----------
    ledger
        Where it is.
    artifact
        The table.
    """
    if artifact is None:
        return []
    table = read_table(ledger.artifact_path(artifact.sha256).read_bytes())
    there = [field.name for field in fields(Seen) if field.name in table.column_names]
    shared = {name: _shared(table.column(name)) for name in ("generator", "formula")}
    rows: list[Seen] = []
    for start in range(0, len(table), _ROWS):
        part = table.slice(start, _ROWS)
        columns = [
            shared[name][start : start + _ROWS] if name in shared else part[name].to_pylist()
            for name in there
        ]
        rows += [Seen(*values) for values in zip(*columns, strict=True)]
    return [replace(row, goals=tuple(row.goals)) for row in rows] if "goals" in there else rows


def _shared(column: pa.ChunkedArray) -> list[str]:
    # A text that many rows hold is one object.
    return [intern(text) for text in column.to_pylist()]


def store_history(ledger: Ledger, rows: Sequence[Seen]) -> Artifact:
    """Store a table; the same rows give the same bytes."""
    types = {**_TYPES, **_GOALS} if any(row.goals for row in rows) else _TYPES
    arrays = [
        pa.array((getattr(row, name) for row in rows), kind, size=len(rows))
        for name, kind in types.items()
    ]
    content = write_table(pa.Table.from_arrays(arrays, names=list(types)))
    return ledger.put_artifact(HISTORY, content, MEDIA_TYPE)


def grown(
    before: Iterable[Seen],
    new: Iterable[str],
    judge: Callable[[list[str]], Iterable[Seen]],
    *,
    hull_changed: bool,
) -> list[Seen]:
    """Return the table after an iteration, in the order proposed.

    Parameters
    ----------
    before
        The table before it.
    new
        Who was proposed in it, or met a stage in it.
    judge
        Returns the rows of some candidates, judged against the hulls as they are now.
    hull_changed
        Whether a hull has changed since the table before.
    """
    rows = {row.candidate_id: row for row in before}
    stale = [name for name, row in rows.items() if hull_changed and row.has_energy]
    for row in judge(list(dict.fromkeys([*stale, *new]))):
        rows[row.candidate_id] = row
    return ranked(sorted(rows.values(), key=lambda row: (row.iteration, row.index)))
