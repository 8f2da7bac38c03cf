"""Read the phases and archives that evaluators are given, once per process and content."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from matloop.documents.phase import Archive, PhaseSet
from matloop.errors import MatloopError
from matloop.protocols import Resources
from matloop.structures.identity import KnownIndex
from matloop.structures.matching import Matcher
from matloop.structures.segments import Segment

Source = tuple[Path, str]
"""A file and the sha256 of its bytes: equal sources hold equal content."""


def source(resources: Resources, name: str) -> Source | None:
    """Return where an artifact lies and its sha256; None if there is no such artifact."""
    path = resources.paths.get(name)
    if path is None:
        return None
    known = resources.digests.get(name)
    return path, known or hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=4)
def phase_set(place: Source) -> PhaseSet:
    """Return the phases that a file holds."""
    return PhaseSet.from_bytes(place[0].read_bytes())


def archive_index(place: Source, resources: Resources, matcher: Matcher) -> KnownIndex:
    """Return the crystals of an archive, to be searched.

    Raises
    ------
    MatloopError
        If a file that the archive consists of is not among the resources.
    """
    archive = _archive(place)
    lacking = [name for name in archive.segments if name not in resources.segments]
    if lacking:
        raise MatloopError(f"the archive {place[0]} consists of files that are not here: {lacking}")
    return _index(place, tuple(resources.segments[name] for name in archive.segments), matcher)


@lru_cache(maxsize=4)
def _archive(place: Source) -> Archive:
    return Archive.from_bytes(place[0].read_bytes())


@lru_cache(maxsize=4)
def _index(place: Source, files: tuple[Path, ...], matcher: Matcher) -> KnownIndex:
    crystals = _archive(place).crystals
    return KnownIndex(
        matcher,
        ((known.known_id, known.structure) for known in crystals),
        segments=[_segment(file) for file in files],
    )


@lru_cache(maxsize=64)
def _segment(file: Path) -> Segment:
    return Segment(file)
