"""The contract of engines catches engines that break it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
from jobflow import Job
from monty.json import MSONable
from pymatgen.core import Lattice, Structure

from matloop.documents.evaluation import Evaluation
from matloop.documents.theory import DftSettings, LevelOfTheory
from matloop.testing.conformance import check_engine

CRYSTAL = Structure(Lattice.cubic(3.0), ["Al"], [[0, 0, 0]])


@dataclass(frozen=True)
class ToyEngine(MSONable):
    """Calculate nothing, and break the promise it is told to break.

    Attributes
    ----------
    cutoff
        Plane-wave cutoff (eV).
    breaks
        Name of the promise.
    """

    cutoff: float = 400.0
    breaks: str = ""

    produces: ClassVar[Mapping[str, str]] = {"energy_per_atom": "eV/atom"}

    def theory(self, structure: Structure) -> LevelOfTheory:
        cutoff = 0.0 if self.breaks == "settings" else self.cutoff
        if self.breaks == "size":
            cutoff += len(structure)
        settings = DftSettings(cutoff=cutoff)
        return LevelOfTheory(kind="dft", code="toy", version="1", model="PBE", dft=settings)

    def calculation(self, structure: Structure, name: str) -> Job:
        load = "x" * 2_000_000 if self.breaks == "weight" else ""
        return Job(function=len, function_args=([len(structure), load],), name=name)

    def evaluation(self, candidate_id: str, document: Mapping[str, object] | None) -> Evaluation:
        verdict = "pass" if self.breaks == "death" else "fail"
        return Evaluation(candidate_id=candidate_id, verdict=verdict, reason="a toy")

    def core_hours(self, structure: Structure) -> float:
        return 1.0 if self.breaks == "price" else float(len(structure))

    def problems(self) -> list[str]:
        return ["two\nlines"] if self.breaks == "problems" else []


def test_an_engine_that_keeps_its_promises_passes() -> None:
    """The toy passes as long as it breaks nothing."""
    check_engine(ToyEngine(), [CRYSTAL], [ToyEngine(cutoff=500)])


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        ("settings", "their theories must"),
        ("size", "size of the cell"),
        ("weight", "below 1 MB"),
        ("death", "died is a fail"),
        ("price", "grow with the cell"),
        ("problems", "one line"),
    ],
)
def test_a_broken_promise_is_named(breaks: str, words: str) -> None:
    """Each promise broken is an assertion that names it."""
    with pytest.raises(AssertionError, match=words):
        check_engine(ToyEngine(breaks=breaks), [CRYSTAL], [ToyEngine(500.0, breaks)])
