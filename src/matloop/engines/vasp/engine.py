"""VASP as an engine: what will be run, at which level of theory, what it costs, what it found."""

from __future__ import annotations

import math
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from monty.json import MSONable
from pymatgen.core import Structure

from matloop.documents.base import digest
from matloop.documents.evaluation import Evaluation
from matloop.documents.theory import LevelOfTheory
from matloop.engines.vasp import cost
from matloop.engines.vasp.levels import Level, Magnetism, Settings, k_mesh, magnetised, makers
from matloop.errors import MissingDependencyError

if TYPE_CHECKING:
    from atomate2.vasp.jobs.base import BaseVaspMaker
    from jobflow import Job

    from matloop.engines.vasp.specification import Specification

Value = bool | int | float | str | list[float] | dict[str, float] | None
"""What a setting of VASP may be."""

WITHOUT_EFFECT = frozenset(
    [
        "KPAR",
        "LAECHG",
        "LCHARG",
        "LELF",
        "LORBIT",
        "LPLANE",
        "LSCALAPACK",
        "LVHAR",
        "LVTOT",
        "LWAVE",
        "NBLOCK",
        "NCORE",
        "NEDOS",
        "NPAR",
        "NSIM",
        "NWRITE",
        "SYSTEM",
    ]
)
"""INCAR tags that change what VASP writes, or how it divides the work, and no energy."""


