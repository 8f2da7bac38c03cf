"""Candidates that a stage hands on to the next within one process, packed in columns.

What is here can be read from the ledger as well, at ten times the price: a process that has just
started, or that has forgotten, does so. Nothing depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from matloop.documents.candidate import Candidate
from matloop.jobs.place import Place
from matloop.ledger.recent import Recent
from matloop.structures.columns import Crystals, pack

MOST_BYTES = 128_000_000
"""Packed candidates that a process keeps."""

_Key = tuple[Place, str]  # the stage that they leave, and the id


@dataclass(frozen=True, eq=False)
class _Bundle:
    """Crystals as a file, and all else of each candidate as JSON."""

    crystals: bytes
    others: tuple[str, ...]


_bundles: Recent[_Key, tuple[_Bundle, int]] = Recent(MOST_BYTES)


def hand_over(place: Place, candidates: Sequence[Candidate]) -> None:
    """Keep candidates as they leave a stage.

    Parameters
    ----------
    place
        The stage.
    candidates
        Whoever may be asked for by the next stage.
    """
    if not candidates:
        return
    others = tuple(item.model_dump_json(exclude={"structure"}) for item in candidates)
    bundle = _Bundle(pack(item.structure for item in candidates), others)
    each = (len(bundle.crystals) + sum(map(len, others))) // len(candidates) + 250
    names = [(place, item.candidate_id) for item in candidates]
    _bundles.keep(
        {name: (bundle, row) for row, name in enumerate(names)}, dict.fromkeys(names, each)
    )


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
    left = replace(place, stage=stage)
    held = _bundles.found((left, name) for name in names)
    found: dict[str, Candidate] = {}
    for (_, name), (bundle, row) in held.items():
        found[name] = _candidate(bundle, row)
    return found


def _candidate(bundle: _Bundle, row: int) -> Candidate:
    other = json.loads(bundle.others[row])
    return Candidate.model_validate({**other, "structure": _opened(bundle)[row]})


@lru_cache(maxsize=4)
def _opened(bundle: _Bundle) -> Crystals:
    return Crystals(bundle.crystals)
