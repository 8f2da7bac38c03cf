"""Read the phases and archives that evaluators are given, once per process and content."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from matloop.documents.phase import Archive, PhaseSet
from matloop.protocols import Resources

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


@lru_cache(maxsize=4)
def archive(place: Source) -> Archive:
    """Return the archive that a file holds."""
    return Archive.from_bytes(place[0].read_bytes())
