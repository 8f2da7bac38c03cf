"""Crystals of the ledger's documents: in columnar files, of which the documents name a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pymatgen.core import Structure

from matloop.documents.artifact import Artifact
from matloop.documents.base import Document
from matloop.errors import LedgerError
from matloop.ledger.encoding import Json
from matloop.ledger.recent import Recent
from matloop.structures.columns import MEDIA_TYPE, ColumnsError, Crystals, pack

KIND = "crystals"
"""Kind of the artifacts that hold crystals."""

PLACES: Mapping[str, str] = {"candidates": "candidate", "evaluations": "evaluation"}
"""Collections whose documents have a crystal, and the part that holds it as ``structure``."""

FEWEST = 8
"""Crystals written at once below which they stay in their documents, as pymatgen dictionaries."""

MOST = 4096
"""Crystals in one file at most."""

_BYTES_KEPT = 64_000_000  # of files that have been read, before they are made into structures


class CrystalFiles:
    """Take crystals out of documents into artifacts, and put them back.

    In place of a crystal a document then holds ``{"crystals": sha256, "row": number}``. The file is
    there before any document that names it.

    Parameters
    ----------
    put
        Stores an artifact.
    path
        Returns a local path to an artifact's bytes.
    """

    def __init__(
        self, put: Callable[[str, bytes, str], Artifact], path: Callable[[str], Path]
    ) -> None:
        self._put = put
        self._path = path
        self._files: Recent[str, Crystals] = Recent(_BYTES_KEPT)

    def documents(self, collection: str, records: Sequence[Document]) -> list[Json]:
        """Return records as documents, their crystals in files if they are many.

        Parameters
        ----------
        collection
            One of `PLACES`.
        records
            The records.
        """
        part = PLACES[collection]
        structures: dict[int, Structure] = {}
        for number, record in enumerate(records):
            structure = getattr(record, part).structure
            if structure is not None:
                structures[number] = structure
        if len(structures) < FEWEST:
            return [record.model_dump(mode="json") for record in records]
        without = {part: {"structure"}}
        documents = [record.model_dump(mode="json", exclude=without) for record in records]
        for document in documents:
            document[part]["structure"] = None
        numbers = list(structures)
        for start in range(0, len(numbers), MOST):
            some = numbers[start : start + MOST]
            content = pack(structures[number] for number in some)
            sha256 = self._put(KIND, content, MEDIA_TYPE).sha256
            for row, number in enumerate(some):
                documents[number][part]["structure"] = {KIND: sha256, "row": row}
        return documents

    def restore(self, collection: str, document: Json) -> Json:
        """Return a document with its crystal in place of the row that is named.

        Raises
        ------
        LedgerError
            If the file is not there, damaged, or of another version.
        """
        part = PLACES[collection]
        held = document.get(part, {}).get("structure")
        if not isinstance(held, dict) or KIND not in held:
            return document
        try:
            structure = self._file(held[KIND])[held["row"]]
        except (ColumnsError, IndexError, KeyError) as error:
            raise LedgerError(f"a document in {collection} cannot be read: {error}") from error
        return {**document, part: {**document[part], "structure": structure}}

    def _file(self, sha256: str) -> Crystals:
        known = self._files.found([sha256])
        if sha256 in known:
            return known[sha256]
        crystals = Crystals(self._path(sha256).read_bytes())
        self._files.keep({sha256: crystals}, {sha256: crystals.table.nbytes})
        return crystals
