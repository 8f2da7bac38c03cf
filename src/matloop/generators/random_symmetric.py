"""Random crystals with the symmetry of a space group."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from monty.json import MSONable
from pymatgen.core import Composition, Structure
from pyxtal.lattice import Lattice
from pyxtal.msg import VolumeError

from matloop.documents.space import ChemicalSpace
from matloop.generators.cells import (
    SANE_CONTACT,
    Array,
    contact_limits,
    contact_ratio,
    element_names,
    reduced,
)
from matloop.generators.formulas import Counts, draw_counts
from matloop.generators.volumes import estimated_volume, volume_correction
from matloop.generators.wyckoff import Position, SpaceGroup, fill, space_group
from matloop.protocols import Proposal, ProposalRequest

_TRIES = 8
_MOST_MISSES = 60


@dataclass(frozen=True)
class RandomSymmetric(MSONable):
    """Random crystals: space group, composition, Wyckoff positions, cell, free coordinates.

    Groups, Wyckoff positions and cells come from pyxtal (Fredericks et al., Comput. Phys. Commun.
    2021). A group is drawn among those whose positions can hold the atoms, then the positions, and
    only then the numbers, many sets of coordinates at once. Orbits without freedom may end in a
    supergroup; the group recorded is the one the crystal has.

    Attributes
    ----------
    space_groups
        International numbers of the groups to draw from; empty for all 230.
    volume_factor
        Smallest and largest cell volume as a multiple of the estimate from the composition.
    min_distance
        Shortest distance as a fraction of the sum of two covalent radii, at least 0.5. In spaces
        with charge balance, anions keep further apart.
    max_atoms
        Most atoms in the primitive cell, where smaller than the space's; 0 for the space's.
    full_system
        How much likelier a formula is for each element nearer to the whole system (or to four, in
        a long list of elements without `max_elements`).
    simplicity
        A formula unit of n atoms has weight n to the power of minus this.
    small_cells
        A cell of z formula units has weight z to the power of minus this.
    parsimony
        How many draws of group and positions compete; the one with the fewest free coordinates
        wins, after Pauling's rule that a crystal has few different sites. 1 for no competition.
    attempts
        Most draws of cell and coordinates for one crystal.
    """

    space_groups: list[int] = field(default_factory=list)
    volume_factor: list[float] = field(default_factory=lambda: [0.9, 1.3])
    min_distance: float = 0.7
    max_atoms: int = 0
    full_system: float = 6.0
    simplicity: float = 3.0
    small_cells: float = 0.5
    parsimony: int = 2
    attempts: int = 24

    def __post_init__(self) -> None:
        strange = [number for number in self.space_groups if not 1 <= number <= 230]
        if strange:
            raise ValueError(f"space_groups holds {strange[0]}; groups are numbered 1 to 230")
        low, *rest = self.volume_factor or [0.0]
        if len(rest) != 1 or not 0.3 <= low <= rest[0] <= 5:
            raise ValueError("volume_factor must be two increasing numbers between 0.3 and 5")
        if not SANE_CONTACT <= self.min_distance <= 1:
            raise ValueError(f"min_distance must lie between {SANE_CONTACT} and 1")
        if self.full_system <= 0:
            raise ValueError("full_system must be positive")
        for name, least in (("max_atoms", 0), ("parsimony", 1), ("attempts", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}")

    @property
    def divisible(self) -> bool:
        """Whether many may be asked for piece by piece: each is drawn on its own."""
        return True

    def propose(self, request: ProposalRequest) -> list[Proposal]:
        """Return random crystals of the space; fewer than asked where many tries fail."""
        rng = np.random.default_rng(request.seed)
        allowed = set(request.space.allowed)
        known = (parent.structure for parent in request.references)
        correction = volume_correction(
            [crystal for crystal in known if element_names(crystal) <= allowed]
        )
        proposals: list[Proposal] = []
        misses = 0
        while len(proposals) < request.count and misses < _MOST_MISSES:
            proposal = self._proposal(request.space, correction, rng)
            misses = misses + 1 if proposal is None else 0
            if proposal is not None:
                proposals.append(proposal)
        return proposals

    def _proposal(
        self, space: ChemicalSpace, correction: float, rng: np.random.Generator
    ) -> Proposal | None:
        drawn = draw_counts(
            space,
            rng,
            full_system=self.full_system,
            simplicity=self.simplicity,
            small_cells=self.small_cells,
            largest=min(self.max_atoms or space.max_atoms, space.max_atoms),
        )
        if drawn is None:
            return None
        counts, z = drawn
        formula = Composition(counts).reduced_formula
        volume = correction * estimated_volume(counts)
        # Compositions that are hard to place would be rare if each had one chance only.
        for _ in range(_TRIES):
            filled = self._filled_group(counts, rng)
            if filled is None:
                return None
            group, orbits = filled
            placed = self._placed(group, orbits, volume, space.charge_balance == "required", rng)
            if placed is not None:
                cell, number = placed
                chosen = {"space_group": number, "formula": formula, "z": z}
                return Proposal(cell, parameters=chosen)
        return None

    def _filled_group(
        self, counts: Counts, rng: np.random.Generator
    ) -> tuple[SpaceGroup, list[tuple[str, Position]]] | None:
        numbers = self.space_groups or list(range(1, 231))
        best: tuple[SpaceGroup, list[tuple[str, Position]]] | None = None
        fewest, fitting = np.inf, 0
        for _ in range(40 * self.parsimony):
            group = space_group(int(numbers[int(rng.integers(len(numbers)))]))
            orbits = fill(group, counts, rng)
            if orbits is None:
                continue
            freedom = sum(position.freedom for _, position in orbits)
            if freedom < fewest:
                best, fewest = (group, orbits), freedom
            fitting += 1
            if fitting == self.parsimony:
                break
        return best

    def _placed(
        self,
        group: SpaceGroup,
        orbits: list[tuple[str, Position]],
        volume: float,
        ionic: bool,
        rng: np.random.Generator,
    ) -> tuple[Structure, int] | None:
        symbols = [name for name, position in orbits for _ in range(position.multiplicity)]
        limits = contact_limits(symbols, self.min_distance, ionic)
        batch = 8 if any(position.freedom for _, position in orbits) else 1
        for _ in range(max(1, self.attempts // batch)):
            factor = rng.uniform(self.volume_factor[0], self.volume_factor[1])
            matrix = _random_lattice(group, volume * factor, rng)
            if matrix is None:
                continue
            frac = np.concatenate(
                [position.sites(rng.random((batch, 3))) for _, position in orbits], axis=1
            )
            ratios = contact_ratio(matrix, frac, limits)
            good = np.flatnonzero(ratios >= 1.0)
            if len(good):
                found = reduced(symbols, matrix, frac[good[0]])
                # Other draws of the same orbits would fare no better than one that ends in a
                # smaller cell or in a group that is not wanted.
                if found is None or len(found[0]) != len(symbols):
                    return None
                return found if not self.space_groups or found[1] in self.space_groups else None
        return None


# Primitive lattice vectors of the given volume (Å³).
def _random_lattice(group: SpaceGroup, volume: float, rng: np.random.Generator) -> Array | None:
    try:
        lattice = Lattice(group.lattice_type, volume * group.centring, random_state=rng)
    except VolumeError:
        return None
    return np.asarray(group.primitive @ lattice.matrix, dtype=float)
