"""The embedded set: elements and compounds from textbook crystallography, built by symmetry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from moyopy import Setting, SpaceGroupType, operations_from_number
from numpy.typing import NDArray
from pymatgen.core import Composition, Lattice, Structure

from matloop.documents.phase import Known

LEFT_OUT = {
    "At": "no crystal structure was ever measured",
    "Rn": "no crystal structure was ever measured",
    "Fr": "no crystal structure was ever measured",
}
"""Elements up to plutonium that the set lacks, with the reason; none heavier is included."""

_SAME_POSITION = 1e-3  # fractional; the closest distinct orbits of the set lie ten times further


@dataclass(frozen=True)
class Prototype:
    """A structure type: a space group and the positions it repeats.

    Attributes
    ----------
    name
        Readable name, as it stands in `Known.known_id`.
    title
        Compound or mineral that names the type, with its Strukturbericht symbol.
    space_group
        Number in the International Tables; standard setting, origin choice 2, hexagonal axes.
    formula
        Content by role, such as ``AB2X4``.
    sites
        Coordinate triplets by role, as written: ``x 2x 1/4``.
    free
        Values of free parameters where a crystal gives none (fractions of the cell).
    source
        Where the type is described.
    """

    name: str
    title: str
    space_group: int
    formula: str
    sites: Mapping[str, tuple[str, ...]]
    source: str
    free: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def roles(self) -> dict[str, int]:
        """Atoms per formula unit by role, in the order in which crystals name their elements."""
        return {role: int(count or 1) for role, count in re.findall(r"([A-Z])(\d*)", self.formula)}

    def build(self, elements: Iterable[str], parameters: Mapping[str, float]) -> Structure:
        """Return the primitive cell of one crystal of this type.

        Parameters
        ----------
        elements
            One element per role.
        parameters
            Lattice parameters ``a``, ``b``, ``c`` (Å), ``beta`` (degrees), and free coordinates.

        Raises
        ------
        ValueError
            If a parameter is missing.
        """
        values = {**self.free, **parameters}
        lattice = _lattice(self.space_group, values)
        rotations, translations, basis = _space_group(self.space_group)
        to_primitive = np.linalg.inv(basis)
        species: list[str] = []
        positions: list[NDArray[np.float64]] = []
        for element, role in zip(elements, self.roles, strict=True):
            for triplet in self.sites[role]:
                point = np.array([_coordinate(text, values) for text in triplet.split()])
                orbit = _distinct((rotations @ point + translations) @ to_primitive)
                species += [element] * len(orbit)
                positions.extend(orbit)
        return Structure(Lattice(basis @ lattice.matrix), species, np.array(positions))


@dataclass(frozen=True)
class Entry:
    """One crystal of the embedded set.

    Attributes
    ----------
    prototype
        Its structure type.
    elements
        One element per role of the prototype.
    parameters
        Lattice parameters (Å, degrees) and free coordinates.
    citation
        Where the parameters are published.
    """

    prototype: Prototype
    elements: tuple[str, ...]
    parameters: Mapping[str, float]
    citation: str

    @cached_property
    def composition(self) -> Composition:
        """One formula unit."""
        content: dict[str, float] = {}
        for element, count in zip(self.elements, self.prototype.roles.values(), strict=True):
            content[element] = content.get(element, 0) + count
        return Composition(content)

    @property
    def formula(self) -> str:
        """Reduced formula; that of an element is its symbol."""
        if len(self.composition) == 1:
            return str(self.composition.elements[0])
        return str(self.composition.reduced_formula)

    @property
    def name(self) -> str:
        """Unique readable name, such as ``SrTiO3-perovskite-cubic``."""
        return f"{self.formula}-{self.prototype.name}"

    @cached_property
    def structure(self) -> Structure:
        """The crystal as a primitive cell."""
        return self.prototype.build(self.elements, self.parameters)

    @property
    def known(self) -> Known:
        """The crystal as a document; its source names prototype, space group and citation."""
        group = SpaceGroupType(self.prototype.space_group).hm_short.replace(" ", "")
        number = self.prototype.space_group
        source = f"embedded: {self.prototype.name} ({self.prototype.title}), {group} ({number})"
        return Known(
            known_id=self.name, structure=self.structure, source=f"{source}; {self.citation}"
        )


@cache
def prototypes() -> dict[str, Prototype]:
    """Return the structure types by name."""
    return {
        name: Prototype(
            name=name,
            title=row["title"],
            space_group=row["space_group"],
            formula=row["formula"],
            sites={role: tuple(triplets) for role, triplets in row["sites"].items()},
            source=row["source"],
            free=row.get("free", {}),
        )
        for name, row in _read("prototypes.yaml").items()
    }


@cache
def entries() -> tuple[Entry, ...]:
    """Return every crystal, elements first, without building its cell."""
    known = prototypes()
    return tuple(
        Entry(known[group["prototype"]], tuple(key.split()), parameters, group["source"])
        for name in ("elements.yaml", "compounds.yaml")
        for group in _read(name)
        for key, parameters in group["crystals"].items()
    )


@cache
def crystals() -> tuple[Known, ...]:
    """Return every crystal of the set, built; about a second at the first call."""
    return tuple(entry.known for entry in entries())


def _read(name: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = files("matloop.references").joinpath("data", name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=loader)


@cache
def _space_group(number: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[Any]]:
    """Return rotations, translations, and the rows that span a primitive cell."""
    operations = operations_from_number(number, setting=Setting.standard())
    centring = SpaceGroupType(number).hm_short[0]
    return (
        np.array(operations.rotations, dtype=float),
        np.array(operations.translations, dtype=float),
        np.array(_PRIMITIVE[centring], dtype=float),
    )


# Primitive bases of the International Tables vol. A, table 1.5.1.1 (R in obverse setting).
_PRIMITIVE = {
    "P": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "A": [[1, 0, 0], [0, 1 / 2, -1 / 2], [0, 1 / 2, 1 / 2]],
    "C": [[1 / 2, 1 / 2, 0], [-1 / 2, 1 / 2, 0], [0, 0, 1]],
    "I": [[-1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [1 / 2, 1 / 2, -1 / 2]],
    "F": [[0, 1 / 2, 1 / 2], [1 / 2, 0, 1 / 2], [1 / 2, 1 / 2, 0]],
    "R": [[2 / 3, 1 / 3, 1 / 3], [-1 / 3, 1 / 3, 1 / 3], [-1 / 3, -2 / 3, 1 / 3]],
}


def _lattice(space_group: int, values: Mapping[str, float]) -> Lattice:
    try:
        a = values["a"]
        if space_group >= 195:
            return Lattice.cubic(a)
        if space_group >= 143:
            return Lattice.hexagonal(a, values["c"])
        if space_group >= 75:
            return Lattice.tetragonal(a, values["c"])
        if space_group >= 16:
            return Lattice.orthorhombic(a, values["b"], values["c"])
        if space_group >= 3:
            return Lattice.monoclinic(a, values["b"], values["c"], values["beta"])
    except KeyError as error:
        raise ValueError(f"space group {space_group} needs the lattice parameter {error}") from None
    raise ValueError("triclinic prototypes are not written here")


_TERM = re.compile(r"([+-]?)(\d+(?:\.\d+)?)?(?:/(\d+))?([a-z]\w*)?")


def _coordinate(text: str, values: Mapping[str, float]) -> float:
    """Evaluate a sum such as ``1/8+u`` or ``2x``."""
    total, at = 0.0, 0
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None or found.end() == at or not (found[2] or found[4]):
            raise ValueError(f"{text!r} is no coordinate")
        term = float(found[2] or 1) / float(found[3] or 1)
        if found[4]:
            if found[4] not in values:
                raise ValueError(f"the free parameter {found[4]} has no value")
            term *= values[found[4]]
        total += -term if found[1] == "-" else term
        at = found.end()
    return total


def _distinct(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep one of the points that coincide modulo lattice translations, in order."""
    wrapped = points - np.floor(points)
    apart = wrapped[:, None, :] - wrapped[None, :, :]
    same = (np.abs(apart - np.round(apart)) < _SAME_POSITION).all(axis=2)
    kept: NDArray[np.float64] = wrapped[np.argmax(same, axis=0) == np.arange(len(points))]
    return kept
