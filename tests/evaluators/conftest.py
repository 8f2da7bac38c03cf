"""Crystals, candidates and artifacts for evaluators."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.phase import Packed, Phase, PhaseSet
from matloop.documents.theory import LevelOfTheory
from matloop.protocols import Resources

THEORY = LevelOfTheory(kind="mlip", code="toy", version="1", model="toy")

PEROVSKITE = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
)
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)
SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.14), ["Sr", "O"], [[0, 0, 0], [0.5, 0, 0]]
).get_primitive_structure()


def make_candidate(name: str, structure: Structure, energy: float | None = None) -> Candidate:
    """Return a candidate, with an energy (eV/atom) where one is given."""
    known = {} if energy is None else {"energy_per_atom": make_energy(energy)}
    return Candidate(
        candidate_id=name, structure=structure, origin=Origin(generator="test"), quantities=known
    )


def make_energy(value: float, **changes: object) -> Quantity:
    """Return an energy per atom of the toy theory."""
    fields = {"value": value, "unit": "eV/atom", "theory": THEORY.key, **changes}
    return Quantity.model_validate(fields)


def poisoned() -> list[Structure]:
    """Return crystals as broken generators make them."""
    cubic = Lattice.cubic(4.0)
    rng = np.random.default_rng(0)
    return [
        Structure(cubic, ["Sr", "O"], [[0, 0, 0], [np.nan, 0.5, 0.5]]),
        Structure(Lattice(np.full((3, 3), np.nan)), ["Sr"], [[0, 0, 0]]),
        Structure(Lattice.cubic(18), ["Sr"] * 500, rng.random((500, 3))),
        Structure(Lattice.cubic(0.01), ["Sr"], [[0, 0, 0]]),
        Structure(Lattice.from_parameters(4, 4, 4, 1, 1, 1), ["Sr"], [[0, 0, 0]]),
        Structure(Lattice.cubic(900), ["Sr"], [[0, 0, 0]]),
        Structure(cubic, ["Sr", "O"], [[0, 0, 0], [0, 0, 0]]),
        Structure(cubic, ["Og"], [[0, 0, 0]]),
        Structure(cubic, ["X"], [[0, 0, 0]]),
        Structure(cubic, [{"Sr": 0.5, "Ca": 0.5}], [[0, 0, 0]]),
        Structure(cubic, [], []),
    ]


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Resources]:
    """Return a function that writes documents as artifacts, named by keyword."""

    def write(**documents: Packed) -> Resources:
        paths, digests = {}, {}
        for name, document in documents.items():
            content = document.to_bytes()
            digests[name] = hashlib.sha256(content).hexdigest()
            paths[name] = tmp_path / digests[name]
            paths[name].write_bytes(content)
        return Resources(paths, digests)

    return write


@pytest.fixture
def oxides() -> PhaseSet:
    """Return elements with energy zero, SrO and TiO2 with invented energies, one found phase."""
    one = [[0, 0, 0]]
    elements = [
        Phase(
            phase_id=f"{name} element",
            structure=Structure(Lattice.cubic(4), [name], one),
            energy=0.0,
            theory=THEORY,
        )
        for name in ("Sr", "Ti", "O")
    ]
    oxides = [
        Phase(phase_id="SrO rock salt", structure=SALT, energy=-3.0, theory=THEORY),
        Phase(phase_id="TiO2 rutile", structure=RUTILE, energy=-3.2, theory=THEORY),
        Phase(
            phase_id="found-1",
            structure=Structure(Lattice.cubic(3.0), ["Sr", "O"], [[0, 0, 0], [0.5] * 3]),
            energy=-2.9,
            theory=THEORY,
            source="found",
        ),
    ]
    return PhaseSet(theory=THEORY, phases=(*elements, *oxides))
