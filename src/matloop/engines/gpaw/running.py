"""GPAW at work on one crystal: watched by the clock, and tried again once where it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from atomate2.ase.schemas import AseResult
from atomate2.ase.utils import AseRelaxer
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from matloop.engines.gpaw.datasets import XC, used
from matloop.engines.gpaw.document import Attempt, Failure
from matloop.engines.gpaw.engine import Gpaw

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

STATIC = 1
"""Steps that make atomate2's relaxer calculate one geometry."""

_logger = logging.getLogger(__name__)
_Mesh = tuple[int, int, int]
_Found = TypeVar("_Found")


class FailedError(Exception):
    """There will be no energy: what kind of failure, and why in one clause."""

    def __init__(self, kind: Failure, reason: str) -> None:
        super().__init__(reason)
        self.kind: Failure = kind


class Runner:
    """Run GPAW for one crystal.

    Attributes
    ----------
    attempts
        What was tried so far, in order.
    calls
        Geometries made self-consistent so far.
    moment
        Magnetic moment of the last cell (Bohr magnetons); None without spin polarisation.
    reached
        Geometry at which the walltime ended; None if it did not.
    """

    def __init__(self, engine: Gpaw) -> None:
        self.engine = engine
        self.attempts: list[Attempt] = []
        self.calls = 0
        self.moment: float | None = None
        self.reached: Structure | None = None
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time since the start (s)."""
        return time.perf_counter() - self._started

    def energy(self, structure: Structure, mesh: _Mesh, cutoff: float) -> float:
        """Return the energy of one geometry (eV), without forces.

        Raises
        ------
        FailedError
            If GPAW does not come to an energy in two attempts.
        """

        def work(atoms: Atoms, calculator: Calculator) -> float:
            atoms.calc = calculator
            return float(atoms.get_potential_energy())

        return self._twice(f"energy at {cutoff:g} eV", structure, mesh, cutoff, work)

    def relax(
        self, what: str, structure: Structure, mesh: _Mesh, steps: int, slope: float = 0.0
    ) -> AseResult:
        """Return atomate2's result of a relaxation, or of one geometry.

        Parameters
        ----------
        what
            Name of the task, for the record.
        structure
            The crystal.
        mesh
            k-points.
        steps
            Most steps; `STATIC` for one geometry.
        slope
            Derivative of the cell's energy by the cutoff (dimensionless), see `AtConstantCutoff`.

        Raises
        ------
        FailedError
            If GPAW does not come to a result in two attempts.
        """
        engine = self.engine

        def work(atoms: Atoms, calculator: Calculator) -> AseResult:
            constant = AtConstantCutoff(calculator, engine.cutoff, slope)
            relaxer = AseRelaxer(constant, optimizer="BFGS", relax_cell=engine.relax == "cell")
            result = relaxer.relax(
                atoms, fmax=engine.fmax, steps=steps, final_atoms_object_file=None
            )
            if engine.polarised(structure):
                self.moment = round(float(calculator.get_magnetic_moment(atoms)), 4)
            return result

        return self._twice(what, structure, mesh, engine.cutoff, work)

    def _twice(
        self,
        what: str,
        structure: Structure,
        mesh: _Mesh,
        cutoff: float,
        work: Callable[[Atoms, Calculator], _Found],
    ) -> _Found:
        """Work with GPAW's own mixing and, if that fails, once more with a cautious one."""
        from gpaw import KohnShamConvergenceError
        from gpaw.new.symmetry import SymmetryBrokenError

        kind: Failure = ""
        symmetry = True
        faults: list[str] = []
        for cautious in (False, True):
            mixing = "cautious" if cautious else "GPAW's own"
            attempt = Attempt(what=what, mixing=mixing, symmetry=symmetry, outcome="converged")
            self.attempts.append(attempt)
            atoms = self._atoms(structure)
            try:
                with used(structure.symbol_set, self.engine.functional):
                    return work(atoms, self._calculator(structure, mesh, cutoff, attempt))
            except KohnShamConvergenceError:
                kind = "scf"
                attempt.outcome = f"not self-consistent in {self._scf_steps(attempt)} steps"
            except SymmetryBrokenError:
                kind, symmetry = "stopped", False
                attempt.outcome = "the relaxation broke the crystal's symmetry"
            except FailedError as error:
                attempt.outcome = str(error)
                self.reached = AseAtomsAdaptor.get_structure(atoms)
                raise
            except Exception as error:  # whatever else GPAW trips over is data
                _logger.exception("GPAW stopped")
                line = (str(error).strip().splitlines() or [""])[0]
                attempt.outcome = f"{type(error).__name__}: {line}".removesuffix(": ")
                raise FailedError("stopped", f"GPAW stopped: {attempt.outcome}") from error
            faults.append(attempt.outcome)
        raise FailedError(kind, f"{faults[0]}, with cautious mixing {faults[1]}")

    def _scf_steps(self, attempt: Attempt) -> int:
        return self.engine.max_scf_steps * (1 if attempt.mixing == "GPAW's own" else 3)

    def _atoms(self, structure: Structure) -> Atoms:
        atoms = AseAtomsAdaptor.get_atoms(structure)
        polarised = self.engine.polarised(structure)
        moments = self.engine.site_moments(structure) if polarised else [0.0] * len(atoms)
        atoms.set_initial_magnetic_moments(moments)
        return atoms

    def _calculator(
        self, structure: Structure, mesh: _Mesh, cutoff: float, attempt: Attempt
    ) -> Calculator:
        """Return GPAW's calculator; what differs between attempts is not what it converges to."""
        from gpaw import GPAW

        engine, polarised = self.engine, self.engine.polarised(structure)
        extra: dict[str, Any] = {} if attempt.symmetry else {"symmetry": "off"}
        if attempt.mixing == "cautious":
            extra["mixer"] = {"backend": "pulay", "beta": 0.02, "nmaxold": 5, "weight": 100}
            if polarised:
                extra["mixer"]["method"] = "difference"
            extra["nbands"] = "150%"
        calculator = GPAW(
            mode={"name": "pw", "ecut": cutoff},
            xc=XC.get(engine.functional, engine.functional),
            kpts={"size": mesh, "gamma": True},
            occupations={"name": engine.smearing, "width": engine.width},
            convergence={"energy": engine.scf_energy, "density": engine.scf_density},
            maxiter=self._scf_steps(attempt),
            spinpol=polarised,
            txt=f"gpaw-{len(self.attempts)}.txt",
            **extra,
        )
        calculator.hooks["converged"] = self._count
        calculator.hooks["scf_step"] = self._look_at_the_clock
        return calculator

    def _count(self) -> None:
        self.calls += 1

    def _look_at_the_clock(self, _context: object) -> None:
        limit = self.engine.walltime
        if limit is not None and self.seconds > limit * 3600:
            raise FailedError("walltime", f"the walltime of {limit:g} h is over")


class AtConstantCutoff:
    """GPAW with the stress that belongs to its energies.

    GPAW's stress is that of a fixed number of plane waves, while its energies are those of a fixed
    cutoff. The two differ by the Pulay stress, 2/3 E_cut (dE/dE_cut) / V along the diagonal, which
    makes relaxed cells too small wherever the total energy is not converged, however well
    formation energies are. Everything else is GPAW's own.

    Parameters
    ----------
    calculator
        GPAW's calculator.
    cutoff
        Plane-wave cutoff (eV).
    slope
        Derivative of the cell's energy by the cutoff, dimensionless and negative.

    References
    ----------
    Francis and Payne, J. Phys.: Condens. Matter 2, 4395 (1990).
    """

    def __init__(self, calculator: Calculator, cutoff: float, slope: float) -> None:
        self._calculator, self._cutoff, self._slope = calculator, cutoff, slope

    def __getattr__(self, name: str) -> Any:
        return getattr(self._calculator, name)

    def get_stress(self, atoms: Atoms) -> Any:
        """Return the stress in Voigt order (eV/Å^3)."""
        stress = self._calculator.get_stress(atoms).copy()
        stress[:3] += 2 / 3 * self._cutoff * self._slope / atoms.get_volume()
        return stress
