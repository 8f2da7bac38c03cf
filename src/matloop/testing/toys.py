"""Toys for tests: plugins that are quick, deterministic, and as bad as they are told to be."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from monty.json import MSONable
from pymatgen.core import Element, Lattice, Structure

from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.evaluation import Cost, Evaluation
from matloop.documents.theory import LevelOfTheory
from matloop.protocols import Proposal, ProposalRequest, Resources


@dataclass(frozen=True)
class ToyGenerator(MSONable):
    """Put random elements of the space on the sites of a cubic cell.

    Attributes
    ----------
    shortfall
        Proposals left out of what is asked for.
    """

    shortfall: int = 0

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return crystals of one to four sites."""
        rng = np.random.default_rng(request.seed)
        corners = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0, 0.5, 0.5]])
        proposals: list[Proposal] = []
        least = max(request.space.min_elements, request.space.min_atoms)
        while len(proposals) < request.count - self.shortfall:
            sites = int(rng.integers(min(least, 4), min(request.space.max_atoms, 4) + 1))
            species = [str(name) for name in rng.choice(request.space.allowed, size=sites)]
            structure = Structure(
                Lattice.cubic(round(float(rng.uniform(3.2, 4.6)), 3)), species, corners[:sites]
            )
            if request.space.objection(structure.composition) is None:
                proposals.append(Proposal(structure, parameters={"sites": sites}))
        return proposals


@dataclass(frozen=True)
class ToyRelaxation(MSONable):
    """Relax nothing and give every crystal an energy that depends on composition and volume.

    Attributes
    ----------
    seconds
        Time each crystal takes (s).
    fatal
        Reduced formula whose evaluation kills its process; empty for none.
    raises
        Reduced formula whose evaluation raises.
    log
        File that gets a line per evaluation, to count what was paid for; empty for none.
    """

    seconds: float = 0.0
    fatal: str = ""
    raises: str = ""
    log: str = ""

    produces: ClassVar[Mapping[str, str]] = {"energy_per_atom": "eV/atom"}
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"
    moves_atoms: ClassVar[bool] = True

    @property
    def theory(self) -> LevelOfTheory:
        """Level of theory of the toy's energies."""
        return LevelOfTheory(kind="empirical", code="matloop.testing", version="1", model="toy")

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Return an energy for every crystal with finite coordinates."""
        return [self._evaluate(candidate) for candidate in candidates]

    def _evaluate(self, candidate: Candidate) -> Evaluation:
        structure = candidate.structure
        formula = structure.composition.reduced_formula
        if self.log:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{candidate.candidate_id}\n")
        if formula == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if formula == self.raises:
            raise ValueError(f"{formula} is more than this toy can bear")
        time.sleep(self.seconds)
        energy = toy_energy(structure)
        if not np.isfinite(energy) or not np.all(np.isfinite(structure.frac_coords)):
            return Evaluation(
                candidate_id=candidate.candidate_id, verdict="fail", reason="energy is not finite"
            )
        return Evaluation(
            candidate_id=candidate.candidate_id,
            verdict="pass",
            reason="toy energy computed",
            quantities={
                "energy_per_atom": Quantity(value=energy, unit="eV/atom", theory=self.theory.key)
            },
            structure=structure,
            theory=self.theory,
            cost=Cost(seconds=self.seconds, work=float(len(structure)), calls=1),
        )


def toy_energy(structure: Structure) -> float:
    """Return an energy (eV/atom): unlike electronegativities bind, volume has an optimum.

    Parameters
    ----------
    structure
        Any crystal.
    """
    fractions = structure.composition.fractional_composition
    chi = np.array([Element(str(e)).X or 1.0 for e in fractions.elements])
    x = np.array([fractions[e] for e in fractions.elements])
    ionicity = float(np.sum(x * (chi - np.sum(x * chi)) ** 2))
    volume = structure.volume / len(structure)
    return float(-2.0 - ionicity + 0.01 * (volume / 15.0 - 1.0) ** 2)