@dataclass(frozen=True)
class Vasp(MSONable):
    """Relax twice and compute the energy with VASP, as the Materials Project does.

    The runs are atomate2's own, with custodian's handlers; their task documents go to the job store
    as everywhere with atomate2. A run that is interrupted continues from its last geometry in a new
    folder. A candidate fails, with the reason, if a run fails for good, is refused for its size, or
    turns out not to be of the planned level of theory.

    Attributes
    ----------
    level
        ``mp-gga``: PBE or PBE+U with MP2020 corrections, comparable with the Materials Project.
        ``mp-r2scan``: a PBEsol relaxation, then r2SCAN, without corrections.
    user_incar_settings
        INCAR tags that override the level's in every run.
    user_kpoints_settings
        k-point settings that override the level's in every run, such as reciprocal_density: 64.
    magnetism
        Starting moments. ``mp``: the Materials Project's per element, high-spin and parallel.
        ``ferromagnetic``: 5 µB on d-block atoms, 7 µB on f-block atoms, 0.6 µB on others. ``site``:
        the site property ``magmom``. ``nonmagnetic``: no spins at all.
    version
        VASP's version, as far as it matters: ``6`` allows all its releases, ``6.4`` those of one
        line. A run of another version fails.
    max_atoms
        Crystals with more atoms fail without a run.
    max_k_points
        Crystals whose mesh has more points, before symmetry, fail without a run.
    max_restarts
        How often, in all, runs may begin again from their last geometry.
    walltime_margin
        Time before the end of the SLURM job at which VASP is asked to stop after its ionic step,
        and continued in a new job (s).
    core_gflops
        Operations per second that VASP achieves on one core here (10^9/s), for the estimated cost.
    custodian
        Keyword arguments of custodian, such as polling_time_step.
    electronic_structure
        Keep densities of states and bands; the job store then needs a store named ``data``.
    potcar_spec
        Write the names of the pseudopotentials in place of POTCAR files: for replays of recorded
        runs. Real VASP cannot run so.

    References
    ----------
    mp-gga: Jain et al., APL Mater. 1, 011002 (2013); corrections: Wang et al., Sci. Rep. 11, 15496
    (2021). mp-r2scan: Kingsbury et al., Phys. Rev. Mater. 6, 013801 (2022).
    """

    level: Level = "mp-gga"
    user_incar_settings: dict[str, Value] = field(default_factory=dict)
    user_kpoints_settings: dict[str, Value] = field(default_factory=dict)
    magnetism: Magnetism = "mp"
    version: str = "6"
    max_atoms: int = 100
    max_k_points: int = 3000
    max_restarts: int = 3
    walltime_margin: int = 600
    core_gflops: float = 5.0
    custodian: dict[str, bool | int | float | str] = field(default_factory=dict)
    electronic_structure: bool = False
    potcar_spec: bool = False

    produces: ClassVar[Mapping[str, str]] = {
        "energy_per_atom": "eV/atom",
        "uncorrected_energy": "eV/atom",
        "band_gap": "eV",
        "magnetization": "µB",
    }
    moves_atoms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("max_atoms", "max_k_points", "core_gflops"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")
        for name in ("max_restarts", "walltime_margin"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r}")
        for key in self.user_incar_settings:
            if key != key.upper():
                raise ValueError(f"user_incar_settings: VASP's tags are in capitals, got {key!r}")

    def theory(self, structure: Structure) -> LevelOfTheory:
        """Return the level of theory of a crystal's energy, before anything is run.

        With MP2020 corrections it is the scheme's, which puts PBE and PBE+U on one scale; settings
        of the user that change energies make it another.
        """
        raw = self.plan(structure).theory()
        return self._corrected(raw) or raw

    def plan(self, structure: Structure) -> Specification:
        """Return what the static run of a crystal is meant to be: U, pseudopotentials, cutoff."""
        from matloop.engines.vasp.specification import planned

        return planned(_bare(structure), self._steps[-1], self.version)

    def calculation(self, structure: Structure, name: str) -> Job:
        """Return the job whose output ends as the `TaskDoc` of the static run.

        The job replaces itself: by the next run, or by a restart. A crystal that is refused gives
        a job that ends at once.
        """
        from matloop.engines.vasp.chain import VaspChainMaker

        objection = self.objection(structure) or ""
        start = structure if objection else self._start(structure)
        maker = VaspChainMaker(
            steps=self._steps,
            title=name,
            max_restarts=self.max_restarts,
            walltime_margin=self.walltime_margin,
            custodian=dict(self.custodian),
            objection=objection,
        )
        return maker.begin(start)

    def objection(self, structure: Structure) -> str | None:
        """Return why a crystal must not be calculated; None if it may."""
        if not structure.is_ordered:
            return "the structure is disordered"
        if len(structure) > self.max_atoms:
            return f"it has {len(structure)} atoms, at most {self.max_atoms} are allowed"
        if not math.isfinite(structure.volume) or structure.volume <= 0:
            return "its cell has no volume"
        try:
            points = max(math.prod(k_mesh(self._start(structure), step)) for step in self._steps)
        except Exception as error:  # no pseudopotential or U for an element, no moments, bad cells
            return f"no VASP input can be written: {_first_line(error)}"
        if points > self.max_k_points:
            return f"its mesh has {points} k-points, at most {self.max_k_points} are allowed"
        return None

    def evaluation(self, candidate_id: str, document: Mapping[str, object] | None) -> Evaluation:
        """Return the verdict derived from the task document; None if the calculation died."""
        from matloop.engines.vasp import verdicts
        from matloop.engines.vasp.specification import found

        if document is None:
            return verdicts.failed(
                candidate_id, "the calculation died without a word: killed, or its launch was lost"
            )
        try:
            task = verdicts.read(document)
        except Exception as error:  # pydantic's and pymatgen's, of any kind
            return verdicts.failed(candidate_id, f"no task document: {_first_line(error)}")
        reason = verdicts.failure_of(task)
        if reason:
            return verdicts.failed(candidate_id, reason, task)
        try:
            plan = self.plan(task.structure)
            was = found(task, plan, self._steps[-1])
        except Exception as error:
            return verdicts.failed(
                candidate_id, f"unreadable task document: {_first_line(error)}", task
            )
        reason = verdicts.strayed(plan, was)
        if reason:
            return verdicts.failed(candidate_id, reason, task)
        raw = was.theory()
        return verdicts.passed(candidate_id, task, raw, self._corrected(raw))

    def finished(self, document: Mapping[str, object]) -> bool:
        """Whether a task document is that of the last run, not of one that others follow."""
        from matloop.engines.vasp.chain import record

        return not record(document).get("followed")

    def core_hours(self, structure: Structure) -> float:
        """Return the estimated cost of all three runs (core-hours), before anything is run.

        A model, documented in `matloop.engines.vasp.cost`: floating-point operations of plane-wave
        DFT with assumed numbers of steps, divided by `core_gflops`.
        """
        start = self._start(structure)
        total = 0.0
        for step, steps in zip(self._steps, cost.IONIC_STEPS, strict=True):
            total += cost.core_seconds(self._size(start, step), steps, self.core_gflops)
        return total / 3600.0

    def problems(self) -> list[str]:
        """Return what this machine lacks to run VASP, one line each."""
        try:
            steps = self._steps
        except MissingDependencyError as error:
            return [str(error)]
        families = {str(step.input_set_generator.user_potcar_functional) for step in steps}
        found = [] if self.potcar_spec else _potcar_problems(sorted(families))
        return found + _command_problems()

    @cached_property
    def _steps(self) -> list[BaseVaspMaker]:
        try:
            return makers(
                self.level,
                Settings(
                    incar=self.user_incar_settings,
                    kpoints=self.user_kpoints_settings,
                    nonmagnetic=self.magnetism == "nonmagnetic",
                    potcar_spec=self.potcar_spec,
                    electronic_structure=self.electronic_structure,
                ),
            )
        except ImportError as error:
            raise MissingDependencyError(
                f"VASP runs through atomate2, which is not installed: "
                f"pip install 'matloop[cluster]' ({error})"
            ) from error

    def _start(self, structure: Structure) -> Structure:
        return magnetised(structure, self.magnetism)

    def _corrected(self, raw: LevelOfTheory) -> LevelOfTheory | None:
        from matloop.structures.mixing import mixed_theory

        if self.level != "mp-gga":
            return None
        scheme = mixed_theory("mp2020")
        changed = self._changed_settings()
        return scheme.model_copy(update={"settings": changed}) if changed else scheme

    def _changed_settings(self) -> dict[str, str | float | int | bool]:
        # What the user changed that the scheme knows nothing of.
        changed: dict[str, str | float | int | bool] = {}
        for key, value in sorted(self.user_incar_settings.items()):
            if key not in WITHOUT_EFFECT:
                plain = isinstance(value, str | float | int | bool)
                changed[key] = value if plain else digest(value)[:10]  # type: ignore[assignment]
        for key, value in sorted(self.user_kpoints_settings.items()):
            plain = isinstance(value, str | float | int | bool)
            changed[f"k-points: {key}"] = value if plain else digest(value)[:10]  # type: ignore[assignment]
        if self.magnetism == "nonmagnetic":
            changed["spins"] = "none"
        return changed

    def _size(self, structure: Structure, step: BaseVaspMaker) -> cost.Size:
        generator = step.input_set_generator
        inputs = generator.get_input_set(structure, potcar_spec=True)
        incar, symbols = inputs["INCAR"], inputs["POSCAR"].site_symbols
        potentials = dict(zip(symbols, generator.potcar_symbols, strict=True))
        electrons = sum(
            cost.valence_electrons(potentials[site.specie.symbol]) for site in structure
        )
        return cost.Size(
            electrons=electrons,
            bands=cost.bands(electrons, len(structure)),
            plane_waves=cost.plane_waves(structure.volume, float(incar["ENCUT"])),
            k_points=cost.irreducible(structure, k_mesh(structure, step)),
            spins=int(incar.get("ISPIN", 1)),
        )


def _bare(structure: Structure) -> Structure:
    plain = structure.copy()
    for name in list(plain.site_properties):
        plain.remove_site_property(name)
    return plain


def _potcar_problems(families: list[str]) -> list[str]:
    from pymatgen.core import SETTINGS
    from pymatgen.io.vasp.inputs import PotcarSingle

    where = SETTINGS.get("PMG_VASP_PSP_DIR") or os.environ.get("PMG_VASP_PSP_DIR")
    if not where:
        return [
            "PMG_VASP_PSP_DIR is not set: run `pmg config --add PMG_VASP_PSP_DIR <folder>` with "
            "the folder that holds the POTCARs"
        ]
    if not Path(where).is_dir():
        return [f"PMG_VASP_PSP_DIR is {where}, which is no folder"]
    own = SETTINGS.get("PMG_VASP_PSP_SUB_DIRS") or {}
    folders = {family: own.get(family, PotcarSingle.functional_dir[family]) for family in families}
    return [
        f"no POTCARs of {family}: {Path(where) / folder} is missing; `pmg config -p` makes it"
        for family, folder in folders.items()
        if not (Path(where) / folder).is_dir()
    ]


def _command_problems() -> list[str]:
    from atomate2 import SETTINGS

    command = os.path.expandvars(str(SETTINGS.VASP_CMD))
    try:
        words = shlex.split(command)
    except ValueError as error:
        return [f"the VASP command {command!r} cannot be read: {error}"]
    if not words:
        return ["no VASP command: set VASP_CMD in ~/.atomate2.yaml, or ATOMATE2_VASP_CMD"]
    programs = [words[0], *(w for w in words[1:] if Path(w).name.startswith("vasp"))]
    return [
        f"{program} of the VASP command {command!r} is not in PATH: set VASP_CMD in "
        "~/.atomate2.yaml, or ATOMATE2_VASP_CMD"
        for program in dict.fromkeys(programs)
        if shutil.which(program) is None
    ]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
