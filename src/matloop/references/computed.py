"""Reference phases that come with an energy, from every source a campaign names."""

from __future__ import annotations

from pathlib import Path

from pymatgen.core import Composition

from matloop.documents.campaign import References
from matloop.documents.reference import ReferenceEntry
from matloop.documents.space import ChemicalSpace
from matloop.references.entries import Imported, entries_from_file
from matloop.references.materials_project import Client, fetch_entries
from matloop.references.tasks import tasks_from_mongodb
from matloop.structures.reading import SetAside


def computed(
    references: References, space: ChemicalSpace, *, client: Client | None = None
) -> Imported:
    """Return the phases inside a space whose energies are given, each at its own level of theory.

    What the campaign withholds is withheld here too.

    Parameters
    ----------
    references
        Files of entries, collections of task documents, and the Materials Project.
    space
        The chemical space.
    client
        Client of the Materials Project; by default one is made when the campaign asks for it.

    Raises
    ------
    ConfigurationError
        If a source cannot be read.
    MissingDependencyError
        If the Materials Project is asked for and its package is not installed.
    """
    imports = [entries_from_file(Path(file)) for file in references.entries]
    imports += [
        tasks_from_mongodb(
            tasks.database,
            tasks.collection,
            uri_variable=tasks.uri_variable,
            mixing=tasks.mixing,
        )
        for tasks in references.tasks
    ]
    if references.materials_project:
        imports.append(fetch_entries(space.allowed, space.most_elements, client=client))
    set_aside: list[SetAside] = [item for some in imports for item in some.set_aside]
    withheld = {Composition(formula).reduced_formula for formula in references.withhold}
    entries = [
        entry
        for some in imports
        for entry in some.entries
        if _inside(entry, space) and not _is_withheld(entry, references, withheld)
    ]
    return Imported(entries, set_aside)


def _inside(entry: ReferenceEntry, space: ChemicalSpace) -> bool:
    elements = {str(element) for element in entry.structure.composition.elements}
    return elements <= set(space.allowed)


def _is_withheld(entry: ReferenceEntry, references: References, formulas: set[str]) -> bool:
    composition = entry.structure.composition
    most = references.max_elements
    return (most is not None and len(composition) > most) or (
        composition.reduced_formula in formulas
    )
