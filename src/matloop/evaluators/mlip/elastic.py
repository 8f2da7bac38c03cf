"""Mechanical stability and elastic moduli of candidates, from stresses of strained cells."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from pymatgen.analysis.elasticity.elastic import ElasticTensor as PymatgenTensor
from pymatgen.core import Structure

from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.evaluation import Evaluation, Verdict
from matloop.evaluators.mlip.bulk_modulus import GPA
from matloop.evaluators.mlip.minimisation import Minimum, minimise
from matloop.evaluators.mlip.model import Floats, LoadedModel, Member, load_model
from matloop.evaluators.mlip.potential_evaluator import PotentialEvaluator
from matloop.evaluators.mlip.reference_states import Reference, guarded, references
from matloop.evaluators.mlip.threads import one_thread
from matloop.evaluators.mlip.verdicts import Computation, unfit, with_costs
from matloop.protocols import Resources
from matloop.structures.elasticity import (
    Stiffness,
    cartesian,
    deformation,
    fit_stiffness,
    invariant_stiffnesses,
    needed_strains,
    second_piola_kirchhoff,
)

COMPONENTS = {f"c{a}{b}": (a - 1, b - 1) for a in range(1, 7) for b in range(a, 7)}
"""Components of the tensor in Voigt's notation, by the names of their quantities."""


