"""A known crystal with its energy, at the level of theory it was computed with."""

from __future__ import annotations

from matloop.documents.base import Crystal, Document
from matloop.documents.theory import LevelOfTheory


class ReferenceEntry(Document):
    """One reference phase as a database or a user gives it.

    Attributes
    ----------
    entry_id
        Its id where it is from, unique within one import.
    structure
        Its crystal, relaxed at `theory`.
    energy
        Total energy (eV/atom), corrections included.
    theory
        Level of theory of `energy`.
    source
        Where it is from: a file, a collection, a database. Never an address with a password.
    database_version
        Version of the database at the time; empty where there is none.
    """

    entry_id: str
    structure: Crystal
    energy: float
    theory: LevelOfTheory
    source: str
    database_version: str = ""
