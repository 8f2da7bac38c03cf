"""Toys for tests: plugins that are quick, deterministic, and as bad as they are told to be."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from monty.json import MSONable
from pymatgen.core import Element, Lattice, Structure

from matloop import registry
from matloop.documents.candidate import Candidate, Quantity, structure_digest
from matloop.documents.evaluation import Cost, Evaluation
from matloop.documents.theory import LevelOfTheory
from matloop.protocols import Proposal, ProposalRequest, Resources

if TYPE_CHECKING:
    from jobflow import Job


@dataclass(frozen=True)
class ToyGenerator(MSONable):
    """Put random elements of the space on the sites of a cubic cell.

    Attributes
    ----------
    shortfall
        Proposals left out of what is asked for.
    """

    shortfall: int = 0

    divisible: ClassVar[bool] = True

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
class Parrot(MSONable):
    """Propose like `ToyGenerator` until something is found, and then the best of it for ever.

    A generator whose modes have collapsed.
    """

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return one crystal `count` times, once there is one."""
        if not request.found:
            return ToyGenerator().propose(request)
        best = request.found[0]
        return [Proposal(best.structure, parents=(best.parent_id,))] * request.count


@dataclass(frozen=True)
class ToyRelaxation(MSONable):
    """Relax nothing and give every crystal an energy that depends on composition and volume.

    Attributes
    ----------
    seconds
        Time each crystal takes (s).
    fatal
        Reduced formula whose evaluation kills its process; empty for none.
    fatal_candidate
        Id of a candidate whose evaluation kills its process; empty for none.
    raises
        Reduced formula whose evaluation raises.
    log
        File that gets a line per evaluation, to count what was paid for; empty for none.
    """

    seconds: float = 0.0
    fatal: str = ""
    fatal_candidate: str = ""
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
        if formula == self.fatal or candidate.candidate_id == self.fatal_candidate:
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


@dataclass(frozen=True)
class ToyEngine(MSONable):
    """Calculate an energy that differs from that of `ToyRelaxation`, with a price and moods.

    Attributes
    ----------
    shift
        What is added to the energy of every compound (eV/atom); elements stay as they are.
    noise
        Standard deviation of a further difference, fixed for each crystal (eV/atom).
    hours_per_atom
        Estimated cost of a calculation (core-hours per atom, times atoms).
    overrun
        What a calculation costs, divided by the estimate.
    seconds
        Time a calculation really takes (s).
    fatal
        Reduced formula whose calculation kills its process; empty for none.
    raises
        Reduced formula whose calculation raises.
    unconverged
        Reduced formula whose calculation does not converge.
    log
        File that gets a line per calculation; empty for none.
    """

    shift: float = 0.0
    noise: float = 0.0
    hours_per_atom: float = 0.1
    overrun: float = 1.0
    seconds: float = 0.0
    fatal: str = ""
    raises: str = ""
    unconverged: str = ""
    log: str = ""

    produces: ClassVar[Mapping[str, str]] = {"energy_per_atom": "eV/atom"}

    def theory(self, structure: Structure) -> LevelOfTheory:
        """Return the level of theory, the same for every crystal."""
        settings: dict[str, str | float | int | bool] = {"shift": self.shift, "noise": self.noise}
        return LevelOfTheory(
            kind="dft", code="toy-dft", version="1", model="toy", settings=settings
        )

    def calculation(self, structure: Structure, name: str) -> Job:
        """Return the job whose output holds the energy."""
        from jobflow import Job

        return Job(toy_calculation, function_args=(self, structure, name), name=f"toy {name}")

    def evaluation(self, candidate_id: str, document: Mapping[str, object] | None) -> Evaluation:
        """Return the verdict; a calculation that died, or did not converge, is a ``fail``."""
        if document is None:
            return Evaluation(
                candidate_id=candidate_id, verdict="fail", reason="the calculation left no result"
            )
        seconds, energy = float(str(document["seconds"])), document["energy"]
        cost = Cost(seconds=seconds, calls=1)
        if energy is None:
            return Evaluation(
                candidate_id=candidate_id, verdict="fail", reason="not converged", cost=cost
            )
        given = document["structure"]  # stores hand it back as either
        structure = given if isinstance(given, Structure) else Structure.from_dict(given)
        theory = self.theory(structure)
        found = Quantity(value=float(str(energy)), unit="eV/atom", theory=theory.key)
        return Evaluation(
            candidate_id=candidate_id,
            verdict="pass",
            reason="toy calculation converged",
            quantities={"energy_per_atom": found},
            structure=structure,
            theory=theory,
            cost=cost,
        )

    def core_hours(self, structure: Structure) -> float:
        """Return the estimated cost: it grows with the square of the atoms."""
        return self.hours_per_atom * len(structure) ** 2

    def problems(self) -> list[str]:
        """Return nothing: a toy runs everywhere."""
        return []

    def energy(self, structure: Structure) -> float:
        """Return the energy of a crystal (eV/atom)."""
        energy = toy_energy(structure)
        if structure.n_elems == 1:
            return energy
        seed = int(structure_digest(structure)[:12], 16)
        return energy + self.shift + self.noise * float(np.random.default_rng(seed).normal())


def toy_calculation(engine: ToyEngine, structure: Structure, name: str) -> dict[str, object]:
    """Calculate a crystal as a toy engine does: the body of its job."""
    formula = structure.composition.reduced_formula
    if engine.log:
        with open(engine.log, "a", encoding="utf-8") as file:
            file.write(f"{name}\n")
    if formula == engine.fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    if formula == engine.raises:
        raise ValueError(f"{formula} is more than this toy can bear")
    time.sleep(engine.seconds)
    return {
        "structure": structure.as_dict(),
        "energy": None if formula == engine.unconverged else engine.energy(structure),
        "seconds": 3600 * engine.core_hours(structure) * engine.overrun,
    }


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


@contextmanager
def toys_registered() -> Iterator[None]:
    """Let campaign files name the toys within this process, as if a package had registered them."""
    added: list[tuple[dict[str, EntryPoint], str]] = []
    for kind, name, plugin in _TOYS:
        known = registry.names(kind)
        if name not in known:
            value = f"{plugin.__module__}:{plugin.__qualname__}"
            known[name] = EntryPoint(name, value, f"matloop.{kind}")
            added.append((known, name))
    try:
        yield
    finally:
        for known, name in added:
            del known[name]
        registry.load.cache_clear()


_TOYS: tuple[tuple[registry.Kind, str, type], ...] = (
    ("generators", "toy_generator", ToyGenerator),
    ("generators", "toy_parrot", Parrot),
    ("evaluators", "toy_relaxation", ToyRelaxation),
    ("engines", "toy_engine", ToyEngine),
)
