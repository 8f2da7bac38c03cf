"""CP2K as an engine: Gaussians and plane waves, through atomate2's Makers and custodian."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from monty.json import MSONable
from pymatgen.core import SETTINGS as PYMATGEN_SETTINGS
from pymatgen.core import Structure

from matloop.documents.candidate import Quantity
from matloop.documents.evaluation import Cost, Evaluation
from matloop.documents.theory import DftSettings, LevelOfTheory
from matloop.errors import MissingDependencyError

if TYPE_CHECKING:
    from jobflow import Job

RYDBERG = 13.605693
"""One Rydberg (eV)."""

_DEFAULT_BASIS = "MOLOPT, chosen by atomate2"
_DENSE = 0.05  # s per k-point and basis functions to the power 1.3, per geometry
_GRID = 5e-5  # s per Å^3 and Ry^1.5, per geometry


@dataclass(frozen=True)
class Cp2k(MSONable):
    """Density-functional theory with CP2K, run by atomate2's Makers under custodian.

    The functional is PBE, with Goedecker-Teter-Hutter potentials and spin polarisation. atomate2
    would choose the cutoff from the elements of each crystal; here it is the same for all, so that
    energies of one engine belong on one hull.

    The command is atomate2's setting ``ATOMATE2_CP2K_CMD``, the folder of basis sets and
    potentials is pymatgen's ``PMG_CP2K_DATA_DIR``.

    Attributes
    ----------
    basis
        Name of the basis set, the same for all elements, such as ``DZVP-MOLOPT-SR-GTH``; empty for
        atomate2's choice, the MOLOPT set of triple zeta quality.
    cutoff
        Cutoff of the finest grid (Ry).
    relative_cutoff
        Cutoff that decides which grid a Gaussian goes to (Ry).
    reciprocal_density
        k-points per volume of reciprocal space (1/Å^-3), Γ-centred or shifted as pymatgen decides.
    electronic_temperature
        Temperature of the Fermi-Dirac smearing (K).
    relax
        ``cell`` relaxes cell and atoms, ``atoms`` the atoms alone, ``none`` calculates the crystal
        as it is.
    max_atoms
        Crystals with more atoms fail.
    """

    basis: str = ""
    cutoff: float = 600.0
    relative_cutoff: float = 60.0
    reciprocal_density: float = 64.0
    electronic_temperature: float = 300.0
    relax: Literal["cell", "atoms", "none"] = "cell"
    max_atoms: int = 100

    produces: ClassVar[Mapping[str, str]] = {
        "energy_per_atom": "eV/atom",
        "max_force": "eV/Å",
        "volume_change": "",
    }

    def __post_init__(self) -> None:
        for name in (
            *("cutoff", "relative_cutoff", "reciprocal_density"),
            *("electronic_temperature", "max_atoms"),
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")

    def theory(self, structure: Structure) -> LevelOfTheory:
        """Return the level of theory, the same for every crystal; asks CP2K for its version.

        Raises
        ------
        MissingDependencyError
            If the command is not there.
        """
        return self.level(_version(_command()))

    def level(self, version: str) -> LevelOfTheory:
        """Return the level of theory of this engine's energies with a version of CP2K."""
        return LevelOfTheory(
            kind="dft",
            code="cp2k",
            version=version,
            model="PBE",
            settings={
                "potentials": "GTH-PBE",
                "grid_cutoff_Ry": self.cutoff,
                "relative_cutoff_Ry": self.relative_cutoff,
                "spin": "on",
            },
            dft=DftSettings(
                u_values={},
                basis=self.basis or _DEFAULT_BASIS,
                cutoff=round(self.cutoff * RYDBERG, 3),
                k_density=f"{self.reciprocal_density:g} points per 1/Å^3",
                smearing=f"fermi-dirac {self.electronic_temperature:g} K",
            ),
        )

    def calculation(self, structure: Structure, name: str) -> Job:
        """Return the job of atomate2's Maker, whose output is atomate2's CP2K ``TaskDocument``.

        For a crystal that CP2K cannot take, or that is too large, it is a job that says so.
        """
        from atomate2.cp2k.jobs.core import CellOptMaker, RelaxMaker, StaticMaker
        from atomate2.cp2k.sets.core import (
            CellOptSetGenerator,
            RelaxSetGenerator,
            StaticSetGenerator,
        )

        objection = self.objection(structure)
        if objection:
            from matloop.engines.refusal import refuse

            return refuse(objection, name)
        maker, generator = {
            "none": (StaticMaker, StaticSetGenerator),
            "atoms": (RelaxMaker, RelaxSetGenerator),
            "cell": (CellOptMaker, CellOptSetGenerator),
        }[self.relax]
        inputs = generator(
            user_input_settings=self.inputs(structure),
            user_kpoints_settings={"reciprocal_density": self.reciprocal_density},
        )
        plain = structure.copy().remove_oxidation_states()
        return maker(
            name=name,
            input_set_generator=inputs,
            task_document_kwargs={"additional_fields": {"tags": _description(plain)}},
        ).make(plain)

    def inputs(self, structure: Structure) -> dict[str, Any]:
        """Return what differs from atomate2's CP2K inputs."""
        inputs: dict[str, Any] = {
            "cutoff": self.cutoff,
            "rel_cutoff": self.relative_cutoff,
            "smearing": True,
            "elec_temp": self.electronic_temperature,
        }
        if self.basis:
            symbols = sorted(structure.symbol_set)
            inputs["basis_and_potential"] = {symbol: {"basis": self.basis} for symbol in symbols}
        return inputs

    def objection(self, structure: Structure) -> str:
        """Return why a crystal is not calculated; empty if it is."""
        if not structure.is_ordered:
            return "a disordered crystal cannot be calculated"
        if len(structure) > self.max_atoms:
            return f"{len(structure)} atoms are more than the {self.max_atoms} allowed"
        from atomate2.cp2k.sets.base import _BASE_CP2K_SET

        known = _BASE_CP2K_SET["cp2k_input"]["basis_and_potential"]
        for symbol in sorted({site.specie.symbol for site in structure}):
            if not (known.get(symbol) or {}).get("potential"):
                return f"atomate2 has no CP2K potential and basis for {symbol}"
        return ""

    def evaluation(self, candidate_id: str, document: Mapping[str, object] | None) -> Evaluation:
        """Return the verdict on a candidate; ``fail`` wherever there is no energy to trust."""
        if document is None:
            reason = (
                "the CP2K calculation left no result: custodian could not repair it, or it died"
            )
            return Evaluation(candidate_id=candidate_id, verdict="fail", reason=reason)
        if "refused" in document:
            return Evaluation(
                candidate_id=candidate_id, verdict="fail", reason=str(document["refused"])
            )
        from atomate2.cp2k.schemas.task import TaskDocument

        found = _task_document(document, TaskDocument)
        cost = _cost(found)
        energy = found.output.energy_per_atom if found.output else None
        state = str(getattr(found.state, "value", found.state))
        if state != "successful" or energy is None or not math.isfinite(energy):
            errors = "; ".join((found.analysis.errors if found.analysis else None) or [])
            return Evaluation(
                candidate_id=candidate_id,
                verdict="fail",
                reason=f"CP2K ended {state}: {errors or 'not converged'}",
                cost=cost,
            )
        other = self._strange(found)
        if other:
            return Evaluation(candidate_id=candidate_id, verdict="fail", reason=other, cost=cost)
        theory = self.level(_number(found.calcs_reversed[0].cp2k_version))
        return Evaluation(
            candidate_id=candidate_id,
            verdict="pass",
            reason="self-consistent" if self.relax == "none" else "relaxed by CP2K",
            quantities=self._quantities(found, theory),
            structure=None if self.relax == "none" else found.structure,
            theory=theory,
            cost=cost,
        )

    def _strange(self, found: Any) -> str:
        """Return what of a document is not what was asked for; empty if all is.

        custodian unpacks what it finds in its folder: in the folder of an earlier calculation,
        CP2K reads that one's input, and its energy comes out well and wrong.
        """
        asked = dict(tag.split("=", 1) for tag in found.tags or [] if "=" in tag)
        given = dict(tag.split("=", 1) for tag in _description(found.input.structure))
        if "volume" in asked and (
            asked["formula"] != given["formula"]
            or not math.isclose(float(asked["volume"]), float(given["volume"]), rel_tol=1e-3)
        ):
            return (
                f"CP2K calculated another crystal, {given['formula']} for {asked['formula']}: "
                "its folder held the files of an earlier calculation"
            )
        cutoff = _grid_cutoff(found.calcs_reversed[0].input.cp2k_input)
        if cutoff is not None and not math.isclose(cutoff, self.cutoff, rel_tol=1e-6):
            return f"CP2K used a cutoff of {cutoff:g} Ry, not the {self.cutoff:g} Ry asked for"
        kinds = found.input.atomic_kind_info.atomic_kinds.values()
        used = sorted({str(kind.basis) for kind in kinds})
        if self.basis and used != [self.basis]:
            return f"CP2K used the basis {', '.join(used)}, not the {self.basis} asked for"
        return ""

    def _quantities(self, found: Any, theory: LevelOfTheory) -> dict[str, Quantity]:
        energy = float(found.output.energy_per_atom)
        quantities = {"energy_per_atom": Quantity(value=energy, unit="eV/atom", theory=theory.key)}
        if found.output.forces:
            force = max(math.hypot(*row) for row in found.output.forces)
            quantities["max_force"] = Quantity(value=force, unit="eV/Å", theory=theory.key)
        if self.relax != "none":
            change = found.structure.volume / found.input.structure.volume - 1.0
            quantities["volume_change"] = Quantity(value=change)
        return quantities

    def core_hours(self, structure: Structure) -> float:
        """Return the estimated cost (core-hours): an order of magnitude.

        Matrices grow with the basis functions at every k-point, the grid with volume and cutoff.
        The constants are those of silicon with two basis sets, two cutoffs and two meshes; a
        crystal that is hard to make self-consistent takes several times as long.
        """
        points = max(1.0, self.reciprocal_density * structure.lattice.reciprocal_lattice.volume / 2)
        functions = len(structure) * (4 if self.basis.startswith("SZV") else 13)
        dense = _DENSE * points * functions**1.3
        grid = _GRID * structure.volume * self.cutoff**1.5
        geometries = 1 if self.relax == "none" else 10 + len(structure)
        return float((dense + grid) * geometries / 3600)

    def problems(self) -> list[str]:
        """Return what this machine lacks, one line each."""
        try:
            command = _command()
        except MissingDependencyError as error:
            return [str(error)]
        found = []
        if shutil.which(command[0]) is None:
            found.append(f"CP2K's command {command[0]!r} is not found; set ATOMATE2_CP2K_CMD")
        folder = PYMATGEN_SETTINGS.get("PMG_CP2K_DATA_DIR")
        if not folder:
            found.append("PMG_CP2K_DATA_DIR is not set; `pmg config --cp2k` makes that folder")
        elif not (Path(folder) / "Si").exists():
            found.append(f"{folder} holds no basis sets as `pmg config --cp2k` writes them")
        if PYMATGEN_SETTINGS.get("PMG_DEFAULT_CP2K_FUNCTIONAL") != "PBE":
            found.append("PMG_DEFAULT_CP2K_FUNCTIONAL must be PBE")
        if os.environ.get("CP2K_DATA_DIR"):
            found.append("CP2K_DATA_DIR must not be set: pymatgen would read basis sets from it")
        return found


