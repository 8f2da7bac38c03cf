"""The space group of each candidate, as a quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from monty.json import MSONable

from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.evaluation import Evaluation
from matloop.evaluators.isolation import Finding, judge_each
from matloop.protocols import Resources
from matloop.structures.symmetry import SymmetryError, space_group


@dataclass(frozen=True)
class Symmetry(MSONable):
    """Find the space group of each crystal; reject only where a lowest one is asked for.

    Attributes
    ----------
    symprec
        Distance (Å) within which sites count as equivalent. 0.1 suits relaxed crystals, 0.01 exact
        ones. The tolerance at which the search succeeded is reported.
    min_space_group
        Smallest space group number that passes; 1 lets all pass.
    """

    symprec: float = 0.1
    min_space_group: int = 1

    produces: ClassVar[Mapping[str, str]] = {"space_group": "", "symprec": "Å"}
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"

    def __post_init__(self) -> None:
        if self.symprec <= 0:
            raise ValueError("symprec must be positive")
        if not 1 <= self.min_space_group <= 230:
            raise ValueError("min_space_group must lie between 1 and 230")

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Judge every candidate on its own."""
        return judge_each(candidates, self._judge)

    def _judge(self, candidate: Candidate) -> Finding:
        try:
            group = space_group(candidate.structure, self.symprec)
        except SymmetryError as error:
            return Finding("fail", f"no space group: {error}")
        found = {
            "space_group": Quantity(value=float(group.number)),
            "symprec": Quantity(value=group.symprec, unit="Å"),
        }
        text = f"{group.symbol} ({group.number}) within {group.symprec:.2g} Å"
        if group.number < self.min_space_group:
            return Finding("reject", f"{text}, at least {self.min_space_group} wanted", found)
        return Finding("pass", text, found)
