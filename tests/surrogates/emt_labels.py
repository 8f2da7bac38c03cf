"""Small metals with energies, forces and stresses by effective medium theory."""

from __future__ import annotations

import numpy as np
from ase.calculators.emt import EMT
from ase.stress import voigt_6_to_full_3x3_stress
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from matloop.documents.labelled import Frame, Labelled
from matloop.documents.theory import LevelOfTheory

THEORY = LevelOfTheory(kind="empirical", code="ase", version="3", model="emt")


def labels(count: int, seed: int = 0, theory: LevelOfTheory = THEORY) -> list[Labelled]:
    """Return strained and rattled cells of copper and gold."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        species = [str(name) for name in rng.choice(["Cu", "Au"], size=2)]
        structure = Structure(Lattice.tetragonal(2.75, 3.9), species, [[0, 0, 0], [0.5, 0.5, 0.5]])
        structure.apply_strain(rng.uniform(-0.03, 0.05, 3))
        structure.perturb(0.12, seed=int(rng.integers(2**31)))
        found.append(
            Labelled(label_id=f"l{index}", group=f"g{index}", frame=frame(structure), theory=theory)
        )
    return found


def frame(structure: Structure) -> Frame:
    atoms = AseAtomsAdaptor.get_atoms(structure)
    atoms.calc = EMT()
    stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
    return Frame(
        structure=structure,
        energy=float(atoms.get_potential_energy()),
        forces=tuple(map(tuple, atoms.get_forces().tolist())),
        stress=tuple(map(tuple, stress.tolist())),
    )
