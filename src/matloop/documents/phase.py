"""Known crystals: phases that span a convex hull at one level of theory, and archives."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import model_validator

from matloop.documents.base import Crystal, Document
from matloop.documents.candidate import Candidate
from matloop.documents.theory import LevelOfTheory
from matloop.errors import TheoryMismatchError


class Packed(Document):
    """A document that is stored as an artifact: compressed JSON, equal bytes for equal content."""

    def to_bytes(self) -> bytes:
        """Return the document as bytes."""
        return gzip.compress(self.model_dump_json().encode(), compresslevel=6, mtime=0)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return the document held by bytes."""
        return cls.model_validate_json(gzip.decompress(content))


class Known(Document):
    """A crystal without an energy.

    Attributes
    ----------
    known_id
        Candidate id, or the name of a reference.
    structure
        The crystal.
    source
        Where it is from: a citation, a file, or ``campaign``.
    """

    known_id: str
    structure: Crystal
    source: str = ""


class Archive(Packed):
    """Crystals without energies, such as those a campaign has already paid for.

    Attributes
    ----------
    crystals
        Crystals.
    segments
        Sha256 of the artifacts that hold further ones, prepared for comparison and earlier than
        `crystals`: see `matloop.structures.segments`.
    """

    crystals: tuple[Known, ...] = ()
    segments: tuple[str, ...] = ()


class Phase(Document):
    """One phase with its energy.

    Attributes
    ----------
    phase_id
        Candidate id of a found phase, or the name of a reference.
    structure
        Its crystal, relaxed at `theory`.
    energy
        Energy (eV/atom) at `theory`.
    theory
        Level of theory of `energy`.
    source
        ``reference`` for what was given, ``found`` for what the campaign discovered.
    """

    phase_id: str
    structure: Crystal
    energy: float
    theory: LevelOfTheory
    source: Literal["reference", "found"] = "reference"


class PhaseSet(Packed):
    """The phases of one hull.

    Raises
    ------
    TheoryMismatchError
        If a phase has another level of theory than the set.
    """

    theory: LevelOfTheory
    phases: tuple[Phase, ...]

    @model_validator(mode="after")
    def _one_level_of_theory(self) -> PhaseSet:
        for phase in self.phases:
            if phase.theory.key != self.theory.key:
                raise TheoryMismatchError(
                    f"phase {phase.phase_id} was computed with {phase.theory.key}, this hull is "
                    f"{self.theory.key}: recompute the phase with the same method"
                )
        return self

    def grown(self, candidates: Iterable[Candidate]) -> PhaseSet:
        """Return the set with those candidates that belong on its hull, as found phases.

        Such a candidate has an ``energy_per_atom`` of the set's level of theory and an
        ``e_above_hull`` of at most 0, and is not in the set already.
        """
        known = {phase.phase_id for phase in self.phases}
        found = []
        for candidate in candidates:
            energy = candidate.quantities.get("energy_per_atom")
            distance = candidate.quantities.get("e_above_hull")
            if candidate.candidate_id in known or energy is None or distance is None:
                continue
            if distance.value <= 0 and energy.theory == self.theory.key:
                found.append(
                    Phase(
                        phase_id=candidate.candidate_id,
                        structure=candidate.structure,
                        energy=energy.value,
                        theory=self.theory,
                        source="found",
                    )
                )
        return PhaseSet(theory=self.theory, phases=(*self.phases, *found))
