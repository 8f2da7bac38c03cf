"""Textbook crystals and requests that the generators' tests share."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.space import ChemicalSpace
from matloop.protocols import Parent, ProposalRequest


def perovskite(a: str, b: str, x: str, length: float) -> Structure:
    """Return a cubic perovskite ABX3."""
    frac = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Structure(Lattice.cubic(length), [a, b, x, x, x], frac)


def rutile(metal: str, anion: str, a: float, c: float, u: float) -> Structure:
    """Return rutile MX2."""
    return Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(a, c), [metal, anion], [[0, 0, 0], [u, u, 0]]
    )


def rock_salt(cation: str, anion: str, length: float) -> Structure:
    """Return rock salt in its conventional cell."""
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(length), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


def caesium_chloride(one: str, other: str, length: float) -> Structure:
    """Return the CsCl structure, B2 among alloys."""
    return Structure(Lattice.cubic(length), [one, other], [[0, 0, 0], [0.5, 0.5, 0.5]])


def auricupride(corner: str, faces: str, length: float) -> Structure:
    """Return the AuCu3 structure."""
    frac = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    return Structure(Lattice.cubic(length), [corner, *[faces] * 3], frac)


@pytest.fixture(scope="session")
def oxides() -> ChemicalSpace:
    """Strontium titanates."""
    return ChemicalSpace(system="Sr-Ti-O", charge_balance="required")


@pytest.fixture(scope="session")
def alloys() -> ChemicalSpace:
    """Nickel aluminides with titanium."""
    return ChemicalSpace(system="Ni-Al-Ti", max_atoms=12)


@pytest.fixture(scope="session")
def oxide_request(oxides: ChemicalSpace) -> ProposalRequest:
    """Twenty oxides, with known ones and templates to build on."""
    return ProposalRequest(
        oxides,
        count=20,
        seed=11,
        found=(
            Parent("found-1", perovskite("Sr", "Ti", "O", 3.90), 0.0),
            Parent("found-2", rutile("Ti", "O", 4.59, 2.96, 0.305), -0.1),
            Parent("found-3", rock_salt("Sr", "O", 5.16), -0.2),
        ),
        references=(
            Parent("barium titanate", perovskite("Ba", "Ti", "O", 4.00)),
            Parent("potassium magnesium fluoride", perovskite("K", "Mg", "F", 3.99)),
            Parent("magnesia", rock_salt("Mg", "O", 4.21)),
            Parent("cassiterite", rutile("Sn", "O", 4.74, 3.19, 0.307)),
        ),
    )


@pytest.fixture(scope="session")
def alloy_request(alloys: ChemicalSpace) -> ProposalRequest:
    """Twenty alloys, with known ones and templates to build on."""
    return ProposalRequest(
        alloys,
        count=20,
        seed=5,
        found=(
            Parent("found-1", caesium_chloride("Al", "Ni", 2.89), 0.0),
            Parent("found-2", caesium_chloride("Ti", "Ni", 3.01), -0.1),
        ),
        references=(
            Parent("beta brass", caesium_chloride("Cu", "Zn", 2.95)),
            Parent("auricupride", auricupride("Au", "Cu", 3.75)),
            Parent("zirconium hydride", rock_salt("Zr", "H", 4.8)),
        ),
    )


@pytest.fixture(scope="session")
def bad_parents() -> tuple[Parent, ...]:
    """Crystals no generator can use: not a number, flat, disordered, empty, a pseudo-element."""
    nan = float("nan")
    nowhere = Lattice([[nan, 0, 0], [0, 4, 0], [0, 0, 4]])
    cube = Lattice.cubic(4.0)
    return (
        Parent("nan coordinate", Structure(cube, ["Sr", "O"], [[0, 0, 0], [nan, 0, 0]])),
        Parent("nan lattice", Structure(nowhere, ["O"], [[0] * 3])),
        Parent("flat", Structure(Lattice([[4, 0, 0], [0, 4, 0], [4, 4, 0]]), ["Sr"], [[0] * 3])),
        Parent("disordered", Structure(cube, [{"Sr": 0.5, "Ti": 0.5}], [[0, 0, 0]])),
        Parent("empty", Structure(cube, [], [])),
        Parent("stacked", Structure(cube, ["Sr", "O"], [[0, 0, 0], [0, 0, 0]])),
        Parent("dummy", Structure(cube, ["X"], [[0, 0, 0]])),
    )
