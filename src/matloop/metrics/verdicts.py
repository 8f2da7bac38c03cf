"""What is found of one sample, and the rules that look at it alone or among its fellows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pymatgen.core import Structure

from matloop.structures import geometry
from matloop.structures.chemistry import is_charge_balanced
from matloop.structures.identity import IncomparableError, KnownIndex, Matcher
from matloop.structures.reading import Record
from matloop.structures.symmetry import SymmetryError, space_group

SHORTEST_DISTANCE = 0.5
"""Shortest distance (Å) between two sites of a structurally valid crystal, images included, whose
cell also has at least 0.1 Å^3 (`geometry.SMALLEST_VOLUME`): Xie et al., CDVAE, ICLR 2022."""

Notify = Callable[[int], None]


@dataclass
class Verdict:
    """What was found of one sample; None where it was not asked, or could not be answered.

    Attributes
    ----------
    name
        Unique name of the sample.
    formula
        Reduced formula; empty where nothing could be read.
    atoms
        Number of atoms.
    problem
        Why it could not be read, or is no crystal that can be computed; empty if neither.
    structural_validity, smact_validity, smact_validity_legacy
        Distances and volume; charge neutrality by the current and by the older rules of SMACT.
    unique, repeats
        Whether it matches no earlier sample, and the one it matches.
    novel, matches
        Whether it matches no reference crystal, and the one it matches.
    space_group
        Number of the space group.
    template
        Anonymous formula, space group and Wyckoff letters.
    density
        Mass density (g/cm^3).
    relaxed, relaxation
        Whether the relaxation converged to a structurally valid crystal, and what it said.
    first_energy, energy
        Energy as given and relaxed (eV/atom).
    energy_drop
        Energy set free by relaxing (eV/atom).
    formation_energy
        Formation energy as given, against the elements of the hull (eV/atom).
    rmsd
        Root mean square displacement of the atoms by relaxing (Å).
    e_above_hull
        Distance of the relaxed crystal to the hull of the reference (eV/atom).
    no_reference
        Elements without a reference, where there is no distance for lack of them.
    unique_relaxed, novel_relaxed
        As `unique` and `novel`, after relaxing and among the relaxed.
    """

    name: str
    formula: str = ""
    atoms: int = 0
    problem: str = ""
    structural_validity: bool = False
    smact_validity: bool = False
    smact_validity_legacy: bool = False
    unique: bool = False
    repeats: str = ""
    novel: bool = False
    matches: str = ""
    space_group: int | None = None
    template: str = ""
    density: float | None = None
    relaxed: bool | None = None
    relaxation: str = ""
    first_energy: float | None = None
    energy: float | None = None
    energy_drop: float | None = None
    formation_energy: float | None = None
    rmsd: float | None = None
    e_above_hull: float | None = None
    no_reference: str = ""
    unique_relaxed: bool | None = None
    novel_relaxed: bool | None = None


def judge_alone(
    records: Sequence[Record], symprec: float, notify: Notify = lambda done: None
) -> list[Verdict]:
    """Return what each sample shows by itself: validity, symmetry, density.

    Parameters
    ----------
    records
        The samples.
    symprec
        Tolerance within which symmetry is found (Å).
    notify
        Told how many are done.
    """
    verdicts = []
    for done, record in enumerate(records, 1):
        verdicts.append(_alone(record, symprec))
        notify(done)
    return verdicts


def structurally_valid(structure: Structure) -> bool:
    """Whether no two sites are closer than 0.5 Å and the cell has 0.1 Å^3 or more (CDVAE)."""
    if geometry.objection(structure) is not None:
        return False
    return geometry.closest_contact(structure).distance >= SHORTEST_DISTANCE


def mark_repeats(
    structures: Sequence[Structure | None], names: Sequence[str], matcher: Matcher
) -> list[tuple[bool, str]]:
    """Return for each structure whether it matches no earlier one, and the one it matches.

    A structure that is missing or cannot be compared is not unique.
    """
    index = KnownIndex(matcher)
    found = []
    for structure, name in zip(structures, names, strict=True):
        twin: str | None = ""
        unique = False
        if structure is not None:
            with suppress(IncomparableError):
                reduced = matcher.reduce(structure)
                twin = index.find(reduced)
                unique = twin is None
                if unique:
                    index.add(name, reduced)
        found.append((unique, twin or ""))
    return found


def mark_known(
    structures: Sequence[Structure | None],
    known: Iterable[tuple[str, Structure]],
    matcher: Matcher,
    notify: Notify = lambda done: None,
) -> list[tuple[bool, str]]:
    """Return for each structure whether it matches no known crystal, and the one it matches.

    A structure that is missing or cannot be compared is not novel.
    """
    index = KnownIndex(matcher, known)
    found = []
    for done, structure in enumerate(structures, 1):
        match: str | None = ""
        novel = False
        if structure is not None:
            with suppress(IncomparableError):
                match = index.find(structure)
                novel = match is None
        found.append((novel, match or ""))
        notify(done)
    return found


def _alone(record: Record, symprec: float) -> Verdict:
    verdict = Verdict(record.name, problem=record.problem)
    structure = record.structure
    if structure is None or not structure.is_ordered or not len(structure):
        return verdict
    verdict.formula = structure.composition.element_composition.reduced_formula
    verdict.atoms = len(structure)
    try:
        verdict.smact_validity = is_charge_balanced(structure.composition)
        verdict.smact_validity_legacy = is_charge_balanced(structure.composition, "smact14")
        verdict.structural_validity = structurally_valid(structure)
    except Exception as error:  # an element that no table knows
        verdict.problem = verdict.problem or f"cannot be judged: {type(error).__name__}: {error}"
        return verdict
    if geometry.objection(structure) is not None:
        return verdict
    verdict.density = geometry.density(structure)
    with suppress(SymmetryError):
        group = space_group(structure, symprec)
        verdict.space_group = group.number
        anonymous = structure.composition.element_composition.anonymized_formula
        letters = group.wyckoff_sequence.replace(" ", "")
        verdict.template = f"{anonymous}_{group.number}_{letters}"
    return verdict
