"""Records in stores: as dictionaries where the store wants them, as text in the embedded database.

Both ways give the same documents. By text, pydantic writes and reads JSON itself, which takes a
third of the time; what its JSON cannot say, such as a number that is not finite, goes the other
way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from maggma.core import Store
from pydantic import ValidationError

from matloop.documents.base import Document
from matloop.errors import LedgerError
from matloop.ledger.crystals import PLACES, CrystalFiles
from matloop.ledger.encoding import Json, date_text, decode, encode
from matloop.ledger.insertion import insert_new
from matloop.ledger.sqlite import SQLiteStore

_ADDED = ("_id", "order", "last_updated")  # what the stored documents have beyond the record
_DATE = ',"last_updated":{"$date":"'
_TAIL = len(_DATE) + len("2026-01-01T00:00:00.000000") + len('"}}')
_ORDER = re.compile(r',"order":(\d+)$')
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")

D = TypeVar("D", bound=Document)


class Records:
    """Write records into stores and read them back.

    Parameters
    ----------
    stores
        A connected store for each collection.
    keys
        The fields that identify a document in each.
    crystals
        Where the crystals of many records are kept.
    """

    def __init__(
        self,
        stores: Mapping[str, Store],
        keys: Mapping[str, tuple[str, ...]],
        crystals: CrystalFiles,
    ) -> None:
        self._stores = stores
        self._keys = keys
        self._crystals = crystals

    def add(self, collection: str, records: Sequence[D], orders: Sequence[int] = ()) -> int:
        """Add the records whose key is not there yet, and return how many were new.

        Parameters
        ----------
        collection
            Where they belong.
        records
            The records.
        orders
            A number for each, stored with it as ``order``.
        """
        if not records:
            return 0
        now = datetime.now(UTC).replace(tzinfo=None)
        part = PLACES.get(collection, "")
        held = self._crystals.kept(collection, records) if part else {}
        store = self._stores[collection]
        by_text = isinstance(store, SQLiteStore)
        tail = f"{_DATE}{date_text(now)}" + '"}}'
        texts, documents = [], []
        for number, record in enumerate(records):
            place = held.get(number)
            added = {"order": orders[number]} if orders else {}
            text = _text(record, part, place) if by_text else None
            if text is not None:
                order = f',"order":{added["order"]}' if added else ""
                texts.append(f"{text[:-1]}{order}{tail}")
                continue
            document = {**_document(record, part, place), **added, "last_updated": now}
            if by_text:
                texts.append(encode(document))
            else:
                documents.append(document)
        if isinstance(store, SQLiteStore):
            return store.insert_texts(texts, self._keys[collection])
        return insert_new(store, documents, self._keys[collection])

    def read(
        self, collection: str, model: type[D], criteria: Json, order: Sequence[str] = ()
    ) -> Iterator[D]:
        """Return the records that match.

        Parameters
        ----------
        collection, model
            Where they are, and what they are.
        criteria
            MongoDB filter.
        order
            Fields to sort by.

        Raises
        ------
        LedgerError
            If a document cannot be read as a record.
        """
        return (record for _, record in self.ordered(collection, model, criteria, order))

    def ordered(
        self, collection: str, model: type[D], criteria: Json, order: Sequence[str] = ()
    ) -> Iterator[tuple[int, D]]:
        """Return the same, each with the number it was stored with; 0 where there is none."""
        store, sort = self._stores[collection], dict.fromkeys(order, 1) or None
        if not isinstance(store, SQLiteStore):
            for document in store.query(criteria, sort=sort):
                yield document.get("order", 0), self._record(collection, model, document)
            return
        has_order = "order" in model.model_fields
        known = model.model_fields["schema_version"].default
        for text in store.texts(criteria, sort):
            number, record = _quickly(model, text, self._crystals, has_order=has_order)
            if record is None or getattr(record, "schema_version", None) != known:
                document = decode(text)
                number = document.get("order", 0)
                record = self._record(collection, model, document)
            yield number, record

    def _record(self, collection: str, model: type[D], document: Json) -> D:
        if collection in PLACES:
            document = self._crystals.restore(collection, document)
        added = set(_ADDED) - model.model_fields.keys()  # a control has an order of its own
        content = {name: value for name, value in document.items() if name not in added}
        known = model.model_fields["schema_version"].default
        if content.get("schema_version", known) != known:
            raise LedgerError(
                f"a document in {collection} has schema version {content['schema_version']}, this "
                f"matloop reads {known}"
            )
        try:
            return model.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise LedgerError(
                f"a document in {collection} cannot be read; another version of matloop may have "
                f"written it ({place}: {first['msg']})"
            ) from error


def _text(record: Document, part: str, place: Json | None) -> str | None:
    """Return a record as `encode` would write it; None where it must do so itself."""
    if place is None:
        text = record.model_dump_json()
    else:
        text = record.model_dump_json(exclude={part: {"structure"}})
        # Within a text of JSON every quote is escaped, so that this is the key itself.
        crystal = json.dumps({"structure": place}, separators=(",", ":"))[1:-1]
        text = text.replace(f'"{part}":{{', f'"{part}":{{{crystal},', 1)
    if '"$' in text or "NaN" in text or "Infinity" in text:
        return None
    return text if text.isascii() else _NOT_ASCII.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _document(record: Document, part: str, place: Json | None) -> Json:
    if place is None:
        return record.model_dump(mode="json")
    document = record.model_dump(mode="json", exclude={part: {"structure"}})
    document[part]["structure"] = place
    return document


def _quickly(
    model: type[D], text: str, crystals: CrystalFiles, *, has_order: bool
) -> tuple[int, D | None]:
    """Return a document's number and record; None where that takes more than JSON."""
    if not text.startswith(_DATE, len(text) - _TAIL):
        return 0, None
    own, number = text[:-_TAIL], 0
    if '"$' in own:
        return 0, None
    if not has_order and (found := _ORDER.search(own, len(own) - 30)):
        own, number = own[: found.start()], int(found[1])
    try:
        return number, model.model_validate_json(own + "}", context=crystals)
    except ValidationError:
        return 0, None
