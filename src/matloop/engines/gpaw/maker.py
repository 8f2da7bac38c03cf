"""The job: calculate one crystal with GPAW, and say so where it fails."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from atomate2.ase.schemas import AseResult, AseTaskDoc, InputDoc, OutputDoc
from emmet.core.types.enums import TaskState
from jobflow import Maker, job
from pymatgen.core import Structure

from matloop.engines.gpaw.cost import kpoint_mesh
from matloop.engines.gpaw.cutoff import check_cutoff
from matloop.engines.gpaw.datasets import versions
from matloop.engines.gpaw.document import CutoffCheck, GpawRecord, GpawTaskDoc
from matloop.engines.gpaw.engine import Gpaw
from matloop.engines.gpaw.running import STATIC, FailedError, Runner

_PER_GEOMETRY = ("energy", "forces", "stress")
_NEARBY = 0.05  # relative distance of the two cutoffs that the slope is taken from


@dataclass
class GpawMaker(Maker):
    """Calculate a crystal with GPAW.

    Alone, in any flow::

        GpawMaker(engine=Gpaw(cutoff=400, relax="cell")).make(structure)

    The output is atomate2's ASE task document with a field ``gpaw``. A calculation that fails
    returns one as well: its state is ``failed``, and ``gpaw.reason`` says why.

    Attributes
    ----------
    name
        Name of the job.
    engine
        How to calculate.
    tags
        Tags of the task document.
    """

    name: str = "gpaw"
    engine: Gpaw = field(default_factory=Gpaw)
    tags: list[str] | None = None

    @job(data=["trajectory"])
    def make(self, structure: Structure, prev_dir: str | Path | None = None) -> GpawTaskDoc:
        """Calculate a crystal.

        Parameters
        ----------
        structure
            The crystal.
        prev_dir
            Unused; atomate2's Makers have it.
        """
        return _Calculation(self.engine, structure, self.tags).document()


class _Calculation:
    """One run of the job: what is done in turn, and what came of it."""

    def __init__(self, engine: Gpaw, structure: Structure, tags: list[str] | None) -> None:
        self.engine, self.structure, self.tags = engine, structure, tags
        self.runner = Runner(engine)
        self.check: CutoffCheck | None = None
        self.mesh: tuple[int, int, int] | None = None
        self.slope: float | None = None

    def document(self) -> GpawTaskDoc:
        """Return the task document, of a success or of a failure."""
        from threadpoolctl import threadpool_limits

        try:
            start = self.engine.start(self.structure)
            kind, reason = self.engine.objection(start)
            if kind:
                raise FailedError(kind, reason)
            self.structure = _bare(start)
            with threadpool_limits(self.engine.threads):
                self._check_cutoff()
                result = self._relaxed()
                return self._succeeded(result, self._settled(result))
        except FailedError as failure:
            return self._failed(failure)

    def _check_cutoff(self) -> None:
        engine = self.engine
        if engine.check_cutoff is None:
            return
        from gpaw import KohnShamConvergenceError

        symbols = self.structure.symbol_set
        try:
            check = check_cutoff(symbols, engine.functional, engine.cutoff, engine.check_cutoff)
        except KohnShamConvergenceError as error:
            names = "-".join(sorted(symbols))
            text = f"the cutoff could not be checked for {names}: a prototype did not converge"
            raise FailedError("cutoff", text) from error
        self.check = check
        if not check.passed:
            names = "-".join(dict.fromkeys(check.worst.elements))
            enough = check.sufficient
            better = f"{enough:g} eV would do" if enough else "no cutoff tried would do"
            raise FailedError(
                "cutoff",
                f"a cutoff of {engine.cutoff:g} eV is not converged for {names}: formation "
                f"energies shift by {abs(check.worst.shift):.3f} eV/atom with a higher one, "
                f"{engine.check_cutoff:g} allowed; {better}",
            )

    def _relaxed(self) -> AseResult:
        """Relax the crystal, or calculate it as it is."""
        engine = self.engine
        self.mesh = kpoint_mesh(self.structure, engine.kpoint_density)
        if engine.relax == "none":
            return self.runner.relax("energy", self.structure, self.mesh, STATIC)
        self.slope = self._slope() if engine.relax == "cell" else None
        steps = engine.max_steps
        found = self.runner.relax("relaxation", self.structure, self.mesh, steps, self.slope or 0.0)
        if not found.converged:
            self.runner.reached = found.final_mol_or_struct
            raise FailedError(
                "steps",
                f"the relaxation did not converge: {engine.fmax:g} eV/Å was not reached in "
                f"{steps} steps",
            )
        return found

    def _slope(self) -> float:
        """Return the slope of the energy with the cutoff (dimensionless).

        Half the k-points along each axis will do: their errors cancel in the difference.
        """
        coarse = kpoint_mesh(self.structure, self.engine.kpoint_density / 2)
        low, high = (self.engine.cutoff * (1 + shift) for shift in (-_NEARBY, _NEARBY))
        first, second = (
            self.runner.energy(self.structure, coarse, cutoff) for cutoff in (low, high)
        )
        return (second - first) / (high - low)

    def _settled(self, result: AseResult) -> AseResult | None:
        """Calculate once more where the relaxed cell asks for another mesh of k-points."""
        final = result.final_mol_or_struct
        mesh = kpoint_mesh(final, self.engine.kpoint_density)
        if self.engine.relax == "none" or mesh == self.mesh:
            return None
        self.mesh = mesh
        return self.runner.relax("energy with the final k-points", final, mesh, STATIC)

    def _succeeded(self, result: AseResult, settled: AseResult | None) -> GpawTaskDoc:
        found = AseTaskDoc.from_ase_compatible_result(
            "gpaw",
            result,
            STATIC if self.engine.relax == "none" else self.engine.max_steps,
            relax_kwargs={"fmax": self.engine.fmax},
            optimizer_kwargs={"optimizer": "BFGS"},
            relax_cell=self.engine.relax == "cell",
            ionic_step_data=_PER_GEOMETRY,
            tags=self.tags,
        )
        if settled is not None:
            last = AseTaskDoc.from_ase_compatible_result("gpaw", settled, STATIC).output
            same = ("energy", "energy_per_atom", "forces", "stress")
            update = {name: getattr(last, name) for name in same}
            found.output = found.output.model_copy(update=update)
        document: GpawTaskDoc = GpawTaskDoc.from_ase_task_doc(found, gpaw=self._record())
        return document

    def _failed(self, failure: FailedError) -> GpawTaskDoc:
        structure = self.runner.reached or self.structure
        document: GpawTaskDoc = GpawTaskDoc.from_structure(
            meta_structure=structure,
            structure=structure,
            input=InputDoc(mol_or_struct=self.structure, relax_cell=self.engine.relax == "cell"),
            output=OutputDoc(mol_or_struct=structure),
            ase_calculator_name="gpaw",
            dir_name=os.getcwd(),
            state=TaskState.FAILED,
            tags=self.tags,
            gpaw=self._record(failure),
        )
        return document

    def _record(self, failure: FailedError | None = None) -> GpawRecord:
        gpaw, data = versions()
        return GpawRecord(
            versions={"gpaw": gpaw, "gpaw-data": data},
            settings=self.engine.settings(),
            kpoints=self.mesh,
            attempts=self.runner.attempts,
            cutoff_check=self.check,
            cutoff_slope=self.slope,
            failure=failure.kind if failure else "",
            reason=str(failure) if failure else "",
            magnetic_moment=self.runner.moment,
            calls=self.runner.calls,
            seconds=round(self.runner.seconds, 3),
        )


def _bare(structure: Structure) -> Structure:
    """Return a crystal of elements without charges, with the moments its sites were given."""
    magmom = structure.site_properties.get("magmom")
    return Structure(
        structure.lattice,
        [site.specie.symbol for site in structure],
        structure.frac_coords,
        site_properties={"magmom": magmom} if magmom else None,
    )
