"""What a VASP calculation is meant to be, what its document says it was, and the difference."""

from __future__ import annotations

import bz2
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymatgen.core import Composition, Structure

from matloop.documents.theory import DftSettings, LevelOfTheory

if TYPE_CHECKING:
    from atomate2.vasp.jobs.base import BaseVaspMaker
    from emmet.core.tasks import TaskDoc

SPACINGS = (0.22, 0.44)
"""Range of k-point spacings chosen by the band gap (1/Å), closest for metals.

Wisesa et al., Phys. Rev. B 93, 155109 (2016), with the bounds of the r2SCAN input sets: Kingsbury
et al., Phys. Rev. Mater. 6, 013801 (2022).
"""

_BY_GAP = f"KSPACING by band gap, {SPACINGS[0]:g} to {SPACINGS[1]:g}"
_METAL_FACTOR = 2.0
_VASP_DEFAULTS: dict[str, Any] = {"ISMEAR": 1, "SIGMA": 0.2, "ISPIN": 1, "KSPACING": 0.5}


@dataclass(frozen=True)
class Specification:
    """What must be equal between a calculation as planned and as run.

    Attributes
    ----------
    functional
        ``GGA`` (PBE), ``r2SCAN``, or another as emmet names it, without ``+U``.
    u_values
        Hubbard U per element (eV), 0 where there is none.
    pseudopotentials
        Name per element, such as ``PBE Fe_pv``.
    family
        POTCAR family the names are from, such as ``PBE_54``; empty if a title fits none.
    cutoff
        Plane-wave cutoff (eV).
    k_density
        Rule behind the k-points.
    smearing
        Kind and width.
    spins
        Whether spins are treated.
    version
        VASP's version, as far as it matters: ``6`` stands for all of its releases.
    """

    functional: str
    u_values: dict[str, float]
    pseudopotentials: dict[str, str]
    family: str
    cutoff: float
    k_density: str
    smearing: str
    spins: bool
    version: str

    def theory(self) -> LevelOfTheory:
        """Return the level of theory of the energy as VASP computes it, without corrections."""
        return LevelOfTheory(
            kind="dft",
            code="vasp",
            version=self.version,
            model=self.functional,
            settings={} if self.spins else {"spins": "none"},
            dft=DftSettings(
                u_values=self.u_values,
                pseudopotentials=self.pseudopotentials,
                basis="plane waves",
                cutoff=self.cutoff,
                k_density=self.k_density,
                smearing=self.smearing,
            ),
        )

    def differences(self, other: Specification) -> list[str]:
        """Return what another specification says otherwise, one clause each."""
        found = []
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if isinstance(mine, dict):
                found += [
                    f"{item.name} of {key} {mine.get(key, 'none')} planned, "
                    f"{theirs.get(key, 'none')} found"
                    for key in sorted(mine.keys() | theirs.keys())
                    if mine.get(key) != theirs.get(key)
                ]
            elif mine != theirs:
                found.append(f"{item.name} {mine or 'none'} planned, {theirs or 'none'} found")
        return found


def planned(structure: Structure, step: BaseVaspMaker, version: str) -> Specification:
    """Return what a run will be, from the input it would write.

    Parameters
    ----------
    structure
        The crystal.
    step
        atomate2's Maker of the run.
    version
        VASP's version, as far as it matters.
    """
    generator = step.input_set_generator
    inputs = generator.get_input_set(structure, potcar_spec=True)
    incar = inputs["INCAR"]
    elements = inputs["POSCAR"].site_symbols
    family = str(generator.user_potcar_functional)
    return Specification(
        functional=_functional(incar),
        u_values=_u_values(incar, elements),
        pseudopotentials={
            element: f"PBE {name}"
            for element, name in sorted(zip(elements, generator.potcar_symbols, strict=True))
        },
        family=family,
        cutoff=float(incar["ENCUT"]),
        k_density=_planned_density(generator, incar),
        smearing=_planned_smearing(generator, incar),
        spins=int(incar.get("ISPIN", 1)) == 2,
        version=version,
    )


def found(document: TaskDoc, plan: Specification, step: BaseVaspMaker) -> Specification:
    """Return what a run was, from its task document.

    Where the plan is a rule, such as a k-point density, the run is held against the rule, and the
    specification repeats it if the run obeys.

    Parameters
    ----------
    document
        Task document of the run.
    plan
        What it was meant to be.
    step
        Maker of the run, to apply its rules to the crystal that was run.
    """
    calculation = (document.calcs_reversed or [None])[0]
    given = calculation.input if calculation is not None else None
    if calculation is None or given is None:
        raise ValueError("the task document holds no input")
    incar = dict(given.incar or {})
    elements = sorted(str(element) for element in Composition(document.structure.composition))
    titles = [str(spec.titel or "") for spec in given.potcar_spec or []]
    run_type = str(getattr(calculation.run_type, "value", calculation.run_type))
    structure = given.structure or document.structure
    mesh = _mesh_of(given)
    ran = str(document.vasp_version or calculation.vasp_version or "unknown").strip()
    return Specification(
        functional=run_type.removesuffix("+U"),
        u_values={e: float((given.hubbards or {}).get(e, 0.0)) for e in elements},
        pseudopotentials=dict(
            sorted((words[1].split("_")[0], f"PBE {words[1]}") for words in map(str.split, titles))
        ),
        family=plan.family if _belong(titles, plan.family) else "",
        cutoff=float(incar.get("ENCUT", math.nan)),
        k_density=_found_density(plan, incar, mesh, structure, step),
        smearing=_found_smearing(plan, incar, mesh),
        spins=int(incar.get("ISPIN", _VASP_DEFAULTS["ISPIN"])) == 2,
        version=plan.version if _is(ran, plan.version) else ran,
    )


