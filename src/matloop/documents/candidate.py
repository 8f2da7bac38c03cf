"""A candidate crystal, where it came from, and what is known of it so far."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
from pydantic import Field
from pymatgen.core import Element, PeriodicSite, Structure

from matloop.documents.base import Crystal, Document, Scalar

PREDICTED = "predicted_"
"""Start of the name of a quantity that foretells another: ``predicted_e_above_hull``."""


class Quantity(Document):
    """One number with its unit.

    Attributes
    ----------
    value
        The number, in `unit`.
    unit
        Unit as written in campaign files, ``eV/atom`` or ``g/cm^3``; empty if dimensionless.
    uncertainty
        One standard deviation, in `unit`; None if the method gives none.
    theory
        Key of the `LevelOfTheory` behind it; None for what needs no energy.
    """

    value: float
    unit: str = ""
    uncertainty: float | None = None
    theory: str | None = None


class Origin(Document):
    """Who proposed a candidate, and how.

    Attributes
    ----------
    generator
        Name of the portfolio member.
    version
        Version of the package that brought the plugin.
    parents
        Candidate or phase ids it was made from.
    parameters
        What the generator chose for this one: operator, space group, substitution.
    seed
        Seed the generator was called with.
    """

    generator: str
    version: str = ""
    parents: tuple[str, ...] = ()
    parameters: dict[str, Scalar] = Field(default_factory=dict)
    seed: int = 0


class Candidate(Document):
    """A crystal on its way through the ladder.

    Attributes
    ----------
    candidate_id
        Unique name, stable over reruns.
    structure
        The crystal as it stands before the next stage: as proposed at first, relaxed later.
    origin
        Where it came from.
    quantities
        What earlier stages found, by name.
    """

    candidate_id: str
    structure: Crystal
    origin: Origin
    quantities: dict[str, Quantity] = Field(default_factory=dict)

    def updated(self, structure: Structure | None, quantities: Mapping[str, Quantity]) -> Candidate:
        """Return the candidate as it stands after an evaluation.

        Quantities belong to a structure: when the atoms have moved, what was found before is
        forgotten, but for predictions (``predicted_*``), which foretell the moved crystal.
        """
        return self.updated_by([(structure, quantities)])

    def updated_by(
        self, changes: Iterable[tuple[Structure | None, Mapping[str, Quantity]]]
    ) -> Candidate:
        """Return the candidate as it stands after several evaluations, as `updated` does one."""
        last, kept = self.structure, dict(self.quantities)
        for structure, quantities in changes:
            if structure is not None:
                last = structure
                kept = {name: q for name, q in kept.items() if name.startswith(PREDICTED)}
            kept |= quantities
        return self.model_copy(update={"structure": last, "quantities": kept})


def structure_digest(structure: Structure) -> str:
    """Return the sha256 of a crystal as written: lattice, species and coordinates to 1e-6.

    It is an exact name for one description of a crystal, not an identity of the crystal: another
    cell or another order of sites has another digest.
    """
    numbers = np.empty(9 + 3 * len(structure))
    numbers[:9] = structure.lattice.matrix.ravel()
    if len(structure):
        np.mod(np.concatenate([site.frac_coords for site in structure]), 1.0, out=numbers[9:])
    rounded = numbers.round(6) + 0.0  # -0.0 becomes 0.0
    species = ",".join(map(_occupation, structure))
    return hashlib.sha256(rounded.tobytes() + species.encode()).hexdigest()


def sole_element(site: PeriodicSite) -> Element | None:
    """Return the element that fills a site; None for ions, and for what is shared or partly empty.

    It reads what pymatgen's own properties find in ten times the time.
    """
    held = site.species._data
    if len(held) != 1:
        return None
    ((species, amount),) = held.items()
    return species if amount == 1 and isinstance(species, Element) else None


def _occupation(site: PeriodicSite) -> str:
    element = sole_element(site)
    return str(site.species_string if element is None else element)
