"""Cheap rules that need no energy: distances, cells, chemical space, charge balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from monty.json import MSONable
from pymatgen.core import Composition, Structure

from matloop.documents.candidate import Candidate, Quantity
from matloop.documents.evaluation import Evaluation
from matloop.documents.space import ChemicalSpace
from matloop.evaluators.isolation import Finding, judge_each
from matloop.protocols import Resources
from matloop.structures import geometry
from matloop.structures.chemistry import Rules, balanced_states, is_charge_balanced
from matloop.structures.symmetry import primitive_size


@dataclass(frozen=True)
class MinimumDistance(MSONable):
    """Reject crystals in which two sites sit too close together.

    Periodic images count, a site's own included.

    Attributes
    ----------
    threshold
        Shortest allowed distance between two sites (Å).
    relative
        Shortest allowed distance as a fraction of the sum of the two covalent radii; empty for
        none. 0.5 rejects overlapping atoms before they cost a relaxation: no crystal among 2,500 of
        the Materials Project lies below 0.66.

    References
    ----------
    Threshold of 0.5 Å: structural validity in Xie et al., CDVAE, ICLR 2022.
    Covalent radii: Cordero et al., Dalton Trans. 2008, 2832.
    """

    threshold: float = 0.5
    relative: float | None = None

    produces: ClassVar[Mapping[str, str]] = {"minimum_distance": "Å"}
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"
    cheap: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise ValueError("threshold must not be negative")
        if self.relative is not None and not 0 < self.relative < 2:
            raise ValueError("relative must lie between 0 and 2")

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Judge every candidate on its own."""
        return judge_each(candidates, self._judge)

    def _judge(self, candidate: Candidate) -> Finding:
        structure = candidate.structure
        problem = geometry.objection(structure)
        if problem:
            return Finding("reject", problem)
        closest = geometry.closest_contact(structure)
        found = {"minimum_distance": Quantity(value=closest.distance, unit="Å")}
        pair = _pair(structure, closest)
        if closest.distance < self.threshold:
            text = f"{pair} are {closest.distance:.3g} Å apart, at least {self.threshold:g} allowed"
            return Finding("reject", text, found)
        if self.relative is not None:
            tightest = geometry.tightest_contact(structure)
            if tightest.ratio < self.relative:
                text = (
                    f"{_pair(structure, tightest)} are {tightest.distance:.3g} Å apart, "
                    f"{tightest.ratio:.2f} of the sum of their covalent radii, at least "
                    f"{self.relative:g} allowed"
                )
                return Finding("reject", text, found)
        return Finding("pass", f"shortest distance {closest.distance:.3g} Å ({pair})", found)


