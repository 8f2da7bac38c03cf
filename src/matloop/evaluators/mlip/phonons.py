"""Dynamical stability of candidates, from the phonons of displaced supercells."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.evaluation import Evaluation
from matloop.evaluators.mlip.lattice_dynamics import Displacements, Spectrum
from matloop.evaluators.mlip.model import Floats, LoadedModel, load_model
from matloop.evaluators.mlip.potential_evaluator import PotentialEvaluator
from matloop.evaluators.mlip.reference_states import Reference, guarded, references
from matloop.evaluators.mlip.single_points import SinglePoint, single_points
from matloop.evaluators.mlip.threads import one_thread
from matloop.evaluators.mlip.verdicts import unfit, with_costs
from matloop.protocols import Resources
from matloop.structures.supercells import supercell_matrix

TEMPERATURE = 300.0
"""Where the free energy is reported (K)."""


@dataclass(frozen=True)
class Phonons(PotentialEvaluator):
    """Reject candidates with imaginary phonons: atoms that would leave their places.

    A relaxed candidate is reduced to its primitive cell, atoms are displaced in a supercell, and
    phonopy makes harmonic phonons of the forces. The displaced supercells of all candidates are
    computed together. A candidate is rejected if it is not at rest, or if a mode is imaginary
    beyond the tolerance. The reason says whether that mode fits into the supercell or was
    interpolated.

    Attributes
    ----------
    min_length
        Shortest distance between an atom and its own image in the supercell (Å).
    distance
        Displacement of an atom (Å). CHGNet is rough on a scale of 0.01 Å, where it calls aluminium
        and rock salt unstable; smooth potentials give the same from 0.01 to 0.05 Å.
    mesh_length
        Divisions of the mesh of wave vectors along each reciprocal vector, over the length of that
        vector (Å).
    tolerance
        Largest imaginary frequency (THz) of a crystal that passes.
    max_force
        Largest force on an atom or on a row of the cell (eV/Å) of a crystal at rest, measured as
        `fmax` of a relaxation.
    symprec
        Tolerance within which symmetry is found and made exact before anything is computed (Å).
    max_atoms
        Candidates whose supercell has more atoms fail.
    batch_atoms
        Most atoms computed at once; bounds memory.

    References
    ----------
    Phonopy: Togo, J. Phys. Soc. Jpn. 92, 012001 (2023). What imaginary modes mean, and which are
    numerical: Pallikara et al., Electron. Struct. 4, 033002 (2022). The tolerance of 0.1 THz
    (0.4 meV) is ours, see ``docs/stability.md``.
    """

    min_length: float = 9.0
    distance: float = 0.05
    mesh_length: float = 60.0
    tolerance: float = 0.1
    max_force: float = 0.05
    symprec: float = 0.01
    max_atoms: int = 800
    batch_atoms: int = 384

    produces: ClassVar[Mapping[str, str]] = {
        "lowest_frequency": "THz",
        "highest_frequency": "THz",
        "zero_point_energy": "eV/atom",
        "vibrational_free_energy_300K": "eV/atom",
    }

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ValueError(f"tolerance must not be negative, got {self.tolerance!r}")
        if not 0 < self.distance <= 0.3:
            raise ValueError(f"distance must lie in (0, 0.3], got {self.distance!r}")
        self._check_positive("min_length", "mesh_length", "max_force", "symprec")
        self._check_positive("max_atoms", "batch_atoms")

    @one_thread()
    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Judge every candidate; a bad one never raises, and never harms another."""
        model = load_model(self.model, self.model_parameters)
        started = time.perf_counter()
        start = references(
            model,
            candidates,
            symprec=self.symprec,
            max_force=self.max_force,
            max_atoms=self.max_atoms,
            batch_atoms=self.batch_atoms,
        )
        verdicts = dict(start.given_up)
        displaced: dict[int, Displacements] = {}
        for index, reference in start.at_rest.items():
            made = guarded(self._displacements, reference)
            if isinstance(made, str):
                verdicts[index] = unfit(candidates[index], "fail", made, model)
            else:
                displaced[index] = made
        cells = [cell for item in displaced.values() for cell in item.cells]
        computed = iter(single_points(model, cells, self.batch_atoms))
        points = {index: [point] for index, point in start.points.items()}
        for index, item in displaced.items():
            moved = [next(computed) for _ in item.cells]
            points[index] += moved
            residual = start.points[index].forces
            verdicts[index] = self._verdict(candidates[index], item, moved, residual, model)
        places = range(len(candidates))
        evaluations = [verdicts[index] for index in places]
        spent = [points.get(index, []) for index in places]
        return with_costs(evaluations, spent, time.perf_counter() - started, model)

    def _displacements(self, reference: Reference) -> Displacements:
        primitive = reference.point.member
        matrix = supercell_matrix(
            primitive.cell,
            reference.rotations,
            self.min_length,
            max_cells=self.max_atoms // len(primitive.numbers),
        )
        return Displacements(primitive, matrix, self.distance)

    def _verdict(
        self,
        candidate: Candidate,
        displaced: Displacements,
        moved: Sequence[SinglePoint],
        residual: Floats,
        model: LoadedModel,
    ) -> Evaluation:
        for point in moved:
            if point.fault:
                return unfit(candidate, "fail", f"{point.fault}, with an atom displaced", model)
        forces = [point.forces for point in moved]
        found = guarded(displaced.spectrum, forces, residual, self.mesh_length)
        if isinstance(found, str):
            return unfit(candidate, "fail", found, model)
        if not math.isfinite(found.lowest + found.highest):
            return unfit(candidate, "fail", "frequencies are not finite", model)
        key = model.theory.key
        atoms = len(displaced.cells[0].numbers)
        values = {"lowest_frequency": found.lowest, "highest_frequency": found.highest}
        stable = found.lowest >= -self.tolerance
        if stable:
            values["zero_point_energy"] = found.zero_point_energy()
            values["vibrational_free_energy_300K"] = found.free_energy(TEMPERATURE)
            reason = f"no imaginary mode in {atoms} atoms, up to {found.highest:.3g} THz"
        else:
            reason = _instability(found, atoms)
        return Evaluation(
            candidate_id=candidate.candidate_id,
            verdict="pass" if stable else "reject",
            reason=reason,
            quantities={
                name: Quantity(value=value, unit=self.produces[name], theory=key)
                for name, value in values.items()
            },
            theory=model.theory,
        )


def _instability(found: Spectrum, atoms: int) -> str:
    place = ", ".join(str(Fraction(x).limit_denominator(100)) for x in found.wave_vector)
    how = "" if found.fits else f", interpolated from {atoms} atoms"
    return f"imaginary mode of {-found.lowest:.3g} THz at q = ({place}){how}"
