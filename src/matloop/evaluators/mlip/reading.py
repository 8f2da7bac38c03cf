"""From structures to members of a batch, and back."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Element, Lattice, Structure

from matloop.evaluators.mlip.minimisation import cell_fault
from matloop.evaluators.mlip.model import LoadedModel, Member


def readable(structure: Structure, model: LoadedModel, max_atoms: int) -> Member | str:
    """Return a structure as a model reads it, or why it cannot."""
    try:
        member = Member.from_structure(structure)
    except Exception as error:
        return str(error)
    atoms = len(member.numbers)
    if atoms == 0:
        return "the structure has no atoms"
    if atoms > max_atoms:
        return f"{atoms} atoms are more than the {max_atoms} allowed"
    unknown = sorted(set(member.numbers.tolist()) - model.elements)
    if unknown:
        symbols = ", ".join(Element.from_Z(number).symbol for number in unknown)
        return f"{model.theory.model} does not know {symbols}"
    if not np.isfinite(member.positions).all():
        return "the positions are not finite"
    return cell_fault(member.cell, atoms) or member


def moved(structure: Structure, member: Member) -> Structure:
    """Return a structure with the cell and positions of a member, its species kept."""
    return Structure(
        Lattice(member.cell),
        [site.species for site in structure],
        member.positions,
        coords_are_cartesian=True,
        to_unit_cell=True,
        charge=structure._charge,
    )
