"""A generator that shakes the atoms of known crystals: the smallest useful plugin package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from monty.json import MSONable

from matloop.protocols import Proposal, ProposalRequest


@dataclass(frozen=True)
class Rattle(MSONable):
    """Shake the atoms of known crystals inside the chemical space.

    Attributes
    ----------
    amplitude
        Standard deviation of each Cartesian displacement (Å).
    """

    amplitude: float = 0.1

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return shaken copies of found crystals and references, in turn."""
        rng = np.random.default_rng(request.seed)
        parents = [
            parent
            for parent in (*request.found, *request.references)
            if request.space.objection(parent.structure.composition) is None
        ]
        proposals = []
        for index in range(request.count if parents else 0):
            parent = parents[index % len(parents)]
            structure = parent.structure.copy()
            shifts = rng.normal(scale=self.amplitude, size=(len(structure), 3))
            for site, shift in enumerate(shifts):
                structure.translate_sites([site], shift, frac_coords=False)
            proposals.append(
                Proposal(structure, (parent.parent_id,), {"amplitude": self.amplitude})
            )
        return proposals
