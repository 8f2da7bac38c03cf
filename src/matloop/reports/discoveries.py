"""Which candidates are discoveries, and which withheld phases the campaign found again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from matloop.documents.candidate import Quantity
from matloop.documents.phase import Archive, PhaseSet
from matloop.reports.contents import Finding, Rediscovery, Spent
from matloop.reports.history import MATCHER, Followed, History
from matloop.reports.stability import Energies
from matloop.structures.identity import KnownIndex
from matloop.structures.matching import IncomparableError, Reduced
from matloop.structures.symmetry import SymmetryError, space_group

SYMPREC = 0.1
"""Distance within which sites count as equivalent (Å), for the space group of a relaxed crystal."""

OTHERS = 30
"""Most crystals shown besides the discoveries."""


@dataclass(frozen=True)
class Verdicts:
    """What the campaign found.

    Attributes
    ----------
    discoveries
        Ids, in the order they were made.
    duplicates
        Ids of those that match an earlier discovery.
    known_again, superseded
        Candidates that met the criterion when judged but match a reference phase, or no longer
        meet it on the final hull.
    """

    discoveries: tuple[str, ...]
    duplicates: tuple[str, ...]
    known_again: int
    superseded: int


class Crystals:
    """Crystals that can be asked for a match; what cannot be compared matches nothing."""

    def __init__(self, crystals: Iterable[tuple[str, Structure]] = ()) -> None:
        listed = list(crystals)
        self._index = KnownIndex(MATCHER, listed)
        self._count = len(listed)
        self.formulas = frozenset(_formula(structure) for _, structure in listed)

    def __len__(self) -> int:
        """Return how many crystals it was given at first."""
        return self._count

    def add(self, name: str, crystal: Structure | Reduced | None) -> None:
        """Add a crystal; None stands for one that cannot be compared."""
        if crystal is not None:
            with suppress(IncomparableError):
                self._index.add(name, crystal)

    def match(self, crystal: Structure | Reduced | None) -> str | None:
        """Return the name of the first crystal that matches, None if there is none."""
        if crystal is None:
            return None
        try:
            return self._index.find(crystal)
        except IncomparableError:
            return None


def judge(history: History, references: Crystals, energies: Energies) -> Verdicts:
    """Return the discoveries: passed the last stage, meet the criterion, new and distinct.

    The criterion must hold with the quantities as they were judged and again with the distance to
    the final hull.
    """
    objective = history.record.campaign.objective
    last = history.record.campaign.stages[-1].name
    seen = Crystals()
    discoveries: list[str] = []
    duplicates: list[str] = []
    known_again = superseded = 0
    for item in history.candidates:
        quantities = item.final.quantities
        if not item.passed(last) or not objective.is_discovery(quantities):
            continue
        if references.match(item.reduced) is not None:
            known_again += 1
        elif not objective.is_discovery(energies.refreshed(item)):
            superseded += 1
        elif seen.match(item.reduced) is not None:
            duplicates.append(item.candidate_id)
        else:
            discoveries.append(item.candidate_id)
            seen.add(item.candidate_id, item.reduced)
    return Verdicts(tuple(discoveries), tuple(duplicates), known_again, superseded)


def findings(
    history: History,
    verdicts: Verdicts,
    references: Crystals,
    withheld: Crystals,
    energies: Energies,
    sums: Sequence[Spent],
) -> tuple[Finding, ...]:
    """Return the discoveries in order, then the best others: distinct, new, feasible, relaxed."""
    by_id = {
        item.candidate_id: (item, spent)
        for item, spent in zip(history.candidates, sums, strict=True)
    }
    utilities = utilities_of(history, energies)
    shown = Crystals()
    made = []
    for name in verdicts.discoveries:
        item, spent = by_id[name]
        shown.add(item.candidate_id, item.reduced)
        made.append(_finding(item, spent, True, references, withheld, energies, history, utilities))
    objective = history.record.campaign.objective
    ranked: list[tuple[bool, float, str]] = []
    for item in history.candidates:
        quantities = energies.refreshed(item)
        utility = utilities.get(item.candidate_id)
        if item.relaxed and utility is not None and objective.violated(quantities) is None:
            unconfirmed = len(history.levels) > 1 and energies.energy(item) is None
            ranked.append((unconfirmed, -utility, item.candidate_id))
    for _, _, name in sorted(ranked):
        if len(made) >= len(verdicts.discoveries) + OTHERS:
            break
        item, spent = by_id[name]
        if shown.match(item.reduced) is None and references.match(item.reduced) is None:
            shown.add(item.candidate_id, item.reduced)
            made.append(
                _finding(item, spent, False, references, withheld, energies, history, utilities)
            )
    return tuple(made)


def utilities_of(history: History, energies: Energies) -> dict[str, float]:
    """Return the utility of every candidate that has one, by id, on the final hull.

    With several goals it is less the number of relaxed candidates that dominate it.
    """
    objective = history.record.campaign.objective
    if not objective.several:
        found = {
            i.candidate_id: objective.utility(energies.refreshed(i)) for i in history.candidates
        }
        return {name: utility for name, utility in found.items() if utility is not None}
    relaxed = [item for item in history.candidates if item.relaxed]
    ranks = objective.utilities_of([energies.refreshed(item) for item in relaxed])
    pairs = zip(relaxed, ranks.tolist(), strict=True)
    return {item.candidate_id: rank for item, rank in pairs if not math.isnan(rank)}


def rediscoveries(
    history: History,
    withheld: Archive,
    verdicts: Verdicts,
    energies: Energies,
    sums: Sequence[Spent],
) -> tuple[Rediscovery, ...]:
    """Return one row per withheld phase, with the best relaxed candidate that matches it.

    A discovery goes before any other match, then the least distance to the final hull decides.
    """
    matcher = StructureMatcher(MATCHER.ltol, MATCHER.stol, MATCHER.angle_tol)
    rows = []
    for known in withheld.crystals:
        alone = Crystals([(known.known_id, known.structure)])
        base = Rediscovery(
            phase_id=known.known_id,
            formula=_formula(known.structure),
            source=known.source,
            space_group=symmetry(known.structure)[0],
        )
        best: tuple[tuple[bool, float, int], Rediscovery] | None = None
        for number, item in enumerate(history.candidates):
            if not item.relaxed or alone.match(item.reduced) is None:
                continue
            match = matcher.get_rms_dist(item.final.structure, known.structure)
            distance = energies.above_hull(item)
            discovery = item.candidate_id in verdicts.discoveries
            rank = (not discovery, distance if distance is not None else float("inf"), number)
            found = base.model_copy(
                update={
                    "candidate_id": item.candidate_id,
                    "discovery": discovery,
                    "rms": float(match[0]) if match is not None else None,
                    "e_above_hull": distance,
                    "iteration": item.record.iteration,
                    "relaxations": sums[number].relaxations,
                }
            )
            if best is None or rank < best[0]:
                best = (rank, found)
        rows.append(best[1] if best else base)
    return tuple(rows)


def reference_crystals(*hulls: PhaseSet | None) -> Crystals:
    """Return the reference phases of one or more hulls, found phases left out.

    A phase that several levels of theory know is taken once.
    """
    known: dict[str, Structure] = {}
    for phases in hulls:
        for phase in phases.phases if phases is not None else ():
            if phase.source == "reference":
                known.setdefault(phase.phase_id, phase.structure)
    return Crystals(known.items())


def symmetry(structure: Structure) -> tuple[str, int]:
    """Return symbol and number of the space group; ("", 0) if none is found."""
    try:
        found = space_group(structure, SYMPREC)
    except SymmetryError:
        return "", 0
    return found.symbol, found.number


def _finding(
    item: Followed,
    spent: Spent,
    discovery: bool,
    references: Crystals,
    withheld: Crystals,
    energies: Energies,
    history: History,
    utilities: Mapping[str, float],
) -> Finding:
    structure = item.final.structure
    quantities: dict[str, Quantity] = dict(item.final.quantities)
    symbol, number = symmetry(structure)
    formula = _formula(structure)
    matched = withheld.match(item.reduced)
    same_formula = formula in references.formulas | withheld.formulas
    distance = quantities.get("e_above_hull")
    lower = item.lowest.quantities.get("e_above_hull")
    origin = item.record.candidate.origin
    return Finding(
        candidate_id=item.candidate_id,
        formula=formula,
        structure=structure,
        space_group=symbol,
        space_group_number=number,
        discovery=discovery,
        fate=item.fate,
        utility=utilities.get(item.candidate_id),
        e_above_hull=distance.value if distance is not None else None,
        e_above_hull_final=energies.above_hull(item),
        e_above_hull_lower=lower.value if lower is not None and item.levels else None,
        quantities=quantities,
        predicted=dict(item.predicted),
        novelty="withheld" if matched else "polymorph" if same_formula else "composition",
        matches=matched or "",
        generator=origin.generator,
        operator=origin.parameters,
        parents=origin.parents,
        iteration=item.record.iteration,
        found_after=spent,
    )


def _formula(structure: Structure) -> str:
    return str(structure.composition.reduced_formula)
