"""Samples relaxed and placed on the hull: energies, displacements, stable, unique and novel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from matloop.documents.evaluation import Evaluation
from matloop.metrics.hull import Judge, Notify, ReferenceHull, reference_hull
from matloop.metrics.reference import Reference
from matloop.metrics.verdicts import Verdict, mark_known, mark_repeats, structurally_valid
from matloop.structures import geometry
from matloop.structures.identity import Matcher
from matloop.structures.phase_diagram import Hull

METASTABLE = 0.1
"""Distance to the hull (eV/atom) up to which a crystal above it counts as metastable."""

ROUNDING = 1e-6
"""Distance to the hull (eV/atom) that is rounding: a reference crystal lies on its own hull."""

DISPLACEMENT = (0.5, 1.0, 10.0)
"""Tolerances (ltol, stol, degrees) within which a crystal is laid over its relaxed self: wide, so
that a mapping is found. As in Zeni et al., MatterGen, Nature 2025."""


def judge_energies(
    verdicts: Sequence[Verdict],
    structures: Mapping[str, Structure],
    reference: Reference,
    judge: Judge,
    matcher: Matcher,
    notify: Notify,
) -> ReferenceHull:
    """Relax samples, place them on the hull of the reference, and write it into their verdicts.

    A sample that cannot be relaxed, does not converge, or ends with two atoms on top of each other
    has failed; it is neither stable nor unique nor novel.

    Parameters
    ----------
    verdicts
        One per sample; completed here.
    structures
        Crystals of the samples that can be measured, by name.
    reference
        Known crystals.
    judge
        What relaxes samples and references.
    matcher
        Decides what is the same.
    notify
        Told of progress.

    Returns
    -------
    ReferenceHull
        The hull, at the judge's level of theory.
    """
    evaluations = judge.relax(structures, "samples", notify)
    ends: list[Structure | None] = []
    for done, verdict in enumerate(verdicts, 1):
        found = evaluations.get(verdict.name)
        end = _end(verdict, found)
        ends.append(end)
        if end is not None:
            verdict.rmsd = displacement(structures[verdict.name], end)
        notify("compare with the relaxed", done, len(verdicts))
    systems = {frozenset(map(str, end.composition.elements)) for end in ends if end is not None}
    found_hull = reference_hull(reference, systems, judge, notify)
    names = [verdict.name for verdict in verdicts]
    formulas = {end.composition.reduced_formula for end in ends if end is not None}
    repeats = mark_repeats(ends, names, matcher)
    known = mark_known(ends, reference.with_formulas(formulas), matcher)
    for verdict, end, (unique, _), (novel, _) in zip(verdicts, ends, repeats, known, strict=True):
        verdict.unique_relaxed, verdict.novel_relaxed = unique, novel
        if end is not None:
            _place(verdict, end, found_hull)
    return found_hull


def is_stable(verdict: Verdict) -> bool:
    """Whether a sample lies on the hull or below."""
    return verdict.e_above_hull is not None and verdict.e_above_hull <= ROUNDING


def is_metastable(verdict: Verdict) -> bool:
    """Whether a sample lies above the hull by at most 0.1 eV/atom."""
    return (
        verdict.e_above_hull is not None
        and ROUNDING < verdict.e_above_hull <= METASTABLE + ROUNDING
    )


def is_new(verdict: Verdict) -> bool:
    """Whether a relaxed sample is unique and novel."""
    return bool(verdict.unique_relaxed and verdict.novel_relaxed)


def displacement(structure: Structure, relaxed: Structure) -> float | None:
    """Return the root mean square displacement by which two crystals differ (Å).

    One is laid over the other as well as it can be, cells included. None where no mapping is found.
    """
    if any(geometry.objection(s) is not None for s in (structure, relaxed)):
        return None
    ltol, stol, angle_tol = DISPLACEMENT
    matcher = StructureMatcher(
        ltol=ltol, stol=stol, angle_tol=angle_tol, primitive_cell=False, scale=False
    )
    with suppress(ValueError, np.linalg.LinAlgError, ZeroDivisionError, IndexError, MemoryError):
        found = matcher.get_rms_dist(structure, relaxed)
        if found is not None:
            # Normalised by the mean of the two cells; a length again.
            volume = (structure.volume + relaxed.volume) / 2
            return float(found[0] * (volume / len(structure)) ** (1 / 3))
    return None


def formation_energy(hull: Hull, structure: Structure, energy: float) -> float | None:
    """Return the energy against the elements of the hull (eV/atom); None where one is missing."""
    if hull.missing(str(element) for element in structure.composition.elements):
        return None
    return hull.formation_energy(structure.composition, energy)


def _end(verdict: Verdict, found: Evaluation | None) -> Structure | None:
    verdict.relaxed = False
    if found is None:
        verdict.relaxation = verdict.problem or "it is no crystal that can be relaxed"
        return None
    verdict.relaxation = found.reason
    energy = found.quantities.get("energy_per_atom")
    drop = found.quantities.get("relaxation_drop")
    if energy is not None and drop is not None:
        verdict.first_energy = energy.value + drop.value
    if found.verdict != "pass" or found.structure is None or energy is None or drop is None:
        return None
    if not structurally_valid(found.structure):
        verdict.relaxation = f"{found.reason}, but sites lie on top of each other"
        return None
    verdict.relaxed = True
    verdict.energy, verdict.energy_drop = energy.value, drop.value
    return found.structure


def _place(verdict: Verdict, end: Structure, reference: ReferenceHull) -> None:
    missing = reference.missing(str(element) for element in end.composition.elements)
    verdict.no_reference = " ".join(missing)
    if missing or verdict.energy is None or verdict.first_energy is None:
        return
    verdict.e_above_hull = reference.hull.distance(
        end.composition, verdict.energy, reference.theory
    )
    verdict.formation_energy = formation_energy(reference.hull, end, verdict.first_energy)
