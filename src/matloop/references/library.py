"""A library of known crystals without energies: a folder that any number of campaigns share.

It holds files that never change, named by their hash, and one list of those that count. Who adds
crystals writes files first and then, under a lock, a new list; who reads sees the list before or
after, never between. Files that no list names any more are left for readers of an older one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from matloop.atomic import whole_file
from matloop.documents.candidate import structure_digest
from matloop.documents.phase import Archive, Known
from matloop.errors import ConfigurationError
from matloop.ledger.artifacts import FileArtifacts
from matloop.structures.matching import IncomparableError, Matcher, Reduced
from matloop.structures.segments import Entry, Segment, joined, pack, pack_merged

_LIST = "library.json.gz"
_AT_ONCE = 5_000  # crystals prepared before they are written


class Library:
    """Known crystals in a folder.

    Parameters
    ----------
    folder
        The folder; made when the first crystal is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = FileArtifacts(folder)

    def archive(self) -> Archive:
        """Return the list of files that count; empty where nothing has been added.

        Raises
        ------
        ConfigurationError
            If there is a list that cannot be read.
        """
        path = self.folder / _LIST
        try:
            return Archive.from_bytes(path.read_bytes())
        except FileNotFoundError:
            return Archive()
        except (OSError, EOFError, ValueError) as error:
            raise ConfigurationError(f"{path} is no list of known crystals: {error}") from error

    def files(self) -> dict[str, Path]:
        """Return where each file of the list lies, by sha256, checked against it."""
        return {name: self._files.path(name) for name in self.archive().segments}

    def __len__(self) -> int:
        """Return how many crystals it holds, those that cannot be compared among them."""
        return sum(len(Segment(path)) for path in self.files().values())

    def add(self, crystals: Iterable[Known]) -> int:
        """Add crystals and return how many of them were new.

        A crystal that is there already in the same words is not added again. What is written stays,
        however the process ends; adding the same again goes on from there.

        Parameters
        ----------
        crystals
            Relaxed or measured crystals.
        """
        waiting, added = iter(crystals), 0
        while part := list(islice(waiting, _AT_ONCE)):
            held = self._digests()
            new = {digest: known for known in part if (digest := _digest(known)) not in held}
            if new:
                added += self._append(
                    [Entry(known.known_id, 1, _reduced(known), d) for d, known in new.items()]
                )
        return added

    def _append(self, entries: list[Entry]) -> int:
        with self._lock():
            held = self._digests()  # another process may have been faster
            new = [entry for entry in entries if entry.digest not in held]
            if not new:
                return 0
            files = self.files()
            names, segments = list(files), [Segment(path) for path in files.values()]
            first = joined([len(segment) for segment in segments], len(new))
            content = pack(new)
            if first < len(segments):
                content = pack_merged([*segments[first:], Segment(content)])
            names = [*names[:first], self._files.put(content)]
            with whole_file(self.folder / _LIST) as path:
                path.write_bytes(Archive(segments=tuple(names)).to_bytes())
            return len(new)

    def _digests(self) -> set[int]:
        return {digest for path in self.files().values() for digest in Segment(path).digests()}

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # freed by the system when the process ends
            yield
        finally:
            os.close(handle)


def _digest(known: Known) -> int:
    return int(structure_digest(known.structure)[:16], 16)


def _reduced(known: Known) -> Reduced | None:
    try:
        return Matcher().reduce(known.structure)
    except IncomparableError:
        return None
