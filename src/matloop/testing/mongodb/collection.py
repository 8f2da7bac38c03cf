"""One collection: documents as BSON, found through indexes, changed as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Protocol

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from mongomock_ng.filtering import filter_applies

from matloop.testing.mongodb.errors import CommandError
from matloop.testing.mongodb.indexing import Index
from matloop.testing.mongodb.ordering import CODEC, Key, key, sort_key, values_at
from matloop.testing.mongodb.planning import Plan, ordered, plan
from matloop.testing.mongodb.updating import is_replacement, project, updated, upserted

Json = dict[str, Any]
MAX_DOCUMENT = 16 * 1024 * 1024
_FEW = 300  # matches that are sorted sooner than an index is walked


class Log(Protocol):
    """Where a collection writes what it did."""

    def put(self, namespace: str, raw: bytes) -> None:
        """Note that a document is now this."""
        ...

    def delete(self, namespace: str, name: Any) -> None:
        """Note that the document with this ``_id`` is gone."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """A document: its BSON, and its fields, which nobody may change."""

    raw: bytes
    fields: Json


@dataclass(frozen=True)
class Change:
    """What an update did."""

    matched: int = 0
    modified: int = 0
    upserted: Any = None
    before: Stored | None = None
    after: Stored | None = None


class Collection:
    """Documents and indexes under one namespace.

    Parameters
    ----------
    namespace
        ``database.collection``.
    log
        Told of every change, after it was made.
    """

    def __init__(self, namespace: str, log: Log) -> None:
        self.namespace = namespace
        self.indexes: dict[str, Index] = {}
        self._documents: dict[Key, Stored] = {}
        self._log = log

    def __len__(self) -> int:
        return len(self._documents)

    def __iter__(self) -> Iterator[Stored]:
        return iter(self._documents.values())

    def find(
        self,
        criteria: Json,
        sort: Mapping[str, int] | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[Stored]:
        """Yield matching documents; the collection must not change meanwhile."""
        sort = sort or {}
        stop = skip + limit if limit else None
        chosen = plan(criteria, self.indexes.values(), self._documents.keys())
        if chosen.rest:
            filter_applies(chosen.rest, {})  # refuses what is no filter, whatever is stored
        candidates = self._documents.keys() if chosen.ids is None else chosen.ids
        if sort and "$natural" not in sort:
            walk = None
            if limit and len(candidates) > _FEW:
                walk = ordered(criteria, sort, self.indexes.values())
            if walk is not None:
                found = self._matching((name for name in walk if name in candidates), chosen)
            else:
                matches = list(self._matching(candidates, chosen))
                found = iter(_sorted(matches, sort))
        else:
            found = self._matching(candidates, chosen)
            if sort and next(iter(sort.values())) < 0:
                found = reversed(list(found))
        return islice(found, skip, stop)

    def count(self, criteria: Json) -> int:
        """Return how many documents match."""
        return sum(1 for _ in self.find(criteria)) if criteria else len(self._documents)

    def distinct(self, field: str, criteria: Json) -> list[Any]:
        """Return the different values of a field, members of arrays one by one."""
        values: dict[Key, Any] = {}
        path = field.split(".")
        for stored in self.find(criteria):
            for value in values_at(stored.fields, path):
                for item in value if isinstance(value, list) else [value]:
                    place = key(item)
                    if place != (1,) or item is None:  # not missing
                        values.setdefault(place, item)
        return [values[place] for place in sorted(values)]

    def insert(self, raw: bytes) -> Any:
        """Add a document and return its ``_id``."""
        fields = bson.decode(raw, CODEC)
        if "_id" not in fields:
            fields = {"_id": ObjectId(), **fields}
            raw = bson.encode(fields)
        if len(raw) > MAX_DOCUMENT:
            raise CommandError(
                2,
                f"object to insert too large. size in bytes: {len(raw)}, max size: {MAX_DOCUMENT}",
            )
        self._insert(Stored(raw, fields))
        return fields["_id"]

    def update(
        self,
        criteria: Json,
        change: Any,
        *,
        multi: bool = False,
        upsert: bool = False,
        sort: Mapping[str, int] | None = None,
        filters: Any = None,
    ) -> Change:
        """Change the first match, or all, or insert one if there is none."""
        if multi and is_replacement(change):
            raise CommandError(9, "multi update is not supported for replacement-style update")
        matches = list(self.find(criteria, sort, limit=0 if multi else 1))
        if not matches:
            if not upsert:
                return Change()
            fields = upserted(criteria, change, filters)
            stored = self._encoded(fields, 17420, "Document to upsert")
            self._insert(stored)
            return Change(upserted=fields["_id"], after=stored)
        modified = 0
        stored = matches[0]
        for old in matches:
            fields = updated(bson.decode(old.raw, CODEC), criteria, change, filters, False)
            stored = self._encoded(fields, 17419, "Resulting document after update")
            if stored.raw != old.raw:
                self._replace(old, stored)
                modified += 1
        return Change(len(matches), modified, before=matches[0], after=stored)

    def delete(
        self, criteria: Json, limit: int = 0, sort: Mapping[str, int] | None = None
    ) -> list[Stored]:
        """Delete matches and return them."""
        gone = list(self.find(criteria, sort, limit=limit))
        for stored in gone:
            place = key(stored.fields["_id"])
            for index in self.indexes.values():
                index.replace(index.entries(stored.fields), set(), place)
            del self._documents[place]
            self._log.delete(self.namespace, stored.fields["_id"])
        return gone

    def restore(self, fields: Json) -> None:
        """Set a document as the journal has it, without asking; indexes are built later."""
        self._documents[key(fields["_id"])] = Stored(bson.encode(fields), fields)

    def declare(self, options: Json) -> None:
        """Note an index as the journal has it; `build` fills it."""
        self.indexes[options["name"]] = Index(options)

    def forget(self, name: Any) -> None:
        """Drop a document as the journal says."""
        self._documents.pop(key(name), None)

    def build(self, options: Json) -> None:
        """Add an index over what is there.

        Raises
        ------
        CommandError
            If it is unique and two documents agree.
        """
        index = Index(options)
        for place, stored in self._documents.items():
            entries = index.entries(stored.fields)
            rival = index.rival(entries, place)
            if rival is not None:
                raise self._duplicate(index.name, index.fields, stored.fields)
            index.add(entries, place)
        self.indexes[index.name] = index

    def expire(self, now: datetime) -> int:
        """Delete what a time-to-live index says is too old; return how many."""
        gone = 0
        for index in list(self.indexes.values()):
            seconds = index.options.get("expireAfterSeconds")
            if seconds is not None and len(index.fields) == 1:
                limit = now - timedelta(seconds=float(seconds))
                gone += len(self.delete({index.fields[0]: {"$lt": limit}}))
        return gone

    def view(self, stored: Stored, projection: Json | None, criteria: Json) -> Any:
        """Return a document for a reply."""
        if projection:
            return project(stored.fields, projection, criteria)
        return RawBSONDocument(stored.raw)

    def _matching(self, names: Iterable[Key], chosen: Plan) -> Iterator[Stored]:
        for name in names:
            stored = self._documents[name]
            if chosen.fits(stored.fields):
                yield stored

    def _insert(self, stored: Stored) -> None:
        place = key(stored.fields["_id"])
        if place in self._documents:
            raise self._duplicate("_id_", ("_id",), stored.fields)
        entries = self._checked(stored, place)
        self._documents[place] = stored
        for index, new in entries:
            index.add(new, place)
        self._log.put(self.namespace, stored.raw)

    def _replace(self, old: Stored, stored: Stored) -> None:
        place = key(old.fields["_id"])
        entries = self._checked(stored, place)
        self._documents[place] = stored
        for index, new in entries:
            index.replace(index.entries(old.fields), new, place)
        self._log.put(self.namespace, stored.raw)

    def _checked(self, stored: Stored, place: Key) -> list[tuple[Index, set[tuple[Key, ...]]]]:
        checked = []
        for index in self.indexes.values():
            entries = index.entries(stored.fields)
            if index.rival(entries, place) is not None:
                raise self._duplicate(index.name, index.fields, stored.fields)
            checked.append((index, entries))
        return checked

    def _encoded(self, fields: Json, code: int, what: str) -> Stored:
        raw = bson.encode(fields)
        if len(raw) > MAX_DOCUMENT:
            raise CommandError(code, f"{what} is larger than {MAX_DOCUMENT}")
        return Stored(raw, bson.decode(raw, CODEC))

    def _duplicate(self, index: str, names: Iterable[str], fields: Json) -> CommandError:
        values = {}
        for name in names:
            found = values_at(fields, name.split("."))[0]
            values[name] = found if key(found) != (1,) else None
        return CommandError(
            11000,
            f"E11000 duplicate key error collection: {self.namespace} index: {index} "
            f"dup key: {values!r}",
            {"keyPattern": dict.fromkeys(values, 1), "keyValue": values},
        )


def _sorted(matches: list[Stored], sort: Mapping[str, int]) -> list[Stored]:
    for field in reversed(list(sort)):
        direction, path = sort[field], field.split(".")
        keys = [sort_key(stored.fields, path, direction) for stored in matches]
        order = sorted(range(len(keys)), key=keys.__getitem__, reverse=direction < 0)
        matches = [matches[position] for position in order]
    return matches
