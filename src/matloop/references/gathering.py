"""The known crystals of one campaign: phases of its hull, withheld ones, and templates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Structure

from matloop.documents.campaign import References
from matloop.documents.phase import Known
from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError, MissingReferenceError, Mistake
from matloop.references import embedded
from matloop.references.materials_project import Client, fetch
from matloop.structures.reading import SetAside, read_structures, unique_name
from matloop.structures.symmetry import space_group


@dataclass(frozen=True)
class ReferenceSet:
    """What a campaign knows before it starts; ids are unique over all of it.

    Attributes
    ----------
    phases
        Crystals inside the space's elements that span the hull, elements first.
    withheld
        Crystals inside the space that only the report may know.
    templates
        Crystals of other chemical systems that substitution may start from: as many elements and
        atoms as the space allows; never a withheld one.
    set_aside
        Files and records that could not be used, with reasons.
    """

    phases: tuple[Known, ...]
    withheld: tuple[Known, ...]
    templates: tuple[Known, ...]
    set_aside: tuple[SetAside, ...] = ()


def gather(
    references: References, space: ChemicalSpace, base: Path, *, client: Client | None = None
) -> ReferenceSet:
    """Collect the known crystals of a campaign from all the sources it names.

    Where two sources hold the same crystal, the user's file wins over the Materials Project, and
    both over the embedded set.

    Parameters
    ----------
    references
        Sources, and what to withhold.
    space
        Chemical space; denied elements need no reference.
    base
        Folder from which relative paths in `references.files` are counted.
    client
        Client of the Materials Project; by default one is made when the campaign asks for it.

    Raises
    ------
    ConfigurationError
        If a file does not exist, or a withheld formula is none, lies outside the space, or is that
        of no reference phase.
    MissingDependencyError
        If the Materials Project is asked for and its package is not installed.
    MissingReferenceError
        Naming the elements of the space without an elemental phase.
    """
    withheld_formulas = _withheld_formulas(references, space)
    read = read_structures([base / Path(file).expanduser() for file in references.files])
    known = list(read.crystals)
    set_aside = list(read.set_aside)
    if references.materials_project:
        fetched = fetch(space.allowed, space.most_elements, client=client)
        known += fetched.crystals
        set_aside += fetched.set_aside
    extra = len(known)
    if references.embedded:
        known += [
            entry.known
            for entry in embedded.entries()
            if references.templates or _inside(entry.composition, space)
        ]
    distinct = _named(_distinct(known, extra))

    phases, withheld, templates = [], [], []
    for crystal in distinct:
        composition = crystal.structure.composition
        if not _inside(composition, space):
            if not references.templates:
                set_aside.append(SetAside(crystal.source, "it lies outside the chemical space"))
            elif _fits(crystal.structure, space):
                templates.append(crystal)
        elif (
            references.max_elements is not None and len(composition) > references.max_elements
        ) or composition.reduced_formula in withheld_formulas:
            withheld.append(crystal)
        else:
            phases.append(crystal)
    _require_withheld(withheld, withheld_formulas, phases)
    _require_elements(phases, references, space)
    return ReferenceSet(
        tuple(sorted(phases, key=_rank)),
        tuple(sorted(withheld, key=_rank)),
        tuple(templates),
        tuple(set_aside),
    )


def _withheld_formulas(references: References, space: ChemicalSpace) -> set[str]:
    formulas: set[str] = set()
    mistakes: list[Mistake] = []
    for index, text in enumerate(references.withhold):
        field = f"references.withhold[{index}]"
        try:
            composition = Composition(text)
        except ValueError:
            mistakes.append(Mistake(field, f"{text!r} is no formula; write one such as SrTiO3"))
            continue
        if not _inside(composition, space) or not composition:
            allowed = ", ".join(space.allowed)
            mistakes.append(Mistake(field, f"{text} lies outside the chemical space ({allowed})"))
        formulas.add(composition.reduced_formula)
    if mistakes:
        raise ConfigurationError(mistakes)
    return formulas


def _require_withheld(
    withheld: Sequence[Known], formulas: set[str], phases: Sequence[Known]
) -> None:
    """Refuse a formula that withholds nothing: a slip such as SrTi03 would show what it hides."""
    unmatched = formulas - {c.structure.composition.reduced_formula for c in withheld}
    if unmatched:
        known = {c.structure.composition.reduced_formula for c in (*withheld, *phases)}
        raise ConfigurationError(
            [
                Mistake(
                    "references.withhold",
                    f"no reference phase is {formula}; there are {', '.join(sorted(known))}",
                )
                for formula in sorted(unmatched)
            ]
        )


def _inside(composition: Composition, space: ChemicalSpace) -> bool:
    return {str(element) for element in composition.elements} <= set(space.allowed)


def _fits(structure: Structure, space: ChemicalSpace) -> bool:
    """Whether exchanging elements one for one can bring a crystal into the space."""
    fewest = max(2, space.min_elements)
    return (
        fewest <= len(structure.composition) <= space.most_elements
        and len(structure) <= space.max_atoms
    )


def _distinct(known: Sequence[Known], extra: int) -> list[Known]:
    """Drop crystals that an earlier source already holds.

    The embedded set, from position `extra` on, is free of duplicates, so it is not compared with
    itself. Polymorphs of one formula may differ by a small distortion only (perovskites): crystals
    are the same when a tight matcher says so and their space groups agree.
    """
    matcher = StructureMatcher(ltol=0.1, stol=0.15, angle_tol=3)
    kept: list[Known] = []
    by_formula: dict[str, list[tuple[Known, int]]] = defaultdict(list)
    for index, crystal in enumerate(known):
        formula = crystal.structure.composition.reduced_formula
        rivals = [rival for rival, place in by_formula[formula] if min(place, index) < extra]
        if any(_same(matcher, crystal.structure, rival.structure) for rival in rivals):
            continue
        by_formula[formula].append((crystal, index))
        kept.append(crystal)
    return kept


def _same(matcher: StructureMatcher, one: Structure, other: Structure) -> bool:
    groups = {space_group(crystal, symprec=0.01).number for crystal in (one, other)}
    return len(groups) == 1 and bool(matcher.fit(one, other))


def _named(known: Iterable[Known]) -> list[Known]:
    taken: set[str] = set()
    return [
        crystal.model_copy(update={"known_id": unique_name(crystal.known_id, taken)})
        for crystal in known
    ]


def _require_elements(
    phases: Sequence[Known], references: References, space: ChemicalSpace
) -> None:
    have = {
        str(phase.structure.composition.elements[0])
        for phase in phases
        if len(phase.structure.composition) == 1
    }
    missing = [element for element in space.allowed if element not in have]
    if not missing:
        return
    named = ", ".join(
        f"{element} ({embedded.LEFT_OUT[element]})" if element in embedded.LEFT_OUT else element
        for element in missing
    )
    advice = ["name a structure file of each in references.files"]
    if not references.embedded and any(e not in embedded.LEFT_OUT for e in missing):
        advice.append("set references.embedded to true")
    advice.append("leave them out with space.deny")
    raise MissingReferenceError(
        f"no elemental reference for {named}: the hull needs the pure element; "
        + ", or ".join(advice)
    )


def _rank(crystal: Known) -> tuple[int, str, str]:
    composition = crystal.structure.composition
    return len(composition), composition.reduced_formula, crystal.known_id
