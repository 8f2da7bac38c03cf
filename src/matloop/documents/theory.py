"""The level of theory of an energy: what must be equal before two energies may be compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from matloop.documents.base import Document, digest


class DftSettings(Document):
    """What changes a DFT energy beside the functional; None where nobody says.

    Attributes
    ----------
    u_values
        Hubbard U per element (eV); an element treated without one has 0. A theory derived from one
        calculation names that crystal's elements only.
    pseudopotentials
        Name of each element's pseudopotential or PAW data set, with its family.
    basis
        Kind of basis, such as ``plane waves`` or ``DZVP-MOLOPT``.
    cutoff
        Plane-wave cutoff (eV).
    k_density
        Density or spacing of the k-points, in the words of the code that took it.
    smearing
        Kind and width of the smearing, in the words of the code.
    corrections
        Energy corrections by name, each with the version of the package that applied it; empty
        if the energy is as computed, None for an element on its own, which schemes leave alone.
    mixing
        Published scheme that put several levels of theory on one scale; empty if there was one.
    """

    u_values: dict[str, float] | None = None
    pseudopotentials: dict[str, str] | None = None
    basis: str | None = None
    cutoff: float | None = None
    k_density: str | None = None
    smearing: str | None = None
    corrections: dict[str, str] | None = Field(default_factory=dict)
    mixing: str = ""


class LevelOfTheory(Document):
    """How an energy was computed.

    Attributes
    ----------
    kind
        Machine-learned interatomic potential, empirical potential, density-functional theory, or
        ``stated``: energies that came without saying more than a name.
    code
        Program or package that computed it, for example ``chgnet``.
    version
        Version of that code.
    model
        Name of the potential, or the exchange-correlation functional for DFT.
    model_sha256
        Hash of the weights, empty where there are none.
    settings
        Whatever else changes the energy of a potential: cutoffs, dispersion, precision.
    dft
        Whatever else changes the energy of a DFT calculation.
    """

    kind: Literal["mlip", "empirical", "dft", "stated"]
    code: str
    version: str
    model: str
    model_sha256: str = ""
    settings: dict[str, str | float | int | bool] = Field(default_factory=dict)
    dft: DftSettings | None = None

    @property
    def key(self) -> str:
        """Readable name with a hash: two energies are comparable exactly when their keys agree."""
        content = self.model_dump(mode="json")
        if self.dft is None:  # keys of potentials are those of before there was DFT
            del content["dft"]
        return f"{self.code}-{self.model}@{digest(content)[:10]}"
