"""A user's own entries as reference phases, at their own level of theory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pymatgen.core import Composition

from matloop.documents.phase import Phase, PhaseSet
from matloop.documents.reference import ReferenceEntry
from matloop.errors import ConfigurationError
from matloop.structures.entries import Entry
from matloop.structures.entry_files import read_entries
from matloop.structures.mixing import mix
from matloop.structures.reading import SetAside, objection
from matloop.structures.theories import one_theory


class Imported(NamedTuple):
    """What an importer found.

    Attributes
    ----------
    entries
        Reference phases with their energies, in a fixed order.
    set_aside
        What could not be used, with reasons.
    """

    entries: list[ReferenceEntry]
    set_aside: list[SetAside]


def entries_from_file(path: Path, *, mixing: str | None = None) -> Imported:
    """Return the phases of a JSON file of `ComputedStructureEntry`.

    Parameters
    ----------
    path
        The file: a list or a named mapping of entries, also compressed (``.json.gz``).
    mixing
        Name of the scheme that puts all energies on one scale; without one each entry keeps its
        own level of theory and the corrections it came with.

    Raises
    ------
    ConfigurationError
        If the file or an entry cannot be read, or holds formation energies.
    """
    table = read_entries(path)
    if table.formation:
        raise ConfigurationError(
            f"{path} holds formation energies without crystals; reference phases need "
            "ComputedStructureEntry JSON"
        )
    return reference_entries(table.entries, source=str(path), mixing=mixing)


def reference_entries(
    entries: Sequence[Entry], *, source: str, database_version: str = "", mixing: str | None = None
) -> Imported:
    """Turn rows of a table into reference phases.

    Parameters
    ----------
    entries
        The rows; those without an ordered crystal are set aside.
    source, database_version
        Where they are from.
    mixing
        Name of the scheme that puts all energies on one scale, or None.

    Raises
    ------
    ConfigurationError
        If the scheme cannot treat these entries.
    """
    set_aside: list[SetAside] = []
    usable = []
    for entry in entries:
        try:
            structure = entry.structure()
        except ConfigurationError as error:
            set_aside.append(SetAside(entry.name, str(error)))
            continue
        if structure is None:
            set_aside.append(SetAside(entry.name, "it has no structure"))
            continue
        structure.remove_oxidation_states()
        reason = objection(structure)
        if reason is None and not _same_formula(structure.composition, entry):
            reason = f"its structure is {structure.composition.reduced_formula}"
        if reason:
            set_aside.append(SetAside(entry.name, reason))
        else:
            usable.append((entry, structure))
    energies: list[float | None] = [entry.energy for entry, _ in usable]
    theories = [entry.theory for entry, _ in usable]
    if mixing is not None and usable:
        mixed = mix([entry.computed() for entry, _ in usable], mixing)
        energies, theories = list(mixed.energies), [mixed.theory] * len(usable)
        set_aside += [
            SetAside(entry.name, reason)
            for (entry, _), reason in zip(usable, mixed.reasons, strict=True)
            if reason
        ]
    found = [
        ReferenceEntry(
            entry_id=entry.entry_id,
            structure=structure,
            energy=energy,
            theory=theory,
            source=source,
            database_version=database_version,
        )
        for (entry, structure), energy, theory in zip(usable, energies, theories, strict=True)
        if energy is not None
    ]
    return Imported(found, set_aside)


def phase_set(entries: Sequence[ReferenceEntry]) -> PhaseSet:
    """Return the phases of one hull.

    Parameters
    ----------
    entries
        Reference phases; at least one.

    Raises
    ------
    TheoryMismatchError
        If their levels of theory differ; names two of them, where they differ, and the scheme that
        would be right.
    """
    theory = one_theory((_named(entry), entry.theory) for entry in entries)
    return PhaseSet(
        theory=theory,
        phases=tuple(
            Phase(
                phase_id=entry.entry_id,
                structure=entry.structure,
                energy=entry.energy,
                theory=theory,
            )
            for entry in entries
        ),
    )


def _named(entry: ReferenceEntry) -> str:
    return f"{entry.entry_id} ({entry.structure.composition.reduced_formula})"


def _same_formula(composition: Composition, entry: Entry) -> bool:
    stated = entry.composition.element_composition
    return bool(composition.element_composition.reduced_formula == stated.reduced_formula)