def _command() -> list[str]:
    try:
        from atomate2 import SETTINGS
    except ImportError as error:
        raise MissingDependencyError(
            "atomate2 is not installed; the extra matloop[cluster] brings it"
        ) from error
    return shlex.split(os.path.expandvars(SETTINGS.CP2K_CMD))


def _version(command: list[str]) -> str:
    program = next((part for part in command if Path(part).name.startswith("cp2k")), command[-1])
    return _asked(program)


@cache
def _asked(program: str) -> str:
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingDependencyError(
            f"CP2K's command {program!r} cannot be run; set ATOMATE2_CP2K_CMD"
        ) from error
    return _number(answer.stdout)


def _number(text: str | None) -> str:
    """Return ``2023.1`` of ``CP2K version 2023.1 (Development)``."""
    words = (text or "").replace(",", " ").split()
    return next((word for word in words if word[0].isdigit()), "unknown")


def _task_document(document: Any, cls: type[Any]) -> Any:
    if isinstance(document, cls):
        return document
    plain = {key: value for key, value in document.items() if not key.startswith("@")}
    return cls.model_validate(plain)


def _description(structure: Structure) -> list[str]:
    """Return tags by which a document's crystal is recognised."""
    formula = "".join(structure.composition.hill_formula.split())
    return [f"formula={formula}", f"volume={structure.volume:.6f}"]


def _grid_cutoff(written: Any) -> float | None:
    """Return the cutoff (Ry) in an input of CP2K, as pymatgen's object or its dictionary."""
    from pymatgen.io.cp2k.inputs import Cp2kInput

    inputs = written if isinstance(written, Cp2kInput) else Cp2kInput.from_dict(written)
    try:
        return float(inputs["FORCE_EVAL"]["DFT"]["MGRID"]["CUTOFF"].values[0])
    except (KeyError, IndexError, TypeError):
        return None


def _cost(found: Any) -> Cost:
    overall = (found.run_stats or {}).get("overall")
    seconds = float(overall.total_time or 0.0) if overall else 0.0
    steps = (found.calcs_reversed[0].output.ionic_steps or []) if found.calcs_reversed else []
    calls = max(1, len(steps))
    return Cost(seconds=seconds, work=float(calls * len(found.structure)), calls=calls)
