"""What a campaign has seen, in a table: learn and advance read what is new, and not all the rest.

Each iteration stores one row per candidate under the name ``history``. A row changes only where the
candidate met a stage in the iteration, or where it has an energy and a hull has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from sys import intern
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from matloop.documents.artifact import Artifact
from matloop.documents.objective import Objective, ranks
from matloop.jobs.names import Names
from matloop.ledger.interface import Ledger
from matloop.protocols import Observation
from matloop.structures.chemistry import reduced_formula
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
            formula=intern(reduced_formula(final.structure)),
            utility=observation.utility,
            discovery=observation.discovery,
            work=observation.work,
            has_energy="energy_per_atom" in final.quantities,
            goals=goals,
            feasible=not goals or objective.violated(final.quantities) is None,
        )


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
_SCHEMA = pa.schema(list({**_TYPES, **_GOALS}.items()))


class History(Sequence[Seen]):
    """Rows in the order proposed, in columns: some fifty bytes each.

    Parameters
    ----------
    table
        The columns, which are the fields of `Seen`.
    """

    def __init__(self, table: pa.Table | None = None) -> None:
        self.table = _SCHEMA.empty_table() if table is None else table

    @classmethod
    def of(cls, rows: Iterable[Seen]) -> History:
        """Return the table of some rows, which need not be held together."""
        rest, parts = iter(rows), []
        while some := list(islice(rest, _ROWS)):
            columns = [[getattr(row, name) for row in some] for name in _SCHEMA.names]
            arrays = [pa.array(c, t) for c, t in zip(columns, _SCHEMA.types, strict=True)]
            parts.append(pa.record_batch(arrays, schema=_SCHEMA))
        return cls(pa.Table.from_batches(parts, _SCHEMA).combine_chunks())

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> Seen: ...

    @overload
    def __getitem__(self, index: slice) -> History: ...

    def __getitem__(self, index: int | slice) -> Seen | History:
        """Return a row, or some of them."""
        if isinstance(index, slice):
            return self.at(range(len(self))[index])
        return next(iter(self.at([range(len(self))[index]])))

    def __iter__(self) -> Iterator[Seen]:
        for start in range(0, len(self), _ROWS):
            columns = self.table.slice(start, _ROWS).to_pydict()
            for name in ("generator", "formula"):  # a text that many rows hold is one object
                columns[name] = list(map(intern, columns[name]))
            columns["goals"] = list(map(tuple, columns["goals"]))
            yield from map(Seen, *columns.values())

    @property
    def names(self) -> Names:
        """Ids of the candidates."""
        return Names(self._whole("candidate_id"))

    def numbers(self, name: str) -> NDArray[Any]:
        """Return a column as an array; what is missing is NaN."""
        return np.asarray(self._whole(name).to_numpy(zero_copy_only=False))

    def texts(self, name: str) -> NDArray[np.object_]:
        """Return a column of texts, of which each is one object however often it occurs."""
        coded = self._whole(name).dictionary_encode()
        words = np.array(coded.dictionary.to_pylist(), dtype=object)
        return words[coded.indices.to_numpy()] if len(words) else words

    def where(self, mask: NDArray[np.bool_]) -> History:
        """Return the rows for which an array of booleans holds true."""
        return self.at(np.flatnonzero(mask))

    def at(self, places: Sequence[int] | NDArray[np.int64]) -> History:
        """Return some rows, in the order asked for."""
        return History(self.table.take(pa.array(np.asarray(places, dtype=np.int64))))

    def best(self) -> Iterator[Seen]:
        """Yield the rows with a utility, best first, equal ones by id."""
        order = pc.sort_indices(
            self.table, [("utility", "descending"), ("candidate_id", "ascending")]
        ).to_numpy()
        known = ~np.isnan(self.numbers("utility"))
        return iter(self.at(order[known[order]]))

    def updated(self, new: History) -> History:
        """Return these rows with others among them, which take the place of those of the same id.

        Parameters
        ----------
        new
            The others.
        """
        stale = pc.is_in(self._whole("candidate_id"), value_set=new._whole("candidate_id"))
        kept = self.table.filter(pc.invert(stale))
        table = pa.concat_tables([kept, new.table]).combine_chunks()
        return History(table.sort_by([("iteration", "ascending"), ("index", "ascending")]))

    def ranked(self) -> History:
        """Return rows with several goals, each with its utility among all of them."""
        has = np.asarray(pc.greater(pc.list_value_length(self._whole("goals")), 0))
        if not has.any():
            return self
        known = self._whole("goals").filter(pa.array(has))
        goals = known.flatten().to_numpy().reshape(len(known), -1)
        utilities = np.full(len(self), np.nan)
        utilities[has] = ranks(goals, self.numbers("feasible")[has])
        column = self.table.schema.get_field_index("utility")
        values = pa.array(utilities, pa.float64(), from_pandas=True)
        return History(self.table.set_column(column, "utility", values))

    def _whole(self, name: str) -> Any:
        column = self.table.column(name)
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def read_history(ledger: Ledger, artifact: Artifact | None) -> History:
    """Return the rows of a table, in the order proposed; none where there is no table.

    Parameters
    ----------
    ledger
        Where it is.
    artifact
        The table.
    """
    if artifact is None:
        return History()
    table = read_table(ledger.artifact_path(artifact.sha256).read_bytes())
    if "goals" not in table.column_names:  # there is only one
        goals = pa.array([[]], _GOALS["goals"])
        table = table.append_column("goals", pa.repeat(goals[0], len(table)))
        table = table.append_column("feasible", pa.repeat(True, len(table)))
    return History(table.cast(_SCHEMA))


def store_history(ledger: Ledger, rows: History) -> Artifact:
    """Store a table; the same rows give the same bytes."""
    several = pc.sum(pc.list_value_length(rows.table.column("goals"))).as_py()
    types = {**_TYPES, **_GOALS} if several else _TYPES
    table = rows.table.select(list(types)).combine_chunks()
    content = write_table(table.replace_schema_metadata(None))
    return ledger.put_artifact(HISTORY, content, MEDIA_TYPE)


def grown(
    before: History,
    new: Names,
    judge: Callable[[Names], Iterable[Seen]],
    *,
    hull_changed: bool,
) -> History:
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
    stale = before.where(before.numbers("has_energy")).names if hull_changed else Names()
    again = Names(chain(stale, new.without(stale)))
    return before.updated(History.of(judge(again))).ranked()
