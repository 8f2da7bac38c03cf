"""The task document of a GPAW calculation: atomate2's, with what GPAW alone can say."""

from __future__ import annotations

from typing import Literal

from atomate2.ase.schemas import AseStructureTaskDoc
from pydantic import BaseModel, Field

Failure = Literal["", "elements", "size", "cutoff", "scf", "steps", "walltime", "stopped"]
"""Why there is no energy to trust; empty where there is one."""


class PairCheck(BaseModel):
    """How the formation energy of one pair of elements depends on the cutoff."""

    elements: tuple[str, str] = Field(description="The pair; twice the same for an element.")
    cutoffs: list[float] = Field(description="Plane-wave cutoffs (eV), rising.")
    formation: list[float] = Field(
        description="Formation energy of the prototype at each cutoff (eV/atom)."
    )
    shift: float = Field(description="Change from the cutoff in use to the higher one (eV/atom).")
    sufficient: float | None = Field(
        None, description="Lowest cutoff tried that is converged (eV); None if none was."
    )


class CutoffCheck(BaseModel):
    """Whether the plane-wave cutoff is converged for the elements at hand."""

    cutoff: float = Field(description="Cutoff in use (eV).")
    tolerance: float = Field(description="Largest shift allowed (eV/atom).")
    pairs: list[PairCheck] = Field(description="What was found, pair by pair.")
    seconds: float = Field(0.0, description="Time it took; 0 where all was known already (s).")

    @property
    def worst(self) -> PairCheck:
        """The pair with the largest shift."""
        return max(self.pairs, key=lambda pair: abs(pair.shift))

    @property
    def passed(self) -> bool:
        """Whether every pair is within the tolerance."""
        return abs(self.worst.shift) <= self.tolerance

    @property
    def sufficient(self) -> float | None:
        """Lowest cutoff tried that does for every pair (eV); None if none does."""
        found = [pair.sufficient for pair in self.pairs]
        return None if None in found else max(cutoff for cutoff in found if cutoff is not None)


class Attempt(BaseModel):
    """One try at self-consistency."""

    what: str = Field(description="What was to be calculated.")
    mixing: str = Field(description="Density mixing: GPAW's own, or a cautious one.")
    symmetry: bool = Field(True, description="Whether crystal symmetry was made use of.")
    outcome: str = Field(description="``converged``, or what went wrong.")


class GpawRecord(BaseModel):
    """What GPAW alone can say of a calculation."""

    versions: dict[str, str] = Field(description="GPAW and its PAW data sets.")
    settings: dict[str, str | float | int | bool | dict[str, float] | None] = Field(
        description="Parameters of the engine."
    )
    kpoints: tuple[int, int, int] | None = Field(None, description="Mesh of the final energy.")
    attempts: list[Attempt] = Field(default_factory=list)
    cutoff_check: CutoffCheck | None = None
    cutoff_slope: float | None = Field(
        None, description="dE/dE_cut of the cell, for the Pulay stress of a cell relaxation."
    )
    failure: Failure = ""
    reason: str = Field("", description="The failure in one clause.")
    magnetic_moment: float | None = Field(None, description="Of the cell (Bohr magnetons).")
    calls: int = Field(0, description="Geometries calculated.")
    seconds: float = Field(0.0, description="Wall time, the check of the cutoff included (s).")


class GpawTaskDoc(AseStructureTaskDoc):
    """An ASE task document with GPAW's own record."""

    gpaw: GpawRecord | None = Field(None, description="What GPAW alone can say.")
