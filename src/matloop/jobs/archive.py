"""Archives that grow by what is new: segments of prepared crystals, joined now and then."""

from __future__ import annotations

from collections.abc import Sequence

from pymatgen.core import Structure

from matloop.documents.artifact import Artifact
from matloop.documents.phase import Archive
from matloop.ledger.interface import Ledger
from matloop.ledger.past import Past, read_packed
from matloop.structures.matching import IncomparableError, Matcher, Reduced
from matloop.structures.segments import (
    MEDIA_TYPE,
    Entry,
    Segment,
    joined,
    pack,
    pack_merged,
)

Named = tuple[str, int]


def archived(ledger: Ledger, before: Artifact | None, past: Sequence[Past]) -> Artifact:
    """Return the archive of what a campaign has paid for, as proposed and as relaxed.

    Only what the archive before does not hold is prepared and stored. The same past gives the same
    archive, however often it is asked for.

    Parameters
    ----------
    ledger
        Holds the archive before, and is given the next.
    before
        The archive that the iteration started with; None if there is none.
    past
        All candidates of the campaign.
    """
    archive = read_packed(ledger, before, Archive) if before else Archive()
    files = list(archive.segments)
    segments = [Segment(ledger.artifact_path(name)) for name in files]
    held: set[Named] = {(known.known_id, 0) for known in archive.crystals}
    held = held.union(*(segment.names() for segment in segments))
    new = _entries(past, held)
    if new:
        first = joined([len(segment) for segment in segments], len(new))
        content = pack(new)
        if first < len(segments):
            content = pack_merged([*segments[first:], Segment(content)])
        stored = ledger.put_artifact("segment", content, MEDIA_TYPE)
        files = [*files[:first], stored.sha256]
    grown = Archive(crystals=archive.crystals, segments=tuple(files))
    return ledger.put_artifact("archive", grown.to_bytes(), "application/gzip")


def _entries(past: Sequence[Past], held: set[Named]) -> list[Entry]:
    found = []
    for item in past:
        moves = sum(evaluation.structure is not None for evaluation in item.evaluations)
        if not moves:
            continue
        for count in (0, moves):
            name = item.candidate_id, min(count, 255)
            if name not in held:
                held.add(name)
                structure = (item.candidate if count else item.record.candidate).structure
                found.append(Entry(*name, _reduced(structure)))
    return found


def _reduced(structure: Structure) -> Reduced | None:
    try:
        return Matcher().reduce(structure)
    except IncomparableError:
        return None
