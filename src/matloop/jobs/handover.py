"""What a process hands on to its next job in a few bytes, though the ledger has it as well.

A stage's results go to its decisions, and whoever passed goes to the next stage. What is here can
be read from the ledger too, at several times the price: a process that has just started, or that
had no room, does so. Nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import compress
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import TypeAdapter
from pymatgen.core import Structure

from matloop.documents.base import Document
from matloop.documents.candidate import Candidate
from matloop.documents.evaluation import Evaluation
from matloop.jobs.evaluation import Standing
from matloop.jobs.place import Place
from matloop.structures.columns import Crystals, pack

MOST_BYTES = 48_000_000
"""What a process keeps of one stage's candidates, and of its results; the rest is in the ledger."""

_Kind = Literal["left", "judged"]


class _Judged(Document):
    candidate: Candidate
    evaluations: tuple[Evaluation, ...]
    keys: tuple[str, ...]


_LEFT = TypeAdapter(list[Candidate])
_JUDGED = TypeAdapter(list[_Judged])


@dataclass(frozen=True, eq=False)
class _Bundle:
    """Crystals as a file, all else as compressed JSON that names their rows, hashes of the ids."""

    hashes: NDArray[np.int64]
    crystals: bytes
    others: bytes
    size: int

    @property
    def weight(self) -> int:
        return len(self.crystals) + len(self.others) + self.hashes.nbytes


@dataclass
class _Shelf:
    """What one stage hands on, and which bundle was asked for last."""

    bundles: list[_Bundle] = field(default_factory=list)
    weight: int = 0
    last: int = 0


_shelves: dict[tuple[Place, _Kind], _Shelf] = {}


class _Writer:
    """Takes crystals out of documents while they are written, each once."""

    def __init__(self) -> None:
        self.structures: dict[int, tuple[int, Structure]] = {}

    def held(self, structure: Structure) -> dict[str, Any]:
        row, _ = self.structures.setdefault(id(structure), (len(self.structures), structure))
        return {"row": row}


class _Reader:
    """Puts crystals into documents while they are read, each once."""

    def __init__(self, crystals: Crystals) -> None:
        self._crystals = crystals
        self._made: dict[int, Structure] = {}

    def crystal(self, held: dict[str, Any]) -> Structure | None:
        row = held["row"]
        if row not in self._made:
            self._made[row] = self._crystals[row]
        return self._made[row]


def hand_over(place: Place, candidates: Sequence[Candidate]) -> None:
    """Keep candidates as they leave a stage.

    Parameters
    ----------
    place
        The stage; one without a name stands for the proposals.
    candidates
        Whoever may be asked for by the next stage.
    """
    _put((place, "left"), [item.candidate_id for item in candidates], candidates, _LEFT)


def handed_over(place: Place, stage: str, names: Iterable[str]) -> dict[str, Candidate]:
    """Return those of the candidates that are here, as a stage of the iteration left them.

    Parameters
    ----------
    place
        The iteration.
    stage
        The stage that they left.
    names
        Their ids.
    """
    return _get((replace(place, stage=stage), "left"), names, _LEFT)


def hand_judged(place: Place, standings: Sequence[Standing]) -> None:
    """Keep where candidates stand after a stage's evaluators, but for whom was not judged.

    Parameters
    ----------
    place
        The stage.
    standings
        Where its candidates stand.
    """
    complete = [item for item in standings if item.complete]
    names = [item.candidate.candidate_id for item in complete]
    judged = [
        _Judged.model_construct(
            candidate=item.candidate, evaluations=tuple(item.evaluations), keys=tuple(item.keys)
        )
        for item in complete
    ]
    _put((place, "judged"), names, judged, _JUDGED)


def judged_here(place: Place, names: Iterable[str]) -> dict[str, Standing]:
    """Return where those of the candidates stand that are here, by id.

    Parameters
    ----------
    place
        The stage.
    names
        Their ids.
    """
    return {
        name: Standing(item.candidate, list(item.evaluations), list(item.keys))
        for name, item in _get((place, "judged"), names, _JUDGED).items()
    }


def forget() -> None:
    """Keep nothing any longer, once all stages are done."""
    _shelves.clear()
    _opened.cache_clear()


def _put(
    key: tuple[Place, _Kind], names: Sequence[str], items: Sequence[Any], kind: TypeAdapter[Any]
) -> None:
    if not names:
        return
    if key not in _shelves:  # the stages before have done with theirs
        for old in [one for one in _shelves if one[1] == key[1]]:
            del _shelves[old]
    shelf = _shelves.setdefault(key, _Shelf())
    if shelf.weight > MOST_BYTES:
        return
    writer = _Writer()
    others = kind.dump_json(list(items), context=writer)
    bundle = _Bundle(
        _hashes(names),
        pack(structure for _, structure in writer.structures.values()),
        pa.compress(others, codec="zstd", asbytes=True),
        len(others),
    )
    shelf.bundles.append(bundle)
    shelf.weight += bundle.weight


def _get(key: tuple[Place, _Kind], names: Iterable[str], kind: TypeAdapter[Any]) -> dict[str, Any]:
    shelf = _shelves.get(key)
    if shelf is None:
        return {}
    asked = list(names)
    sought, found = _hashes(asked), dict[str, Any]()
    count = len(shelf.bundles)
    for number in [(shelf.last + step) % count for step in range(count)]:
        here = np.isin(sought, shelf.bundles[number].hashes)
        if here.any():
            items = _opened(shelf.bundles[number], kind)
            found |= {name: items[name] for name in compress(asked, here) if name in items}
            shelf.last = number
            if len(found) == len(asked):
                break
    return {name: found[name] for name in asked if name in found}


def _hashes(names: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, names), np.int64, len(names))


@lru_cache(maxsize=1)
def _opened(bundle: _Bundle, kind: TypeAdapter[Any]) -> dict[str, Any]:
    text = pa.decompress(bundle.others, bundle.size, codec="zstd", asbytes=True)
    items = kind.validate_json(text, context=_Reader(Crystals(bundle.crystals)))
    return {
        (item if isinstance(item, Candidate) else item.candidate).candidate_id: item
        for item in items
    }
