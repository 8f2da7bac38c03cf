"""Random symmetric crystals: their symmetry, their compositions, their volume."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pymatgen.core import Composition, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError
from matloop.generators.random_symmetric import RandomSymmetric
from matloop.generators.volumes import estimated_volume
from matloop.protocols import Parent, ProposalRequest
from matloop.registry import build


def counts(structure: Structure) -> Counter[str]:
    return Counter(site.specie.symbol for site in structure)


def test_spglib_finds_the_recorded_group(alloys: ChemicalSpace) -> None:
    """An independent library finds the recorded space group in nearly every crystal."""
    proposals = RandomSymmetric().propose(ProposalRequest(alloys, 40, 1))
    assert len(proposals) == 40
    agree = [
        SpacegroupAnalyzer(p.structure, symprec=0.005).get_space_group_number()
        == p.parameters["space_group"]
        for p in proposals
    ]
    assert np.mean(agree) > 0.9


def test_many_groups_and_families_occur(alloys: ChemicalSpace) -> None:
    """Crystals are spread over many space groups of all seven crystal systems but triclinic."""
    proposals = RandomSymmetric().propose(ProposalRequest(alloys, 80, 2))
    groups = [int(p.parameters["space_group"] or 0) for p in proposals]
    bounds = [16, 75, 143, 168, 195, 231]
    assert len(set(groups)) > 30
    assert len(set(np.digitize(groups, bounds))) == 6


def test_only_wanted_groups_occur(oxides: ChemicalSpace) -> None:
    """A list of groups is kept to, and perovskite is among cubic strontium titanates."""
    proposals = RandomSymmetric(space_groups=[221]).propose(ProposalRequest(oxides, 25, 3))
    assert {p.parameters["space_group"] for p in proposals} == {221}
    assert "SrTiO3" in {p.parameters["formula"] for p in proposals}


def test_compositions_favour_the_whole_system(alloys: ChemicalSpace) -> None:
    """Most crystals hold all three elements, some two; many different formulas occur."""
    proposals = RandomSymmetric().propose(ProposalRequest(alloys, 80, 4))
    arity = Counter(len(p.structure.symbol_set) for p in proposals)
    assert arity[3] > 0.7 * len(proposals)
    assert arity[2] > 0
    assert len({p.parameters["formula"] for p in proposals}) > 30


def test_formula_and_units_describe_the_crystal(oxides: ChemicalSpace) -> None:
    """The recorded formula times z is what the primitive cell holds."""
    for proposal in RandomSymmetric().propose(ProposalRequest(oxides, 20, 5)):
        unit = Composition(str(proposal.parameters["formula"]))
        assert unit * int(proposal.parameters["z"] or 0) == proposal.structure.composition


def test_oxide_ions_keep_apart(oxides: ChemicalSpace) -> None:
    """No peroxide bonds: in a space of ions, oxygen atoms are more than 2.1 Å apart."""
    for proposal in RandomSymmetric().propose(ProposalRequest(oxides, 30, 6)):
        crystal = proposal.structure
        for site in crystal:
            if site.specie.symbol == "O":
                near = crystal.get_neighbors(site, 2.1)
                assert all(other.specie.symbol != "O" for other in near)


def test_volume_follows_the_known_crystals(oxides: ChemicalSpace) -> None:
    """References with 20 % more volume than estimated make the proposals larger."""
    generator = RandomSymmetric(volume_factor=[1.0, 1.0])
    plain = generator.propose(ProposalRequest(oxides, 10, 7))
    for proposal in plain:
        volume = estimated_volume(counts(proposal.structure))
        assert proposal.structure.volume == pytest.approx(volume, rel=1e-3)
    crystal = plain[0].structure.copy()
    crystal.scale_lattice(1.2 * crystal.volume)
    crystals = tuple(Parent(str(index), crystal) for index in range(8))
    larger = generator.propose(ProposalRequest(oxides, 10, 7, references=crystals))
    for proposal in larger:
        if len(crystal.symbol_set) > 1:
            volume = 1.2 * estimated_volume(counts(proposal.structure))
            assert proposal.structure.volume == pytest.approx(volume, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("space_groups", [231]),
        ("volume_factor", [1.2, 0.9]),
        ("volume_factor", [1.0]),
        ("min_distance", 0.3),
        ("max_atoms", -1),
        ("attempts", 0),
    ],
)
def test_wrong_parameters_are_named(name: str, value: object) -> None:
    """A parameter out of range is a configuration error that names it."""
    with pytest.raises(ConfigurationError, match=name):
        build("generators", "random_symmetric", {name: value})
