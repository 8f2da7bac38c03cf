"""GPAW as an engine: plane waves, PAW data sets, one protocol for every crystal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from monty.json import MSONable
from pymatgen.core import Structure

from matloop.documents.candidate import Quantity
from matloop.documents.evaluation import Cost, Evaluation
from matloop.documents.theory import DftSettings, LevelOfTheory
from matloop.engines.frames import frames_of
from matloop.engines.gpaw import cost
from matloop.engines.gpaw.datasets import PAW_OF, lacking, versions
from matloop.errors import MissingDependencyError
from matloop.structures.symmetry import SymmetryError, primitive_cell

if TYPE_CHECKING:
    from jobflow import Job

    from matloop.engines.gpaw.document import GpawTaskDoc

MOMENTS = {
    "V": 1.0, "Cr": 3.0, "Mn": 4.0, "Fe": 3.0, "Co": 2.0, "Ni": 1.0,
    "Ce": 1.0, "Pr": 2.0, "Nd": 3.0, "Sm": 5.0, "Eu": 7.0, "Gd": 7.0, "Tb": 6.0, "Dy": 5.0,
    "Ho": 4.0, "Er": 3.0, "Tm": 2.0, "U": 2.0,
}  # fmt: skip
"""Elements that start with a magnetic moment (Bohr magnetons), parallel, near high spin."""

_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Gpaw(MSONable):
    """Density-functional theory with GPAW in plane waves, relaxing the crystal if asked to.

    Every crystal is calculated with the same cutoff, k-point density and smearing, so that all
    energies of one engine belong on one hull, elements included. Energies are extrapolated to zero
    smearing. Cores are frozen, with the PAW data sets of the ``gpaw-data`` package.

    Attributes
    ----------
    functional
        Exchange-correlation functional. PBEsol and r2SCAN use the frozen cores of PBE.
    cutoff
        Plane-wave cutoff (eV). 600 suits oxides and fluorides, 400 most metals and semiconductors;
        `check_cutoff` says if it does not.
    kpoint_density
        Points of the Γ-centred mesh per length of reciprocal space (1/Å^-1, with the factor 2π):
        4 is a spacing of at most 0.25/Å. The energy is that of the mesh of the relaxed cell.
    smearing
        Occupation of the bands.
    width
        Width of the smearing (eV).
    relax
        ``cell`` relaxes cell and atoms, ``atoms`` the atoms alone, ``none`` calculates the crystal
        as it is.
    symprec
        Distance (Å) within which a crystal's atoms are moved to where its symmetry wants them
        before it is calculated, in its primitive cell; 0 leaves it as it is. What a potential has
        relaxed is often a little off its symmetry, which multiplies the k-points. Crystals with
        given ``magmom`` are left as they are.
    fmax
        Largest force on an atom, or on a row of the cell, of a relaxed crystal (eV/Å).
    max_steps
        Steps after which a relaxation that has not converged fails.
    spin
        ``auto`` polarises crystals that hold an element with a starting moment; ``on`` all; ``off``
        none.
    moments
        Starting moments by element (Bohr magnetons), in addition to, or instead of, those known for
        3d and 4f metals; 0 takes an element out. A ``magmom`` given on the sites of a crystal goes
        first.
    check_cutoff
        Largest shift of formation energies (eV/atom) when the cutoff is raised by a factor of 1.4,
        measured once per pair of elements; a crystal of elements that exceed it fails, with the
        cutoff that would do. Empty skips the check.
    scf_energy
        Convergence of the energy between steps of self-consistency (eV per valence electron).
    scf_density
        Convergence of the density (electrons per valence electron).
    max_scf_steps
        Steps of self-consistency after which it is tried again, once, with cautious mixing and
        three times as many.
    max_atoms
        Crystals with more atoms fail.
    max_kpoints
        Crystals whose mesh has more points, before symmetry, fail.
    walltime
        Hours after which a calculation stops and fails, with the geometry it reached; empty for
        none.
    threads
        Threads of one calculation.
    """

    functional: Literal["PBE", "PBEsol", "RPBE", "revPBE", "LDA", "r2SCAN"] = "PBE"
    cutoff: float = 600.0
    kpoint_density: float = 4.0
    smearing: Literal["fermi-dirac", "marzari-vanderbilt"] = "fermi-dirac"
    width: float = 0.1
    relax: Literal["cell", "atoms", "none"] = "cell"
    symprec: float = 0.0
    fmax: float = 0.03
    max_steps: int = 60
    spin: Literal["auto", "on", "off"] = "auto"
    moments: dict[str, float] = field(default_factory=dict)
    check_cutoff: float | None = 0.01
    scf_energy: float = 1e-4
    scf_density: float = 1e-4
    max_scf_steps: int = 100
    max_atoms: int = 40
    max_kpoints: int = 8000
    walltime: float | None = None
    threads: int = 1

    produces: ClassVar[Mapping[str, str]] = {
        "energy_per_atom": "eV/atom",
        "relaxation_steps": "",
        "max_force": "eV/Å",
        "volume_change": "",
    }

    def __post_init__(self) -> None:
        for name in (
            *("cutoff", "kpoint_density", "width", "fmax", "max_steps", "scf_energy"),
            *("scf_density", "max_scf_steps", "max_atoms", "max_kpoints", "threads"),
            *("check_cutoff", "walltime"),
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}")
        if self.symprec < 0:
            raise ValueError(f"symprec must not be negative, got {self.symprec!r}")
        if self.functional not in PAW_OF:
            known = ", ".join(PAW_OF)
            raise ValueError(f"functional must be one of {known}, got {self.functional!r}")

    def theory(self, structure: Structure) -> LevelOfTheory:
        """Return the level of theory, the same for every crystal; runs nothing.

        Raises
        ------
        MissingDependencyError
            If GPAW is not installed, whose version it names.
        """
        return self.level()

    def level(self) -> LevelOfTheory:
        """Return the level of theory of all energies of this engine."""
        gpaw, data = versions()
        settings: dict[str, str | float | int | bool] = {
            "paw": f"gpaw-data {data}, {PAW_OF[self.functional]} cores",
            "spin": self.spin,
        }
        if self.spin != "off":
            moments = sorted(self.starting_moments().items())
            settings["starting_moments"] = " ".join(f"{name} {value:g}" for name, value in moments)
        return LevelOfTheory(
            kind="dft",
            code="gpaw",
            version=gpaw,
            model=self.functional,
            settings=settings,
            dft=DftSettings(
                u_values={},
                basis="plane waves",
                cutoff=self.cutoff,
                k_density=f"{self.kpoint_density:g} points per 1/Å, Γ-centred",
                smearing=f"{self.smearing} {self.width:g} eV, extrapolated to zero",
            ),
        )

    def calculation(self, structure: Structure, name: str) -> Job:
        """Return the job whose output is a `GpawTaskDoc`, an ASE task document of atomate2.

        It also ends well where GPAW does not: the document then says what went wrong.
        """
        from matloop.engines.gpaw.maker import GpawMaker

        return GpawMaker(engine=self, name=name).make(structure)

    def evaluation(self, candidate_id: str, document: Mapping[str, object] | None) -> Evaluation:
        """Return the verdict on a candidate; ``fail`` wherever there is no energy to trust."""
        if document is None:
            return Evaluation(
                candidate_id=candidate_id,
                verdict="fail",
                reason="the GPAW calculation left no result: its process died, or was stopped",
            )
        from matloop.engines.gpaw.document import GpawTaskDoc

        found = GpawTaskDoc.model_validate(_plain(document))
        record = found.gpaw
        energy = found.output.energy_per_atom if found.output else None
        if record is None or record.failure or energy is None:
            reason = record.reason if record and record.reason else "GPAW reported no energy"
            theory = None
        else:
            reason, theory = _success(found), self.level()
        calls = record.calls if record else 0
        return Evaluation(
            candidate_id=candidate_id,
            verdict="fail" if theory is None else "pass",
            reason=reason,
            quantities={} if theory is None else _quantities(found, theory),
            structure=None if theory is None or self.relax == "none" else found.structure,
            theory=theory,
            frames=() if theory is None else frames_of(found.output, found.structure),
            cost=Cost(
                seconds=record.seconds if record else 0.0,
                work=float(calls * len(found.structure)) if found.structure else 0.0,
                calls=calls,
                threads=self.threads,
            ),
        )

    def core_hours(self, structure: Structure) -> float:
        """Return the estimated cost (core-hours) from electrons, plane waves and k-points.

        The check of the cutoff, paid once per pair of elements, is left out.
        """
        structure = self.start(structure)
        estimate = cost.seconds(
            structure,
            functional=self.functional,
            cutoff=self.cutoff,
            density=self.kpoint_density,
            spins=2 if self.polarised(structure) else 1,
            steps=cost.geometries(structure, self.max_steps, self.relax),
        )
        return estimate / _SECONDS_PER_HOUR

    def problems(self) -> list[str]:
        """Return what this machine lacks, one line each."""
        found = []
        try:
            versions()
        except MissingDependencyError as error:
            found.append(str(error))
        else:
            if find_spec("_gpaw") is None:
                found.append("GPAW's compiled part is missing; `make gpaw` builds it")
        if find_spec("atomate2") is None:
            found.append("atomate2 is not installed; the extra matloop[cluster] brings it")
        threads = os.environ.get("OMP_NUM_THREADS")
        if threads is not None and threads.isdigit() and int(threads) < self.threads:
            found.append(f"OMP_NUM_THREADS is {threads}, but gpaw is to use {self.threads} threads")
        return found

    def start(self, structure: Structure) -> Structure:
        """Return the crystal as its calculation begins: symmetrised, where `symprec` says so."""
        if not self.symprec or any(structure.site_properties.get("magmom") or ()):
            return structure
        try:
            return primitive_cell(structure, self.symprec)
        except SymmetryError:
            return structure

    def objection(self, structure: Structure) -> tuple[Literal["", "elements", "size"], str]:
        """Return why a crystal is not calculated, kind and clause; both empty if it is.

        Parameters
        ----------
        structure
            The crystal.
        """
        if not structure.is_ordered:
            return "elements", "a disordered crystal cannot be calculated"
        missing = lacking((site.specie.symbol for site in structure), self.functional)
        if missing:
            return "elements", f"gpaw-data has no {self.functional} data set for {missing[0]}"
        if len(structure) > self.max_atoms:
            return "size", f"{len(structure)} atoms are more than the {self.max_atoms} allowed"
        mesh = cost.kpoint_mesh(structure, self.kpoint_density)
        points = mesh[0] * mesh[1] * mesh[2]
        if points > self.max_kpoints:
            text = f"a mesh of {mesh[0]}×{mesh[1]}×{mesh[2]} k-points"
            return "size", f"{text} is more than the {self.max_kpoints} points allowed"
        return "", ""

    def starting_moments(self) -> dict[str, float]:
        """Return the starting moment of each element that has one (Bohr magnetons)."""
        return {name: value for name, value in {**MOMENTS, **self.moments}.items() if value}

    def site_moments(self, structure: Structure) -> list[float]:
        """Return the starting moment of each site (Bohr magnetons)."""
        known = self.starting_moments()
        given = structure.site_properties.get("magmom") or [None] * len(structure)
        return [
            known.get(site.specie.symbol, 0.0) if moment is None else float(moment)
            for site, moment in zip(structure, given, strict=True)
        ]

    def polarised(self, structure: Structure) -> bool:
        """Whether a crystal is calculated with spin polarisation."""
        if self.spin != "auto":
            return self.spin == "on"
        return any(self.site_moments(structure))

    def settings(self) -> dict[str, Any]:
        """Return the parameters, as the task document records them."""
        return asdict(self)


def _plain(document: Any) -> Any:
    """Return a task document as a dictionary, whether a store or jobflow brought it."""
    if hasattr(document, "model_dump"):
        return document.model_dump()
    return {key: value for key, value in document.items() if not key.startswith("@")}


def _success(document: GpawTaskDoc) -> str:
    assert document.gpaw is not None
    record = document.gpaw
    faults = [attempt.outcome for attempt in record.attempts if attempt.outcome != "converged"]
    again = f", at a second attempt, the first: {faults[0]}" if faults else ""
    if record.settings.get("relax") == "none":
        return f"self-consistent{again}"
    return f"relaxed in {_steps(document)} steps{again}"


def _steps(document: GpawTaskDoc) -> int:
    # atomate2 counts the first geometry, and the last one twice
    return max(0, (document.output.n_steps or 2) - 2)


def _max_force(document: GpawTaskDoc) -> float:
    forces = document.output.forces or []
    return max((sum(x * x for x in force) ** 0.5 for force in forces), default=0.0)


def _quantities(document: GpawTaskDoc, theory: LevelOfTheory) -> dict[str, Quantity]:
    assert document.gpaw is not None
    energy, force = document.output.energy_per_atom, _max_force(document)
    found = {
        "energy_per_atom": Quantity(value=energy, unit="eV/atom", theory=theory.key),
        "max_force": Quantity(value=force, unit="eV/Å", theory=theory.key),
    }
    before = document.input.structure if document.input else None
    if document.gpaw.settings.get("relax") != "none" and before is not None:
        change = document.structure.volume / before.volume - 1.0
        found["volume_change"] = Quantity(value=change)
        found["relaxation_steps"] = Quantity(value=float(_steps(document)))
    return found