@dataclass(frozen=True)
class Cell(MSONable):
    """Reject crystals whose cell is flat, empty, crowded or not a number.

    The defaults are wide: they let through every crystal that a relaxation could still mend. Among
    2,500 Materials Project crystals of up to 20 atoms, drawn at random, 99.9 % lie at 5.8 to 111
    Å^3/atom, 0.7 to 21 g/cm^3 and an aspect below 13.1.

    Attributes
    ----------
    min_volume_per_atom, max_volume_per_atom
        Allowed volume per atom (Å^3/atom). Diamond has 5.7, caesium 117.
    min_density, max_density
        Allowed mass density (g/cm^3). Solid hydrogen has 0.09, osmium 22.6.
    max_aspect
        Longest lattice vector over the smallest height of the reduced cell.
    max_atoms
        Most atoms in the cell.
    """

    min_volume_per_atom: float = 2.0
    max_volume_per_atom: float = 150.0
    min_density: float = 0.05
    max_density: float = 30.0
    max_aspect: float = 20.0
    max_atoms: int = 200

    produces: ClassVar[Mapping[str, str]] = {"density": "g/cm^3", "volume_per_atom": "Å^3/atom"}
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"
    cheap: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.min_volume_per_atom < self.max_volume_per_atom:
            raise ValueError("min_volume_per_atom must be positive and below max_volume_per_atom")
        if not 0 <= self.min_density < self.max_density:
            raise ValueError("min_density must not be negative and must be below max_density")
        if self.max_aspect < 1:
            raise ValueError("max_aspect must be at least 1")
        if self.max_atoms < 1:
            raise ValueError("max_atoms must be at least 1")

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Judge every candidate on its own."""
        return judge_each(candidates, self._judge)

    def _judge(self, candidate: Candidate) -> Finding:
        structure = candidate.structure
        if len(structure) > self.max_atoms:
            text = f"has {len(structure)} atoms in the cell, at most {self.max_atoms} allowed"
            return Finding("reject", text)
        problem = geometry.objection(structure)
        if problem:
            return Finding("reject", problem)
        volume = geometry.volume_per_atom(structure)
        density = geometry.density(structure)
        aspect = geometry.aspect(structure)
        found = {
            "density": Quantity(value=density, unit="g/cm^3"),
            "volume_per_atom": Quantity(value=volume, unit="Å^3/atom"),
        }
        for what, unit, value, least, most in (
            ("volume per atom", " Å^3", volume, self.min_volume_per_atom, self.max_volume_per_atom),
            ("density", " g/cm^3", density, self.min_density, self.max_density),
            ("aspect", "", aspect, 1.0, self.max_aspect),
        ):
            if value < least * (1 - 1e-9) or value > most:
                text = f"the {what} is {value:.3g}{unit}, allowed are {least:g} to {most:g}"
                return Finding("reject", text, found)
        return Finding("pass", f"{volume:.3g} Å^3 per atom, {density:.3g} g/cm^3", found)


@dataclass(frozen=True)
class InsideSpace(MSONable):
    """Reject crystals outside the chemical space of the campaign.

    Atoms are counted in the primitive cell.

    Attributes
    ----------
    system
        A chemical system written with dashes, ``Sr-Ti-O``; short for `elements`.
    elements
        Elements that may occur, where the space is wider than one system.
    deny
        Elements that never occur.
    min_elements, max_elements
        Number of different elements; `max_elements` 0 stands for all of them.
    min_atoms, max_atoms
        Number of atoms in the primitive cell.
    charge_balance
        ``required`` also rejects compositions that no set of known oxidation states neutralises.
    """

    system: str = ""
    elements: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    min_elements: int = 1
    max_elements: int = 0
    min_atoms: int = 1
    max_atoms: int = 20
    charge_balance: Literal["required", "off"] = "off"

    produces: ClassVar[Mapping[str, str]] = {}
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"
    cheap: ClassVar[bool] = True

    def __post_init__(self) -> None:
        # JSON knows no tuples.
        object.__setattr__(self, "elements", tuple(self.elements))
        object.__setattr__(self, "deny", tuple(self.deny))
        _ = self.space

    @cached_property
    def space(self) -> ChemicalSpace:
        """The chemical space as a document."""
        return ChemicalSpace(
            system=self.system,
            elements=self.elements,
            deny=self.deny,
            min_elements=self.min_elements,
            max_elements=self.max_elements,
            min_atoms=self.min_atoms,
            max_atoms=self.max_atoms,
            charge_balance=self.charge_balance,
        )

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Judge every candidate on its own."""
        return judge_each(candidates, self._judge)

    def _judge(self, candidate: Candidate) -> Finding:
        content = _primitive_content(candidate.structure)
        outside = self.space.objection(content)
        if outside:
            return Finding("reject", outside)
        if self.charge_balance == "required" and not is_charge_balanced(content):
            return Finding("reject", _unbalanced(content))
        return Finding("pass", f"{content.reduced_formula} lies in the chemical space")


@dataclass(frozen=True)
class ChargeBalance(MSONable):
    """Reject compositions that no set of known oxidation states neutralises.

    The rule is SMACT's: the states add up to zero, and every cation is less electronegative than
    every anion. Single elements and alloys of metals alone pass, as in the field's validity metric.

    Attributes
    ----------
    rules
        Which states are known: ``icsd24``, the default of SMACT 4, or ``smact14``, the wider older
        list behind the validities published for CDVAE and its successors.
    reject
        Off, an unbalanced composition passes and is only marked by ``charge_balanced`` 0.

    References
    ----------
    Davies et al., Chem 1, 617 (2016).
    """

    rules: Rules = "icsd24"
    reject: bool = True

    produces: ClassVar[Mapping[str, str]] = {"charge_balanced": ""}
    requires: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Literal["candidate", "batch"]] = "candidate"
    cheap: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.rules not in ("icsd24", "smact14"):
            raise ValueError(f"rules must be icsd24 or smact14, not {self.rules!r}")

    def evaluate(self, candidates: Sequence[Candidate], resources: Resources) -> list[Evaluation]:
        """Judge every candidate on its own."""
        return judge_each(candidates, self._judge)

    def _judge(self, candidate: Candidate) -> Finding:
        composition = candidate.structure.composition
        balanced = is_charge_balanced(composition, self.rules)
        found = {"charge_balanced": Quantity(value=float(balanced))}
        if not balanced:
            verdict: Literal["reject", "pass"] = "reject" if self.reject else "pass"
            return Finding(verdict, _unbalanced(composition), found)
        states = balanced_states(composition, self.rules)
        if states is None or len(states) == 1:
            return Finding("pass", "needs no charges: one element, or metals alone", found)
        named = " ".join(f"{element}{state:+d}" for element, state in states.items())
        return Finding("pass", f"balanced by {named}", found)


def _pair(structure: Structure, contact: geometry.Contact) -> str:
    first = structure[contact.first].species_string
    if contact.first == contact.second:
        return f"{first} and its image"
    return f"{first} and {structure[contact.second].species_string}"


def _primitive_content(structure: Structure) -> Composition:
    content = structure.composition.element_composition
    size = primitive_size(structure)
    if size == len(structure) or len(structure) % size:
        return content
    copies = len(structure) // size
    return Composition({element: amount / copies for element, amount in content.items()})


def _unbalanced(composition: Composition) -> str:
    return f"no known oxidation states balance {composition.reduced_formula}"
