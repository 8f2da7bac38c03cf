"""The levels of theory on offer: atomate2's Makers for each, with the user's settings in them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pymatgen.core import Structure

if TYPE_CHECKING:
    from atomate2.vasp.jobs.base import BaseVaspMaker

Level = Literal["mp-gga", "mp-r2scan"]
Magnetism = Literal["mp", "ferromagnetic", "site", "nonmagnetic"]

MOMENTS = {"d": 5.0, "f": 7.0}
"""Starting moments of a ferromagnetic start by block (µB): high-spin limits, as the tables of the
Materials Project have for ions of iron and gadolinium."""

SMALL_MOMENT = 0.6
"""Starting moment of all other atoms (µB), as in the Materials Project's tables."""


@dataclass(frozen=True)
class Settings:
    """What a user may change in every run of a level.

    Attributes
    ----------
    incar, kpoints
        Settings that override the input set's.
    nonmagnetic
        Whether spins are left out.
    potcar_spec
        Whether only the names of the pseudopotentials are written.
    electronic_structure
        Whether densities of states and bands are kept in the task documents.
    """

    incar: Mapping[str, Any]
    kpoints: Mapping[str, Any]
    nonmagnetic: bool = False
    potcar_spec: bool = False
    electronic_structure: bool = False


def makers(level: Level, settings: Settings) -> list[BaseVaspMaker]:
    """Return atomate2's Makers of the two relaxations and the static run of a level."""
    from atomate2.vasp.flows.mp import (
        MPGGADoubleRelaxStaticMaker,
        MPMetaGGADoubleRelaxStaticMaker,
    )

    flow = {
        "mp-gga": MPGGADoubleRelaxStaticMaker,
        "mp-r2scan": MPMetaGGADoubleRelaxStaticMaker,
    }[level]()
    steps = [flow.relax_maker.relax_maker1, flow.relax_maker.relax_maker2, flow.static_maker]
    return [_with(step, settings) for step in steps]


def magnetised(structure: Structure, magnetism: Magnetism) -> Structure:
    """Return a copy that carries the starting moments of a choice.

    Raises
    ------
    ValueError
        If moments are to come from the sites and a site has none.
    """
    changed = structure.copy()
    if magnetism == "site":
        moments = changed.site_properties.get("magmom")
        if moments is None or any(moment is None for moment in moments):
            raise ValueError(
                "magnetism: site needs the site property magmom on every site; "
                "use mp or ferromagnetic for crystals without"
            )
        return changed
    if "magmom" in changed.site_properties:
        changed.remove_site_property("magmom")
    if any(getattr(site.specie, "spin", None) is not None for site in changed):
        changed.remove_spin()
    if magnetism == "ferromagnetic":
        moments = [MOMENTS.get(site.specie.block, SMALL_MOMENT) for site in changed]
        changed.add_site_property("magmom", moments)
    return changed


def k_mesh(structure: Structure, step: BaseVaspMaker) -> tuple[int, int, int]:
    """Return the mesh of k-points that a run of a crystal will use (for a metal, if it matters)."""
    inputs = step.input_set_generator.get_input_set(structure, potcar_spec=True)
    kpoints = inputs.get("KPOINTS")
    if kpoints is not None:
        if len(kpoints.kpts) > 1:  # a list of points, not a mesh
            return (len(kpoints.kpts), 1, 1)
        first, second, third = (int(n) for n in kpoints.kpts[0])
        return first, second, third
    spacing = float(inputs["INCAR"].get("KSPACING", 0.5))  # VASP's own default (1/Å)
    lengths = structure.lattice.reciprocal_lattice.abc  # with the factor 2 pi
    first, second, third = (max(1, -int(-length // spacing)) for length in lengths)
    return first, second, third


def _with(step: BaseVaspMaker, settings: Settings) -> BaseVaspMaker:
    step = copy.deepcopy(step)
    generator = step.input_set_generator
    generator.user_incar_settings = {
        **generator.user_incar_settings,
        **({"ISPIN": 1} if settings.nonmagnetic else {}),
        **settings.incar,
    }
    if settings.kpoints:
        generator.user_kpoints_settings = dict(settings.kpoints)
    if settings.potcar_spec:
        step.write_input_set_kwargs = {**step.write_input_set_kwargs, "potcar_spec": True}
    if not settings.electronic_structure:
        step.task_document_kwargs = {
            **step.task_document_kwargs,
            "parse_dos": False,
            "parse_bandstructure": False,
        }
    return step
