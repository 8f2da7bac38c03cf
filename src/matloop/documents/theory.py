"""The level of theory of an energy: what must be equal before two energies may be compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from matloop.documents.base import Document, digest


class LevelOfTheory(Document):
    """How an energy was computed.

    Attributes
    ----------
    kind
        Machine-learned interatomic potential, empirical potential, or density-functional theory.
    code
        Program or package that computed it, for example ``chgnet``.
    version
        Version of that code.
    model
        Name of the potential, or the exchange-correlation functional for DFT.
    model_sha256
        Hash of the weights, empty where there are none.
    settings
        Whatever else changes the energy: U values, pseudopotentials, cutoffs, corrections.
    """

    kind: Literal["mlip", "empirical", "dft"]
    code: str
    version: str
    model: str
    model_sha256: str = ""
    settings: dict[str, str | float | int | bool] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """Readable name with a hash: two energies are comparable exactly when their keys agree."""
        return f"{self.code}-{self.model}@{digest(self.model_dump(mode='json'))[:10]}"
