"""What a campaign has seen, in a table: learn and advance read what is new, and not all the rest.

Each iteration stores one row per candidate under the name ``history``. A row changes only where the
candidate met a stage in the iteration, or where it has an energy and a hull has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import pyarrow as pa

from matloop.documents.artifact import Artifact
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
        Against the hull as it is now; None where a quantity is missing.
    discovery
        Whether it meets the criterion, against the hull as it is now.
    work
        Deterministic cost spent on it (atoms times force evaluations).
    has_energy
        Whether it must be judged again when a hull changes.
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

    @classmethod
    def of(cls, observation: Observation, index: int) -> Seen:
        """Return the row of an observation."""
        final = observation.final
        return cls(
            candidate_id=final.candidate_id,
            iteration=observation.iteration,
            index=index,
            generator=observation.generator,
            formula=final.structure.composition.reduced_formula,
            utility=observation.utility,
            discovery=observation.discovery,
            work=observation.work,
            has_energy="energy_per_atom" in final.quantities,
        )


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
    columns = [table.column(field.name).to_pylist() for field in fields(Seen)]
    return [Seen(*values) for values in zip(*columns, strict=True)]


def store_history(ledger: Ledger, rows: Sequence[Seen]) -> Artifact:
    """Store a table; the same rows give the same bytes."""
    columns = list(zip(*map(astuple, rows), strict=True)) or [()] * len(_TYPES)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, _TYPES.values(), strict=True)]
    content = write_table(pa.Table.from_arrays(arrays, names=list(_TYPES)))
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
    return sorted(rows.values(), key=lambda row: (row.iteration, row.index))