def _functional(incar: Mapping[str, Any]) -> str:
    metagga = str(incar.get("METAGGA", "")).upper()
    if metagga in ("R2SCAN", "R2SCA"):
        return "r2SCAN"
    if metagga and metagga not in ("NONE", "--"):
        return metagga
    gga = str(incar.get("GGA", "PE")).upper()
    return {"PE": "GGA", "PS": "PBEsol"}.get(gga, gga)


def _u_values(incar: Mapping[str, Any], elements: list[str]) -> dict[str, float]:
    values = incar.get("LDAUU") if incar.get("LDAU") else None
    numbers = [float(value) for value in values] if values else [0.0] * len(elements)
    return dict(sorted(zip(elements, numbers, strict=True)))


def _smearing(settings: Mapping[str, Any]) -> str:
    kind = int(settings.get("ISMEAR", _VASP_DEFAULTS["ISMEAR"]))
    width = float(settings.get("SIGMA", _VASP_DEFAULTS["SIGMA"]))
    return f"ISMEAR {kind}, SIGMA {width:g} eV"


def _planned_smearing(generator: Any, incar: Mapping[str, Any]) -> str:
    # The tetrahedron method needs four k-points; input sets fall back on Gaussians below that,
    # which depends on the size of the cell. The rule is the method for enough of them.
    kind = generator.user_incar_settings.get("ISMEAR", generator.incar_updates.get("ISMEAR"))
    return _smearing({**incar, "ISMEAR": kind} if kind is not None else incar)


def _found_smearing(plan: Specification, incar: Mapping[str, Any], mesh: list[int]) -> str:
    text = _smearing(incar)
    small = mesh and math.prod(mesh) < 4 and text == plan.smearing.replace("ISMEAR -5", "ISMEAR 0")
    return plan.smearing if small else text


def _planned_density(generator: Any, incar: Mapping[str, Any]) -> str:
    own = generator.user_kpoints_settings
    if own:
        settings = own.as_dict() if hasattr(own, "as_dict") else own
        return ", ".join(f"{key} {settings[key]}" for key in sorted(settings))
    if "KSPACING" in incar:
        fixed = generator.user_incar_settings.get("KSPACING")
        by_gap = generator.auto_kspacing and fixed is None
        return _BY_GAP if by_gap else f"KSPACING {float(incar['KSPACING']):g}"
    density = generator.kpoints_updates or generator._config_dict.get("KPOINTS", {})
    return ", ".join(f"{key} {density[key]:g}" for key in sorted(density))


def _found_density(
    plan: Specification,
    incar: Mapping[str, Any],
    mesh: list[int],
    structure: Structure,
    step: BaseVaspMaker,
) -> str:
    spacing = incar.get("KSPACING")
    if plan.k_density.startswith("KSPACING"):
        if spacing is None:
            return f"mesh {mesh}"
        low, high = SPACINGS
        if plan.k_density == _BY_GAP and low - 1e-6 <= float(spacing) <= high + 1e-6:
            return _BY_GAP
        return f"KSPACING {float(spacing):g}"
    generator = step.input_set_generator
    expected = generator.get_input_set(structure, potcar_spec=True).get("KPOINTS")
    if expected is None:
        return f"mesh {mesh}"
    allowed = [[int(n) for n in expected.kpts[0]]]
    density = (generator.kpoints_updates or {}).get("reciprocal_density")
    if generator.auto_metal_kpoints and density and not generator.user_kpoints_settings:
        denser = type(expected).automatic_density_by_vol(
            structure, density * _METAL_FACTOR, generator.force_gamma
        )
        allowed.append([int(n) for n in denser.kpts[0]])
    return plan.k_density if mesh in allowed else f"mesh {mesh} (not {allowed[0]})"


def _mesh_of(given: Any) -> list[int]:
    kpoints = given.kpoints
    if kpoints is None:
        return []
    points = kpoints["kpoints"] if isinstance(kpoints, Mapping) else kpoints.kpts
    return [int(n) for n in points[0]] if len(points) == 1 else [len(points)]


def _is(version: str, wanted: str) -> bool:
    parts = wanted.split(".")
    return version.split(".")[: len(parts)] == parts


def _belong(titles: list[str], family: str) -> bool:
    # Whether all titles are among those of a POTCAR family, by pymatgen's table of published ones.
    known = _titles().get(family, frozenset())
    return bool(titles) and all("".join(title.split()) in known for title in titles)


@cache
def _titles() -> dict[str, frozenset[str]]:
    from pymatgen.io.vasp.inputs import POTCAR_STATS_PATH

    table = json.loads(bz2.decompress(Path(POTCAR_STATS_PATH).read_bytes()))
    return {family: frozenset(titles) for family, titles in table.items()}
