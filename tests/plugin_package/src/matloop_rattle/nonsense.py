"""A generator gone wrong: among sound crystals it proposes what is none."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from monty.json import MSONable
from pymatgen.core import DummySpecies, Lattice, Structure

from matloop.protocols import Proposal, ProposalRequest


@dataclass(frozen=True)
class Nonsense(MSONable):
    """Propose sound copper-gold crystals, and between them everything that can be wrong.

    The parameter ``kind`` of each origin says what it is.
    """

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return up to `request.count` crystals, every other one sound."""
        proposals = []
        sound = itertools.cycle(_sound())
        for kind, structure in _wrong().items():
            name, crystal = next(sound)
            proposals.append(Proposal(crystal, parameters={"kind": name}))
            proposals.append(Proposal(structure, parameters={"kind": kind}))
        return proposals[: request.count]


def _sound() -> list[tuple[str, Structure]]:
    corner, middle = [0, 0, 0], [0.5, 0.5, 0.5]
    faces = [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    return [
        ("sound CuAu", Structure(Lattice.cubic(3.1), ["Cu", "Au"], [corner, middle])),
        ("sound Cu3Au", Structure(Lattice.cubic(3.8), ["Au", *["Cu"] * 3], [corner, *faces])),
        ("sound CuAu3", Structure(Lattice.cubic(4.0), ["Cu", *["Au"] * 3], [corner, *faces])),
    ]


def _wrong() -> dict[str, Structure]:
    cube, pair = Lattice.cubic(3.1), [[0, 0, 0], [0.5, 0.5, 0.5]]
    large = Structure(Lattice.cubic(3.1), ["Cu", "Au"], pair)
    large.make_supercell([5, 5, 10])
    odd = large.copy()
    odd.replace(0, "Au")
    return {
        "NaN coordinate": Structure(cube, ["Cu", "Au"], [[0, 0, 0], [np.nan, 0.5, 0.5]]),
        "infinite coordinate": Structure(cube, ["Cu", "Au"], [[0, 0, 0], [np.inf, 0.5, 0.5]]),
        "NaN lattice": Structure(Lattice(np.diag([3.1, 3.1, np.nan])), ["Cu", "Au"], pair),
        "500 atoms": odd,
        "500 atoms of a small cell": large,
        "no volume": Structure(Lattice(np.diag([3.1, 3.1, 0.0])), ["Cu", "Au"], pair),
        "two atoms in one place": Structure(cube, ["Cu", "Au"], [[0, 0, 0], [0, 0, 1e-4]]),
        "disordered": Structure(cube, [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]]),
        "vacancies": Structure(cube, [{"Cu": 0.5}, "Au"], pair),
        "no atoms": Structure(cube, [], []),
        "foreign element": Structure(cube, ["Cu", "Pu"], pair),
        "no element": Structure(cube, ["Cu", DummySpecies("X")], pair),
        "needle": Structure(Lattice.orthorhombic(1, 1, 5000), ["Cu", "Au"], pair),
        "far apart": Structure(Lattice.cubic(900), ["Cu", "Au"], pair),
    }
