"""Relax candidates with a potential, many at once; a bad one ends as its own verdict."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pymatgen.core import Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.evaluation import Evaluation, RelaxationEnd
from matloop.evaluators.mlip.minimisation import Minimum, minimise
from matloop.evaluators.mlip.model import Floats, LoadedModel, Member, load_model
from matloop.evaluators.mlip.potential_evaluator import PotentialEvaluator
from matloop.evaluators.mlip.reading import moved, readable
from matloop.evaluators.mlip.threads import one_thread
from matloop.evaluators.mlip.verdicts import unfit, with_costs
from matloop.protocols import Resources


@dataclass(frozen=True)
class Relaxation(PotentialEvaluator):
    """Relax atoms and cell with a potential, many candidates at once.

    A candidate passes if it converges, and is rejected, with its structure so far, if it does not.
    It fails if it cannot be relaxed at all: disorder, an element the model does not know, a cell or
    energies that blow up, atoms that lose all neighbours.

    Attributes
    ----------
    optimizer
        ``fire`` moves as ASE's FIRE does on its Frechet cell filter. ``bfgs`` needs fewer force
        evaluations, and ends in another minimum now and then.
    fmax
        Largest force on an atom, or on a row of the cell, of a converged crystal (eV/Å).
    max_steps
        Steps after which a candidate that has not converged is rejected.
    relax_cell
        Relax the cell too, not only the atoms.
    keep_symmetry
        Keep the space group of a start that is symmetric within 0.001 Å: take out the asymmetric
        part of its forces, which is rounding noise and yet, on a ridge of the energy, decides where
        the crystal ends. Without it a few per cent of symmetric starts lose symmetry.
    max_atoms
        Candidates with more atoms fail.
    batch_atoms
        Most atoms in flight at once; when one crystal converges, the next takes its place. It
        bounds memory, and is halved when memory runs out. A GPU wants some thousands.

    References
    ----------
    FIRE: Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006).
    """

    optimizer: Literal["fire", "bfgs"] = "fire"
    fmax: float = 0.1
    max_steps: int = 300
    relax_cell: bool = True
    keep_symmetry: bool = True
    max_atoms: int = 500
    batch_atoms: int = 384

    produces: ClassVar[Mapping[str, str]] = {
        "energy_per_atom": "eV/atom",
        "relaxation_steps": "",
        "max_force": "eV/Å",
        "volume_change": "",
        "relaxation_drop": "eV/atom",
    }
    moves_atoms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check_positive("fmax", "max_steps", "max_atoms", "batch_atoms")

    @one_thread()
    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Relax every candidate; a bad one never raises, and never harms another."""
        model = load_model(self.model, self.model_parameters)
        started = time.perf_counter()
        members: dict[int, Member] = {}
        faults: dict[int, str] = {}
        for index, candidate in enumerate(candidates):
            found = readable(candidate.structure, model, self.max_atoms)
            if isinstance(found, Member):
                members[index] = found
            else:
                faults[index] = found
        minima = dict(
            zip(
                members,
                minimise(
                    model,
                    list(members.values()),
                    optimizer=self.optimizer,
                    fmax=self.fmax,
                    max_steps=self.max_steps,
                    relax_cell=self.relax_cell,
                    keep_symmetry=self.keep_symmetry,
                    batch_atoms=self.batch_atoms,
                ),
                strict=True,
            )
        )
        evaluations = [
            self._verdict(candidate, minima[index], model)
            if index in minima
            else self._failure(candidate, faults[index], 0, model)
            for index, candidate in enumerate(candidates)
        ]
        ends = [[minima[index]] if index in minima else [] for index in range(len(candidates))]
        return with_costs(evaluations, ends, time.perf_counter() - started, model)

    def _verdict(self, candidate: Candidate, end: Minimum, model: LoadedModel) -> Evaluation:
        if end.fault:
            reason = f"{end.fault}, after {end.steps} steps"
            return self._failure(candidate, reason, end.steps, model)
        atoms = len(end.member.numbers)
        key = model.theory.key
        structure = moved(candidate.structure, end.member)
        quantities = {
            "energy_per_atom": Quantity(value=end.energy / atoms, unit="eV/atom", theory=key),
            "relaxation_steps": Quantity(value=float(end.steps)),
            "max_force": Quantity(value=end.max_force, unit="eV/Å", theory=key),
            "volume_change": Quantity(value=structure.volume / end.first_volume - 1.0),
            "relaxation_drop": Quantity(
                value=(end.first_energy - end.energy) / atoms, unit="eV/atom", theory=key
            ),
        }
        reason = (
            f"reached {end.max_force:.2g} eV/Å in {end.steps} steps"
            if end.converged
            else f"did not reach {self.fmax:g} eV/Å in {end.steps} steps, {end.max_force:.2g} left"
        )
        return Evaluation(
            candidate_id=candidate.candidate_id,
            verdict="pass" if end.converged else "reject",
            reason=reason,
            quantities=quantities,
            structure=structure,
            theory=model.theory,
            end=RelaxationEnd(
                converged=end.converged,
                steps=end.steps,
                max_force=end.max_force,
                forces=_rows(end.forces),
                stress=_rows(end.stress),
            ),
        )

    def _failure(
        self, candidate: Candidate, reason: str, steps: int, model: LoadedModel
    ) -> Evaluation:
        end = RelaxationEnd(converged=False, steps=steps)
        return unfit(candidate, "fail", reason, model).model_copy(update={"end": end})


def _rows(array: Floats) -> tuple[tuple[float, float, float], ...]:
    return tuple((x, y, z) for x, y, z in array.tolist())


def relax(
    structures: Sequence[Structure], relaxation: Relaxation | None = None
) -> list[Evaluation]:
    """Relax structures outside of any campaign, and return one evaluation for each.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> copper = Structure(Lattice.from_parameters(2.7, 2.7, 2.7, 60, 60, 60), ["Cu"], [[0, 0, 0]])
    >>> result = relax([copper], Relaxation(model="ase", fmax=0.01))[0]
    >>> result.verdict, round(result.structure.lattice.a, 2)
    ('pass', 2.54)
    """
    origin = Origin(generator="relax")
    candidates = [
        Candidate(candidate_id=str(index), structure=structure, origin=origin)
        for index, structure in enumerate(structures)
    ]
    return (relaxation or Relaxation()).evaluate(candidates, Resources())
