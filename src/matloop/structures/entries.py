"""Tables of energies, and which of them may share a hull."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pymatgen.core import Composition, Structure
from pymatgen.core.entries import ComputedEntry, ComputedStructureEntry

from matloop.documents.theory import LevelOfTheory
from matloop.errors import ConfigurationError
from matloop.structures.mixing import mix, require_scheme
from matloop.structures.phase_diagram import Point
from matloop.structures.reading import SetAside, unique_name
from matloop.structures.theories import one_theory


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    Attributes
    ----------
    entry_id
        Its id, unique within the table.
    composition
        Its composition.
    energy
        Formation energy, or total energy with the corrections it came with (eV/atom).
    theory
        Level of theory it states.
    raw
        The computed entry as it stood in the file; None for a row of a CSV table.
    """

    entry_id: str
    composition: Composition
    energy: float
    theory: LevelOfTheory
    raw: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Id and formula, as errors call it."""
        formula = self.composition.reduced_formula
        return formula if self.entry_id == formula else f"{self.entry_id} ({formula})"

    def computed(self) -> ComputedEntry:
        """Return the computed entry without corrections, with its crystal where it has one.

        Raises
        ------
        ConfigurationError
            If the row is a formation energy, or its crystal cannot be read.
        """
        if self.raw is None:
            raise ConfigurationError(
                f"{self.name} is a formation energy: mixing schemes need total energies, as "
                "ComputedEntry JSON"
            )
        parts = {
            "parameters": dict(self.raw.get("parameters") or {}),
            "data": dict(self.raw.get("data") or {}),
            "entry_id": self.entry_id,
        }
        energy = float(self.raw["energy"])
        structure = self.structure()
        if structure is None:
            return ComputedEntry(self.composition, energy, **parts)
        return ComputedStructureEntry(structure, energy, composition=self.composition, **parts)

    def structure(self) -> Structure | None:
        """Return the crystal of the entry; None where it has none.

        Raises
        ------
        ConfigurationError
            If it cannot be read.
        """
        content = (self.raw or {}).get("structure")
        if content is None:
            return None
        try:
            return Structure.from_dict(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(
                f"{self.name}: its structure cannot be read ({type(error).__name__})"
            ) from None


@dataclass(frozen=True)
class EntryTable:
    """A table of energies.

    Attributes
    ----------
    source
        The file.
    entries
        Its rows, in order.
    formation
        Whether energies are formation energies, so that elements are zero by definition.
    """

    source: Path
    entries: tuple[Entry, ...]
    formation: bool


class Comparable(NamedTuple):
    """Energies that may share a hull.

    Attributes
    ----------
    entries, candidates
        Phases of both tables.
    theory
        The one level of theory of all.
    left_out
        Entries that the mixing scheme does not place, with reasons.
    """

    entries: tuple[Point, ...]
    candidates: tuple[Point, ...]
    theory: LevelOfTheory
    left_out: tuple[SetAside, ...] = ()


def comparable(
    entries: EntryTable, candidates: EntryTable | None = None, mixing: str | None = None
) -> Comparable:
    """Make sure that energies may share a hull, or put them on one scale by a named scheme.

    Parameters
    ----------
    entries
        The known phases.
    candidates
        Phases to place among them.
    mixing
        Name of a published scheme; None refuses whatever is not of one level of theory.

    Raises
    ------
    TheoryMismatchError
        If there are two levels of theory and no scheme was asked for; names one energy of each.
    ConfigurationError
        If the scheme cannot treat these entries.
    """
    known = entries.entries
    tried = candidates.entries if candidates else ()
    if mixing is None:
        theory = one_theory((entry.name, entry.theory) for entry in (*known, *tried))
        points = [Point(e.entry_id, e.composition, e.energy) for e in (*known, *tried)]
        return Comparable(tuple(points[: len(known)]), tuple(points[len(known) :]), theory)
    require_scheme(mixing)
    mixed = mix(_apart(known, tried), mixing)
    placed: list[Point | None] = []
    left_out = []
    for entry, energy, reason in zip((*known, *tried), mixed.energies, mixed.reasons, strict=True):
        if energy is None:
            left_out.append(SetAside(entry.name, reason))
        placed.append(None if energy is None else Point(entry.entry_id, entry.composition, energy))
    if not any(placed[: len(known)]):
        first = left_out[0]
        raise ConfigurationError(
            f"{mixing} leaves out all entries of {entries.source}; {first.name}: {first.reason}"
        )
    return Comparable(
        tuple(point for point in placed[: len(known)] if point),
        tuple(point for point in placed[len(known) :] if point),
        mixed.theory,
        tuple(left_out),
    )


def _apart(known: Sequence[Entry], tried: Sequence[Entry]) -> list[ComputedEntry]:
    # Schemes tell entries apart by id, and both tables may use the same.
    taken: set[str] = set()
    computed = []
    for entry in (*known, *tried):
        one = entry.computed()
        one.entry_id = unique_name(entry.entry_id, taken)
        computed.append(one)
    return computed
