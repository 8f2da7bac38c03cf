"""Small samples and references, and the judge that relaxes them: effective-medium theory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.evaluators.mlip.relaxation import Relaxation
from matloop.jobs.evaluation import Memory
from matloop.metrics.hull import Judge
from matloop.metrics.reference import Reference, load_reference
from matloop.structures.reading import Record


def fcc(element: str, length: float) -> Structure:
    """Return a face-centred cubic metal."""
    return Structure(Lattice.cubic(length), [element] * 4, FACES)


def ordered(one: str, three: str, length: float) -> Structure:
    """Return an L1_2 alloy such as AuCu3."""
    return Structure(Lattice.cubic(length), [one, three, three, three], FACES)


FACES = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


def records(crystals: Mapping[str, Structure | None]) -> list[Record]:
    """Return samples of given names; None stands for one that cannot be read."""
    return [
        Record(name, name, name, structure, "" if structure else "it cannot be read")
        for name, structure in crystals.items()
    ]


def written(folder: Path, crystals: Mapping[str, Structure]) -> Path:
    """Write a folder of CIFs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, structure in crystals.items():
        structure.to(str(folder / f"{name}.cif"), fmt="cif")
    return folder


@pytest.fixture
def metals(tmp_path: Path) -> Reference:
    """Return a reference of copper, gold, silver and AuCu3."""
    crystals = {
        "copper": fcc("Cu", 3.61),
        "gold": fcc("Au", 4.08),
        "silver": fcc("Ag", 4.09),
        "auricupride": ordered("Au", "Cu", 3.75),
    }
    return load_reference([written(tmp_path / "known", crystals)])


@pytest.fixture
def judge() -> Judge:
    """Return a judge with ASE's effective-medium potential."""
    return Judge(Relaxation(model="ase", fmax=0.05), Memory())