@dataclass(frozen=True)
class ElasticTensor(PotentialEvaluator):
    """Reject candidates that a strain would set free, and measure how stiff the others are.

    A relaxed candidate is reduced to its primitive cell and strained in as many ways as its point
    group leaves different, in both directions; its atoms relax in each strained cell. The stresses
    give the full elastic tensor, exactly symmetric under the point group. A candidate is rejected
    if it is not at rest, or if the tensor has a negative eigenvalue beyond the tolerance (Born's
    criterion). It fails if its stresses are not linear in the strain.

    The bulk modulus found here is called ``bulk_modulus_vrh``, to be told from the
    ``bulk_modulus`` of an equation of state: with all edges scaled alike that one is Voigt's
    bound. They agree for cubic crystals only.

    Attributes
    ----------
    max_strain
        Largest component of a strain.
    points
        Sizes of each strain, equally spaced up to the largest; each is applied in both directions.
    relax_atoms
        Relax the atoms in each strained cell; without it the tensor is that of clamped ions.
    fmax
        Largest force on a relaxed atom (eV/Å).
    max_steps
        Steps after which a candidate with a strained cell that did not converge fails.
    tolerance
        Largest negative eigenvalue (GPa) of a crystal that passes: what the noise of the stresses
        can make of a true zero, as between weakly bound layers.
    max_misfit
        Largest root mean square of what the tensor does not describe, over that of the stresses.
        Smooth potentials leave 0.01 at the default strain; CHGNet, which is not, up to 0.07.
    max_force
        Largest force on an atom or on a row of the cell (eV/Å) of a crystal at rest, measured as
        `fmax` of a relaxation.
    symprec
        Tolerance within which symmetry is found and made exact before anything is computed (Å).
    max_atoms
        Candidates with more atoms fail.
    batch_atoms
        Most atoms in flight at once; bounds memory.

    References
    ----------
    Stability: Mouhat and Coudert, Phys. Rev. B 90, 224104 (2014). Strains and their size: de Jong
    et al., Scientific Data 2, 150009 (2015). Averages: Hill, Proc. Phys. Soc. A 65, 349 (1952).
    Anisotropy: Ranganathan and Ostoja-Starzewski, Phys. Rev. Lett. 101, 055504 (2008).
    """

    max_strain: float = 0.01
    points: int = 2
    relax_atoms: bool = True
    fmax: float = 0.01
    max_steps: int = 300
    tolerance: float = 0.5
    max_misfit: float = 0.1
    max_force: float = 0.05
    symprec: float = 0.01
    max_atoms: int = 500
    batch_atoms: int = 384

    produces: ClassVar[Mapping[str, str]] = {
        "bulk_modulus_vrh": "GPa",
        "shear_modulus_vrh": "GPa",
        "young_modulus": "GPa",
        "poisson_ratio": "",
        "universal_anisotropy": "",
        "lowest_elastic_eigenvalue": "GPa",
        "elastic_misfit": "",
        **dict.fromkeys(COMPONENTS, "GPa"),
    }

    def __post_init__(self) -> None:
        if not 0 < self.max_strain <= 0.05:
            raise ValueError(f"max_strain must lie in (0, 0.05], got {self.max_strain!r}")
        if self.tolerance < 0:
            raise ValueError(f"tolerance must not be negative, got {self.tolerance!r}")
        self._check_positive("points", "fmax", "max_steps", "max_misfit", "max_force", "symprec")
        self._check_positive("max_atoms", "batch_atoms")

    @one_thread()
    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Measure every candidate; a bad one never raises, and never harms another."""
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
        plans: dict[int, _Plan] = {}
        for index, reference in start.at_rest.items():
            plan = guarded(self._plan, reference)
            if isinstance(plan, str):
                verdicts[index] = unfit(candidates[index], "fail", plan, model)
            else:
                plans[index] = plan
        ends = minimise(
            model,
            [member for plan in plans.values() for member in plan.members],
            fmax=self.fmax,
            max_steps=self.max_steps if self.relax_atoms else 0,
            relax_cell=False,
            batch_atoms=self.batch_atoms,
        )
        waiting = iter(ends)
        work: dict[int, list[Computation]] = {i: [point] for i, point in start.points.items()}
        for index, plan in plans.items():
            own = [next(waiting) for _ in plan.members]
            work[index] += own
            verdicts[index] = self._verdict(candidates[index], plan, own, model)
        places = range(len(candidates))
        return with_costs(
            [verdicts[index] for index in places],
            [work.get(index, []) for index in places],
            time.perf_counter() - started,
            model,
        )

    def _plan(self, reference: Reference) -> _Plan:
        """Return the strained cells of one crystal."""
        cell = reference.structure.lattice.matrix
        turned = cell.T @ reference.rotations @ np.linalg.inv(cell.T)
        basis = invariant_stiffnesses(turned)
        sizes = np.linspace(0.0, self.max_strain, self.points + 1)[1:]
        plan = _Plan(reference.structure, basis)
        for direction in needed_strains(basis):
            unit = cartesian(np.eye(6)[direction])
            for size in sizes / unit.max():
                plan.add(reference.point.member, size * unit)
                plan.add(reference.point.member, -size * unit)
        return plan

    def _verdict(
        self,
        candidate: Candidate,
        plan: _Plan,
        ends: Sequence[Minimum],
        model: LoadedModel,
    ) -> Evaluation:
        for end in ends:
            if end.fault:
                return unfit(candidate, "fail", f"{end.fault}, strained", model)
        restless = sum(not end.converged for end in ends)
        if self.relax_atoms and restless:
            reason = f"atoms did not come to rest in {restless} of {len(ends)} strained cells"
            return unfit(candidate, "fail", reason, model)
        stresses = [
            second_piola_kirchhoff(end.stress, gradient) * GPA
            for end, gradient in zip(ends, plan.gradients, strict=True)
        ]
        found = guarded(fit_stiffness, plan.strains, stresses, plan.basis)
        values = found if isinstance(found, str) else guarded(_values, found, plan.structure)
        if isinstance(found, str) or isinstance(values, str):
            return unfit(candidate, "fail", str(values), model)
        lowest = values["lowest_elastic_eigenvalue"]
        verdict: Verdict = "pass"
        if not math.isfinite(lowest) or found.misfit > self.max_misfit:
            verdict = "fail"
            reason = (
                f"stresses are not linear in the strain: {found.misfit:.2g} of them is left over"
            )
        elif lowest < -self.tolerance:
            verdict = "reject"
            reason = f"unstable under a strain: lowest elastic eigenvalue {lowest:.3g} GPa"
        elif lowest <= 0:
            reason = f"lowest elastic eigenvalue {lowest:.2g} GPa, zero within {self.tolerance:g}"
        else:
            reason = (
                f"bulk modulus {values['bulk_modulus_vrh']:.4g} GPa, "
                f"shear modulus {values['shear_modulus_vrh']:.4g} GPa"
            )
        return Evaluation(
            candidate_id=candidate.candidate_id,
            verdict=verdict,
            reason=reason,
            quantities={
                name: Quantity(value=value, unit=self.produces[name], theory=model.theory.key)
                for name, value in values.items()
                if math.isfinite(value)
            },
            theory=model.theory,
        )


@dataclass(frozen=True)
class _Plan:
    """The strained cells of one crystal, each followed by its opposite."""

    structure: Structure
    basis: Floats
    strains: list[Floats] = field(default_factory=list)
    gradients: list[Floats] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)

    def add(self, rest: Member, strain: Floats) -> None:
        """Add the crystal under one strain, its atoms carried along with the cell."""
        gradient = deformation(strain)
        self.strains.append(strain)
        self.gradients.append(gradient)
        self.members.append(Member(rest.numbers, rest.positions @ gradient, rest.cell @ gradient))


def _values(found: Stiffness, structure: Structure) -> dict[str, float]:
    """Return the numbers reported of a tensor; averages need a positive definite one."""
    lowest = float(found.eigenvalues[0])
    tensor = PymatgenTensor.from_voigt(found.voigt)
    oriented = tensor.convert_to_ieee(structure, initial_fit=False).voigt
    values = {name: float(oriented[place]) for name, place in COMPONENTS.items()}
    values |= {"lowest_elastic_eigenvalue": lowest, "elastic_misfit": found.misfit}
    if lowest > 0:
        bulk, shear = float(tensor.k_vrh), float(tensor.g_vrh)
        values |= {
            "bulk_modulus_vrh": bulk,
            "shear_modulus_vrh": shear,
            "young_modulus": 9.0 * bulk * shear / (3.0 * bulk + shear),
            "poisson_ratio": (3.0 * bulk - 2.0 * shear) / (6.0 * bulk + 2.0 * shear),
            "universal_anisotropy": float(tensor.universal_anisotropy),
        }
    return values
