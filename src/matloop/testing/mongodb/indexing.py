"""Indexes of a collection: hash maps for equality, kept for every prefix of a compound index."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mongomock_ng.filtering import filter_applies

from matloop.testing.mongodb.errors import CommandError
from matloop.testing.mongodb.ordering import MISSING, Key, key, values_at

Ids = dict[Key, None]
"""An ordered set of documents, by the comparable form of their ``_id``."""


class Index:
    """One index: who has which values.

    Parameters
    ----------
    options
        As ``createIndexes`` gives them: ``key``, ``name``, ``unique``, ``sparse``,
        ``partialFilterExpression`` and others that are kept and shown.

    Raises
    ------
    CommandError
        If the kind of index is not supported.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)
        self.name: str = options["name"]
        self.fields = tuple(options["key"])
        self.unique = bool(options.get("unique"))
        self.is_multikey = False
        self._partial = options.get("partialFilterExpression")
        self._sparse = bool(options.get("sparse"))
        self._paths = [tuple(field.split(".")) for field in self.fields]
        self._maps: list[dict[tuple[Key, ...], Ids]] = [{} for _ in self.fields]
        self._followers: dict[tuple[Key, ...], list[Key]] = {}
        unsupported = [
            kind for kind in options["key"].values() if kind not in (1, -1, 1.0, -1.0, "hashed")
        ]
        if unsupported:
            raise CommandError(238, f"the test server has no {unsupported[0]!r} index")

    @property
    def holds_all(self) -> bool:
        """Whether every document is in the index."""
        return not self._sparse and self._partial is None

    def entries(self, document: Mapping[str, Any]) -> set[tuple[Key, ...]]:
        """Return the entries of a document: the product of the values of the fields."""
        if self._partial is not None and not filter_applies(self._partial, document):
            return set()
        columns = []
        present = False
        for path in self._paths:
            column: list[Key] = []
            for value in values_at(document, path):
                present = present or value is not MISSING
                column.append(key(value))
                if isinstance(value, list):
                    self.is_multikey = True
                    column += [key(item) for item in value]
            self.is_multikey = self.is_multikey or len(column) > 1
            columns.append(column)
        if self._sparse and not present:
            return set()
        return set(itertools.product(*columns))

    def rival(self, entries: Iterable[tuple[Key, ...]], owner: Key) -> tuple[Key, ...] | None:
        """Return an entry that another document has already, if the index is unique."""
        if self.unique:
            full = self._maps[-1]
            for entry in entries:
                if any(other != owner for other in full.get(entry, ())):
                    return entry
        return None

    def add(self, entries: Iterable[tuple[Key, ...]], owner: Key) -> None:
        """Add the entries of a document."""
        for entry in entries:
            for length, places in enumerate(self._maps, start=1):
                part = entry[:length]
                ids = places.get(part)
                if ids is None:
                    ids = places[part] = {}
                    followers = self._followers.get(part[:-1])
                    if followers is not None:
                        bisect.insort(followers, part[-1])
                ids[owner] = None

    def replace(self, old: set[tuple[Key, ...]], new: set[tuple[Key, ...]], owner: Key) -> None:
        """Exchange the entries of a document; what stays keeps its place."""
        if old == new:
            return
        for length, places in enumerate(self._maps, start=1):
            before = {entry[:length] for entry in old}
            for part in before - {entry[:length] for entry in new}:
                places[part].pop(owner)
                if not places[part]:
                    del places[part]
                    followers = self._followers.get(part[:-1])
                    if followers is not None:
                        del followers[bisect.bisect_left(followers, part[-1])]
        self.add(new - old, owner)

    def find(self, entry: tuple[Key, ...]) -> Ids:
        """Return the documents that have these values in the first fields."""
        return self._maps[len(entry) - 1].get(entry, {})

    def in_order(self, entry: tuple[Key, ...], directions: Sequence[int]) -> Iterator[Key]:
        """Yield the documents with these first values, ordered by the fields that follow."""
        if not directions:
            yield from self.find(entry)
            return
        followers = self._followers.get(entry)
        if followers is None:
            depth = len(entry)
            followers = sorted(part[-1] for part in self._maps[depth] if part[:depth] == entry)
            self._followers[entry] = followers
        for follower in followers if directions[0] > 0 else reversed(followers):
            yield from self.in_order((*entry, follower), directions[1:])
