"""The chemical space a campaign searches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator
from pymatgen.core import Composition, Element

from matloop.documents.base import Document

ISOTOPES = {"D": "H", "T": "H"}
"""Symbols that pymatgen takes for elements and no method tells apart from them."""


def _element_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name in ISOTOPES:
            raise ValueError(f"{name!r} is an isotope; write {ISOTOPES[name]}")
        if not Element.is_valid_symbol(name):
            raise ValueError(f"{name!r} is not a chemical element; write symbols such as Ti")
    if len(set(names)) != len(names):
        raise ValueError("an element is named twice")
    return names


class ChemicalSpace(Document):
    """Which compositions and cells may be proposed.

    Attributes
    ----------
    system
        A chemical system written with dashes, ``Sr-Ti-O``; short for `elements`.
    elements
        Elements that may occur, where the space is wider than one system.
    deny
        Elements that never occur, whatever a generator proposes.
    min_elements, max_elements
        Number of different elements in one crystal; `max_elements` 0 stands for all of them.
    min_atoms, max_atoms
        Number of atoms in the primitive cell.
    charge_balance
        ``required`` proposes and keeps only compositions that some set of common oxidation states
        neutralises; ``off`` suits intermetallics.
    """

    system: str = ""
    elements: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    min_elements: int = Field(1, ge=1)
    max_elements: int = Field(0, ge=0)
    min_atoms: int = Field(1, ge=1)
    max_atoms: int = Field(20, ge=1, le=200)
    charge_balance: Literal["required", "off"] = "off"

    @field_validator("system")
    @classmethod
    def _system_holds_elements(cls, value: str) -> str:
        if value:
            _element_names(tuple(value.split("-")))
        return value

    @field_validator("elements", "deny")
    @classmethod
    def _are_elements(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _element_names(value)

    @model_validator(mode="after")
    def _is_not_empty(self) -> ChemicalSpace:
        if self.system and self.elements:
            raise ValueError("give either system or elements, not both")
        if not self.system and not self.elements:
            raise ValueError("the chemical space is empty: name it as in system: Sr-Ti-O")
        if not self.allowed:
            raise ValueError("the chemical space is empty: no element is left after deny")
        if self.min_elements > len(self.allowed):
            raise ValueError(
                f"the chemical space is empty: min_elements is {self.min_elements}, but only "
                f"{len(self.allowed)} elements are allowed"
            )
        if self.max_elements and self.max_elements < self.min_elements:
            raise ValueError("the chemical space is empty: max_elements is below min_elements")
        for name in ("min_atoms", "min_elements"):
            if self.max_atoms < getattr(self, name):
                raise ValueError(f"the chemical space is empty: max_atoms is below {name}")
        return self

    @property
    def allowed(self) -> tuple[str, ...]:
        """Elements that may occur, sorted by electronegativity as in a formula."""
        named = self.system.split("-") if self.system else self.elements
        kept = [Element(name) for name in named if name not in self.deny]
        return tuple(str(element) for element in sorted(kept))

    @property
    def most_elements(self) -> int:
        """Largest number of different elements in one crystal."""
        return min(self.max_elements or len(self.allowed), len(self.allowed))

    def objection(self, composition: Composition) -> str | None:
        """Say why a cell content lies outside the space; None if it lies inside.

        Charge balance is a method's verdict and not judged here.
        """
        strangers = sorted({str(e) for e in composition.elements} - set(self.allowed))
        if strangers:
            return f"holds {', '.join(strangers)}, outside the chemical space"
        count = len(composition.elements)
        if not self.min_elements <= count <= self.most_elements:
            return f"has {count} elements, allowed are {self.min_elements} to {self.most_elements}"
        atoms = round(composition.num_atoms)
        if not self.min_atoms <= atoms <= self.max_atoms:
            return f"has {atoms} atoms, allowed are {self.min_atoms} to {self.max_atoms}"
        return None
