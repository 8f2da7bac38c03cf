"""Proposals per second and yield of each generator, in three chemical spaces.

Run with ``python benchmarks/proposals.py``. Rates are per second of processor time on one core.
Yield is proposals over those asked for; distinct is the share that differ from each other by
`StructureMatcher`; full is the share that hold every element of the space, or as many as it allows;
the volume is that of the median proposal over the estimate from its composition.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import process_time

from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matloop.documents.space import ChemicalSpace
from matloop.generators.cells import counts_of, symbols_of
from matloop.generators.evolution import Evolution
from matloop.generators.random_symmetric import RandomSymmetric
from matloop.generators.substitution import Substitution
from matloop.generators.volumes import estimated_volume
from matloop.protocols import Parent, ProposalRequest

SPACES = {
    "Sr-Ti-O, neutral": ChemicalSpace(system="Sr-Ti-O", charge_balance="required"),
    "Ni-Al-Ti": ChemicalSpace(system="Ni-Al-Ti", max_atoms=16),
    "3 of 12 elements, neutral": ChemicalSpace(
        elements=("Na", "Mg", "Al", "Si", "K", "Ca", "Ti", "Zn", "Sr", "O", "S", "F"),
        min_elements=3,
        max_elements=3,
        charge_balance="required",
    ),
}


def main() -> None:
    """Print one line per space and generator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="proposals asked for")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    templates = textbook_templates()
    print(
        f"{'space':<26}{'generator':<17}{'1/s':>7}{'yield':>8}{'distinct':>10}{'full':>7}{'vol':>7}"
    )
    for name, space in SPACES.items():
        # What a first iteration would have found: random crystals stand in for relaxed ones.
        first = RandomSymmetric().propose(ProposalRequest(space, 20, arguments.seed + 1))
        found = tuple(
            Parent(f"found-{index}", proposal.structure, -float(index))
            for index, proposal in enumerate(first)
        )
        request = ProposalRequest(space, arguments.count, arguments.seed, found, templates)
        for generator in (RandomSymmetric(), Substitution(), Evolution()):
            start = process_time()
            crystals = [proposal.structure for proposal in generator.propose(request)]
            seconds = process_time() - start
            distinct = len(StructureMatcher().group_structures(crystals))
            full = sum(len(c.symbol_set) == space.most_elements for c in crystals)
            volume = median(c.volume / estimated_volume(counts_of(symbols_of(c))) for c in crystals)
            print(
                f"{name:<26}{type(generator).__name__:<17}{len(crystals) / seconds:>7.1f}"
                f"{len(crystals) / arguments.count:>8.2f}{distinct / len(crystals):>10.2f}"
                f"{full / len(crystals):>7.2f}{volume:>7.2f}"
            )


def textbook_templates() -> tuple[Parent, ...]:
    """Return common prototypes with elements of their own."""
    halite = [[0, 0, 0], [0.5, 0.5, 0.5]]
    quarters = [[0, 0, 0], [0.25, 0.25, 0.25]]
    cubic = {
        "halite NaCl": ("Fm-3m", 5.64, ["Na", "Cl"], halite),
        "magnesia MgO": ("Fm-3m", 4.21, ["Mg", "O"], halite),
        "caesium chloride CsCl": ("Pm-3m", 4.12, ["Cs", "Cl"], halite),
        "beta brass CuZn": ("Pm-3m", 2.95, ["Cu", "Zn"], halite),
        "sphalerite ZnS": ("F-43m", 5.41, ["Zn", "S"], quarters),
        "fluorite CaF2": ("Fm-3m", 5.46, ["Ca", "F"], quarters),
        "auricupride Cu3Au": ("Pm-3m", 3.75, ["Au", "Cu"], [[0, 0, 0], [0, 0.5, 0.5]]),
        "Heusler Cu2MnAl": ("Fm-3m", 5.95, ["Al", "Mn", "Cu"], [*halite, [0.25, 0.25, 0.25]]),
        "half-Heusler MgAgAs": ("F-43m", 6.24, ["Mg", "As", "Ag"], [*halite, [0.25, 0.25, 0.25]]),
        "perovskite BaTiO3": ("Pm-3m", 4.00, ["Ba", "Ti", "O"], [*halite, [0.5, 0.5, 0]]),
        "perovskite KMgF3": ("Pm-3m", 3.99, ["K", "Mg", "F"], [*halite, [0.5, 0.5, 0]]),
        "spinel MgAl2O4": (
            "Fd-3m",
            8.08,
            ["Mg", "Al", "O"],
            [[0.125, 0.125, 0.125], [0.5, 0.5, 0.5], [0.2624, 0.2624, 0.2624]],
        ),
    }
    crystals = {
        name: Structure.from_spacegroup(group, Lattice.cubic(a), species, frac)
        for name, (group, a, species, frac) in cubic.items()
    }
    crystals["rutile SnO2"] = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.74, 3.19), ["Sn", "O"], [[0, 0, 0], [0.307, 0.307, 0]]
    )
    crystals["layered K2NiF4"] = Structure.from_spacegroup(
        "I4/mmm",
        Lattice.tetragonal(4.01, 13.08),
        ["K", "Ni", "F", "F"],
        [[0, 0, 0.352], [0, 0, 0], [0, 0, 0.151], [0, 0.5, 0]],
    )
    return tuple(Parent(name, crystal) for name, crystal in crystals.items())


if __name__ == "__main__":
    main()
