"""Bulk modulus of candidates, from energies of slightly larger and smaller cells."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.evaluation import Evaluation
from matloop.evaluators.mlip.minimisation import Minimum, minimise
from matloop.evaluators.mlip.model import Floats, LoadedModel, Member, load_model
from matloop.evaluators.mlip.potential_evaluator import PotentialEvaluator
from matloop.evaluators.mlip.reading import readable
from matloop.evaluators.mlip.threads import one_thread
from matloop.evaluators.mlip.verdicts import unfit, with_costs
from matloop.protocols import Resources

GPA = 160.21766208
"""GPa in one eV/Å^3."""


@dataclass(frozen=True)
class BulkModulus(PotentialEvaluator):
    """Measure the bulk modulus of relaxed candidates from an equation of state.

    The cell is strained isotropically, the atoms relax in each strained cell, and a third-order
    Birch-Murnaghan curve is fitted to the energies. A candidate is rejected if its minimum lies
    outside of the strains tried, as when it was not relaxed with this potential, or if the curve
    fits badly.

    Attributes
    ----------
    max_strain
        Largest change of an edge, as a fraction of its length.
    points
        Number of volumes, at least 5.
    relax_atoms
        Relax the atoms in each strained cell; without it the modulus comes out too high for
        crystals whose atoms are free to move.
    fmax
        Largest force on a relaxed atom (eV/Å).
    max_steps
        Steps after which the atoms of a strained cell are taken as they are.
    max_residual
        Largest root mean square deviation from the fitted curve (eV/atom).
    max_atoms
        Candidates with more atoms fail.
    batch_atoms
        Most atoms in flight at once.

    References
    ----------
    Birch, Phys. Rev. 71, 809 (1947).
    """

    max_strain: float = 0.03
    points: int = 7
    relax_atoms: bool = True
    fmax: float = 0.05
    max_steps: int = 100
    max_residual: float = 0.001
    max_atoms: int = 500
    batch_atoms: int = 384

    produces: ClassVar[Mapping[str, str]] = {"bulk_modulus": "GPa", "eos_residual": "eV/atom"}

    def __post_init__(self) -> None:
        if self.points < 5:
            raise ValueError(f"points must be at least 5, got {self.points}")
        if not 0 < self.max_strain <= 0.1:
            raise ValueError(f"max_strain must lie in (0, 0.1], got {self.max_strain}")

    @one_thread()
    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Measure every candidate; a bad one never raises, and never harms another."""
        model = load_model(self.model, self.model_parameters)
        started = time.perf_counter()
        faults: dict[int, str] = {}
        owners: list[int] = []
        members: list[Member] = []
        scales = 1.0 + np.linspace(-self.max_strain, self.max_strain, self.points)
        for index, candidate in enumerate(candidates):
            found = readable(candidate.structure, model, self.max_atoms)
            if isinstance(found, str):
                faults[index] = found
                continue
            for scale in scales.tolist():
                members.append(Member(found.numbers, found.positions * scale, found.cell * scale))
                owners.append(index)
        ends = minimise(
            model,
            members,
            fmax=self.fmax,
            max_steps=self.max_steps if self.relax_atoms else 0,
            relax_cell=False,
            batch_atoms=self.batch_atoms,
        )
        curves: dict[int, list[Minimum]] = {index: [] for index in owners}
        for index, end in zip(owners, ends, strict=True):
            curves[index].append(end)
        evaluations = [
            unfit(candidate, "fail", faults[index], model)
            if index in faults
            else self._verdict(candidate, curves[index], model)
            for index, candidate in enumerate(candidates)
        ]
        spent = [curves.get(index, []) for index in range(len(candidates))]
        return with_costs(evaluations, spent, time.perf_counter() - started, model)

    def _verdict(
        self, candidate: Candidate, curve: list[Minimum], model: LoadedModel
    ) -> Evaluation:
        for end in curve:
            if end.fault:
                return unfit(candidate, "fail", end.fault, model)
        atoms = len(curve[0].member.numbers)
        volumes = np.array([end.first_volume for end in curve]) / atoms
        energies = np.array([end.energy for end in curve]) / atoms
        found = fit_equation_of_state(volumes, energies)
        if isinstance(found, str):
            return unfit(candidate, "reject", found, model)
        modulus, residual, volume = found
        key = model.theory.key
        quantities = {
            "bulk_modulus": Quantity(value=modulus * GPA, unit="GPa", theory=key),
            "eos_residual": Quantity(value=residual, unit="eV/atom", theory=key),
        }
        if residual > self.max_residual:
            return Evaluation(
                candidate_id=candidate.candidate_id,
                verdict="reject",
                reason=f"energies stray {residual:.2g} eV/atom from their equation of state",
                quantities=quantities,
                theory=model.theory,
            )
        return Evaluation(
            candidate_id=candidate.candidate_id,
            verdict="pass",
            reason=f"{modulus * GPA:.4g} GPa at {volume:.4g} Å^3 per atom",
            quantities=quantities,
            theory=model.theory,
        )


def fit_equation_of_state(volumes: Floats, energies: Floats) -> tuple[float, float, float] | str:
    """Fit a third-order Birch-Murnaghan curve, or say why its minimum is not among the points.

    Energies are a cubic polynomial in x = V^(-2/3) (Birch 1947), so the fit is linear.

    Parameters
    ----------
    volumes, energies
        Rising volumes (Å^3/atom) and their energies (eV/atom).

    Returns
    -------
    tuple
        Bulk modulus (eV/Å^3), root mean square deviation (eV/atom), and volume of the minimum
        (Å^3/atom).
    """
    x = volumes ** (-2.0 / 3.0)
    centre, width = x.mean(), np.ptp(x) / 2
    energy = np.polynomial.Polynomial.fit((x - centre) / width, energies, 3)
    slope, curvature = energy.deriv(1), energy.deriv(2)
    stationary = [
        root.real
        for root in np.atleast_1d(slope.roots())
        if abs(root.imag) < 1e-9 and abs(root.real) <= 1.0 and curvature(root.real) > 0
    ]
    if not stationary:
        return (
            "no minimum of the energy among the strained cells; relax it with this potential first"
        )
    place = min(stationary, key=energy)
    least = centre + width * place
    residual = float(np.sqrt(np.mean((energy((x - centre) / width) - energies) ** 2)))
    # B = V d2E/dV2, with dx/dV = -(2/3) V^(-5/3) and dE/dx = 0.
    volume = least ** (-1.5)
    modulus = curvature(place) / width**2 * (4.0 / 9.0) * volume ** (-7.0 / 3.0)
    return float(modulus), residual, float(volume)
