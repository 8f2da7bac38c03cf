"""What a process hands on to its next job, though the ledger has it as well.

A stage's results go to its decisions, and whoever passed goes to the next stage. What is here can
be read from the ledger too, at several times the price: a process that has just started, or that
had no room, does so. Nothing depends on it. It lies in files without a name, which go with the
process, so that memory does not grow with the number of candidates.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import compress
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import TypeAdapter
from pymatgen.core import Structure

from matloop.documents.base import Collector, Document, Rows
from matloop.documents.candidate import Candidate
from matloop.documents.decision import Choice
from matloop.documents.evaluation import Evaluation
from matloop.jobs.evaluation import Standing
from matloop.jobs.place import Place
from matloop.structures.columns import Crystals, pack

logger = logging.getLogger(__name__)

MOST_BYTES = 1_000_000_000
"""What a process keeps on disk of one stage's candidates, and of its results."""

_Kind = Literal["left", "judged", "chosen"]


class Chosen(Document):
    """What a decision is made of.

    Attributes
    ----------
    choice
        What becomes of the candidate.
    keys
        Keys of the stage's evaluations of it.
    asked
        Whether the selector was asked; it is not where some evaluators have not been.
    """

    choice: Choice
    keys: tuple[str, ...]
    asked: bool = True

    @classmethod
    def of(cls, choice: Choice, standing: Standing) -> Chosen:
        """Return a selector's choice with what it rests on."""
        return cls.model_construct(choice=choice, keys=tuple(standing.keys))


class _Judged(Document):
    candidate: Candidate
    evaluations: tuple[Evaluation, ...]
    keys: tuple[str, ...]


_HOW: dict[_Kind, tuple[TypeAdapter[Any], Callable[[Any], str]]] = {
    "left": (TypeAdapter(list[Candidate]), lambda item: str(item.candidate_id)),
    "judged": (TypeAdapter(list[_Judged]), lambda item: str(item.candidate.candidate_id)),
    "chosen": (TypeAdapter(list[Chosen]), lambda item: str(item.choice.candidate_id)),
}
"""How items of a kind are written, and what says whom they are about."""


@dataclass(frozen=True, eq=False)
class _Bundle:
    """Where in a shelf's file it lies: crystals, then all else as compressed JSON.

    Attributes
    ----------
    hashes
        Of the ids.
    start
        Position of its first byte.
    crystals, others, size
        Bytes of the crystals, of the JSON, and of the JSON before it was compressed.
    """

    hashes: NDArray[np.int64]
    start: int
    crystals: int
    others: int
    size: int


@dataclass(eq=False)
class _Shelf:
    """What one stage hands on, and which bundle was asked for last.

    A process that was forked shares the file, so that it must leave it alone.
    """

    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    owner: int = field(default_factory=os.getpid)
    bundles: list[_Bundle] = field(default_factory=list)
    weight: int = 0
    last: int = 0

    def put(self, hashes: NDArray[np.int64], crystals: bytes, others: bytes) -> None:
        """Add a bundle to the file."""
        packed = pa.compress(others, codec="zstd", asbytes=True)
        self.file.seek(self.weight)
        self.file.write(crystals)
        self.file.write(packed)
        self.file.flush()
        bundle = _Bundle(hashes, self.weight, len(crystals), len(packed), len(others))
        self.bundles.append(bundle)
        self.weight += len(crystals) + len(packed)

    def get(self, bundle: _Bundle) -> tuple[bytes, bytes]:
        """Return the crystals of a bundle, and all else."""
        self.file.seek(bundle.start)
        crystals, packed = self.file.read(bundle.crystals), self.file.read(bundle.others)
        return crystals, pa.decompress(packed, bundle.size, codec="zstd", asbytes=True)


_shelves: dict[tuple[Place, _Kind], _Shelf] = {}


class _Writer(Collector):
    """Takes crystals out of documents while they are written, each once."""

    def __init__(self) -> None:
        self.structures: dict[int, tuple[int, Structure]] = {}

    def held(self, structure: Structure) -> dict[str, Any]:
        row, _ = self.structures.setdefault(id(structure), (len(self.structures), structure))
        return {"row": row}


