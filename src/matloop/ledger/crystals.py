"""Crystals of the ledger's documents: in columnar files, of which the documents name a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pymatgen.core import Structure

from matloop.documents.artifact import Artifact
from matloop.documents.base import Document, Rows
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

_BYTES_KEPT = 16_000_000  # of files that have been read, before they are made into structures


class CrystalFiles(Rows):
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

    def kept(self, collection: str, records: Sequence[Document]) -> dict[int, Json]:
        """Put the crystals of records into files if they are many, and say where they are.

        Parameters
        ----------
        collection
            One of `PLACES`.
        records
            The records.

        Returns
        -------
        dict
            What a document holds instead of its crystal, by the number of its record.
        """
        part = PLACES[collection]
        structures: dict[int, Structure] = {}
        for number, record in enumerate(records):
            structure = getattr(record, part).structure
            if structure is not None:
                structures[number] = structure
        if len(structures) < FEWEST:
            return {}
        numbers = list(structures)
        held: dict[int, Json] = {}
        for start in range(0, len(numbers), MOST):
            some = numbers[start : start + MOST]
            content = pack(structures[number] for number in some)
            sha256 = self._put(KIND, content, MEDIA_TYPE).sha256
            held |= {number: {KIND: sha256, "row": row} for row, number in enumerate(some)}
        return held

    def crystal(self, held: Json) -> Structure | None:
        """Return the crystal that a document names; None if this names none.

        Raises
        ------
        LedgerError
            If the file is not there, damaged, or of another version.
        """
        if KIND not in held:
            return None
        try:
            return self._file(held[KIND])[held["row"]]
        except (ColumnsError, IndexError, KeyError) as error:
            raise LedgerError(f"a crystal in the ledger cannot be read: {error}") from error

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
        return {**document, part: {**document[part], "structure": self.crystal(held)}}

    def _file(self, sha256: str) -> Crystals:
        known = self._files.found([sha256])
        if sha256 in known:
            return known[sha256]
        crystals = Crystals(self._path(sha256).read_bytes())
        self._files.keep({sha256: crystals}, {sha256: crystals.table.nbytes})
        return crystals
