"""Whether a crystal is new to its batch, to the campaign and to the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from monty.json import MSONable

from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.evaluation import Evaluation
from matloop.evaluators.artifacts import Source, archive_index, phase_set, source
from matloop.evaluators.isolation import Finding, judge_each
from matloop.protocols import Resources
from matloop.structures.identity import KnownIndex
from matloop.structures.matching import IncomparableError, Matcher


@dataclass(frozen=True)
class _Matching(MSONable):
    """Compares crystals as pymatgen's `StructureMatcher` does.

    Attributes
    ----------
    ltol
        Relative tolerance of the lattice lengths.
    stol
        Tolerance of the site positions, as a fraction of the cube root of the volume per atom.
    angle_tol
        Tolerance of the lattice angles (degrees).
    """

    ltol: float = 0.2
    stol: float = 0.3
    angle_tol: float = 5.0

    def __post_init__(self) -> None:
        for name in ("ltol", "stol", "angle_tol"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")

    def matcher(self) -> Matcher:
        """Return what decides whether two crystals are the same."""
        return Matcher(self.ltol, self.stol, self.angle_tol)


@dataclass(frozen=True)
class Uniqueness(_Matching):
    """Reject crystals that repeat an earlier one of the batch or of the campaign.

    Of several that match within a batch the first stays. The archive holds every crystal twice, as
    proposed and as relaxed; a candidate never repeats itself. In the first iteration there is no
    archive, and only the batch counts.

    References
    ----------
    Default tolerances: Zeni et al., MatterGen, Nature 2025.
    """

    produces: ClassVar[Mapping[str, str]] = {}
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ("archive",)
    scope: ClassVar[Literal["candidate", "batch"]] = "batch"

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Judge the candidates in order, each against those that stayed before it."""
        matcher = self.matcher()
        place = source(resources, "archive")
        paid = archive_index(place, resources, matcher) if place else KnownIndex(matcher)
        batch = KnownIndex(matcher)

        def judge(candidate: Candidate) -> Finding:
            try:
                reduced = matcher.reduce(candidate.structure)
            except IncomparableError as error:
                return Finding("fail", f"cannot be compared: {error}")
            relaxed = _is_relaxed(candidate)
            earlier = paid.find(reduced, ignore=candidate.candidate_id, relaxed=relaxed)
            if earlier is not None:
                return Finding("reject", f"repeats {earlier} of the archive ({matcher.text})")
            twin = batch.find(reduced, relaxed=relaxed)
            if twin is not None:
                return Finding("reject", f"repeats {twin} of the same batch ({matcher.text})")
            batch.add(candidate.candidate_id, reduced, relaxed=relaxed)
            return Finding("pass", f"repeats no earlier crystal ({matcher.text})")

        return judge_each(candidates, judge)


@dataclass(frozen=True)
class Novelty(_Matching):
    """Reject, or only mark, crystals that match a reference phase or a known crystal.

    Known crystals without energies come from the libraries that the campaign names. Phases that the
    campaign itself found do not count: `Uniqueness` takes care of them.

    Attributes
    ----------
    reject
        Off, a known crystal passes and is only marked by ``novel`` 0.

    References
    ----------
    Default tolerances: Zeni et al., MatterGen, Nature 2025.
    """

    reject: bool = True

    produces: ClassVar[Mapping[str, str]] = {"novel": ""}
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ("phases", "known")
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Judge every candidate on its own."""
        matcher = self.matcher()
        listed = {name: source(resources, name) for name in self.resources}
        places = {name: place for name, place in listed.items() if place is not None}
        indexes = {
            _KIND[name]: _references(place, matcher)
            if name == "phases"
            else archive_index(place, resources, matcher)
            for name, place in places.items()
        }

        def judge(candidate: Candidate) -> Finding:
            if not indexes:
                return Finding("fail", "no reference phases were given to compare with")
            try:
                reduced = matcher.reduce(candidate.structure)
            except IncomparableError as error:
                return Finding("fail", f"cannot be compared: {error}")
            for kind, index in indexes.items():
                match = index.find(reduced, relaxed=_is_relaxed(candidate))
                if match is not None:
                    verdict: Literal["reject", "pass"] = "reject" if self.reject else "pass"
                    reason = f"matches {kind} {match} ({matcher.text})"
                    return Finding(verdict, reason, {"novel": Quantity(value=0.0)})
            kinds = " and no ".join(indexes)
            reason = f"matches no {kinds} ({matcher.text})"
            return Finding("pass", reason, {"novel": Quantity(value=1.0)})

        return judge_each(candidates, judge)


_KIND = {"phases": "reference phase", "known": "known crystal"}


RELAXED_BELOW = 0.2
"""Largest force (eV/Å) on a crystal that counts as relaxed where duplicates are looked for."""


def _is_relaxed(candidate: Candidate) -> bool:
    """Whether the candidate as it stands is known to be at a minimum."""
    force = candidate.quantities.get("max_force")
    return force is not None and force.value < RELAXED_BELOW


@lru_cache(maxsize=4)
def _references(place: Source, matcher: Matcher) -> KnownIndex:
    phases = phase_set(place).phases
    return KnownIndex(
        matcher,
        ((phase.phase_id, phase.structure) for phase in phases if phase.source == "reference"),
        relaxed=True,
    )