class _Reader(Rows):
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
    _put(place, "left", candidates)


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
    return _get(replace(place, stage=stage), "left", names)


def hand_judged(place: Place, standings: Sequence[Standing]) -> None:
    """Keep where candidates stand after a stage's evaluators, but for whom was not judged.

    Parameters
    ----------
    place
        The stage.
    standings
        Where its candidates stand.
    """
    judged = [
        _Judged.model_construct(
            candidate=item.candidate, evaluations=tuple(item.evaluations), keys=tuple(item.keys)
        )
        for item in standings
        if item.complete
    ]
    _put(place, "judged", judged)


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
        for name, item in _get(place, "judged", names).items()
    }


def hand_chosen(place: Place, chosen: Sequence[Chosen]) -> None:
    """Keep choices for the decisions that record them.

    Parameters
    ----------
    place
        The stage.
    chosen
        The choices.
    """
    _put(place, "chosen", chosen)


def hand_passed(place: Place, chosen: Sequence[Chosen], standings: Sequence[Standing]) -> None:
    """Keep who passed for the next stage.

    Parameters
    ----------
    place
        The stage.
    chosen
        The choices.
    standings
        Where the candidates stand that they are about, others among them or not.
    """
    passed = {one.choice.candidate_id for one in chosen if one.choice.outcome == "passed"}
    candidates = [item.candidate for item in standings]
    hand_over(place, [one for one in candidates if one.candidate_id in passed])


def chosen_here(place: Place, names: Iterable[str]) -> dict[str, Chosen]:
    """Return those of the choices that are here, by candidate.

    Parameters
    ----------
    place
        The stage.
    names
        Ids of the candidates.
    """
    return _get(place, "chosen", names)


def forget() -> None:
    """Keep nothing any longer, once all stages are done."""
    _opened.cache_clear()
    while _shelves:
        _shelves.popitem()[1].file.close()


def _put(place: Place, kind: _Kind, items: Sequence[Any]) -> None:
    if not items:
        return
    key, (adapter, name) = (place, kind), _HOW[kind]
    try:
        if key not in _shelves:  # a stage reads what the one before it left; earlier ones are done
            for old in [one for one in _shelves if one[1] == kind][:-1]:
                _shelves.pop(old).file.close()
            _shelves[key] = _Shelf()
        shelf = _shelves[key]
        if shelf.weight > MOST_BYTES or shelf.owner != os.getpid():
            return
        writer = _Writer()
        others = adapter.dump_json(list(items), context=writer)
        crystals = pack(structure for _, structure in writer.structures.values())
        shelf.put(_hashes(list(map(name, items))), crystals, others)
    except OSError as error:
        logger.info("no room to hand results on, they are read from the ledger: %s", error)


def _get(place: Place, kind: _Kind, names: Iterable[str]) -> dict[str, Any]:
    shelf = _shelves.get((place, kind))
    if shelf is None or shelf.owner != os.getpid():
        return {}
    asked = list(names)
    sought, found = _hashes(asked), dict[str, Any]()
    count = len(shelf.bundles)
    for number in [(shelf.last + step) % count for step in range(count)]:
        here = np.isin(sought, shelf.bundles[number].hashes)
        if here.any():
            items = _opened(shelf, shelf.bundles[number], kind)
            found |= {name: items[name] for name in compress(asked, here) if name in items}
            shelf.last = number
            if len(found) == len(asked):
                break
    return {name: found[name] for name in asked if name in found}


def _hashes(names: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, names), np.int64, len(names))


@lru_cache(maxsize=1)
def _opened(shelf: _Shelf, bundle: _Bundle, kind: _Kind) -> dict[str, Any]:
    adapter, name = _HOW[kind]
    crystals, others = shelf.get(bundle)
    items = adapter.validate_json(others, context=_Reader(Crystals(crystals)))
    return {name(item): item for item in items}
