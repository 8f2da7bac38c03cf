"""Substitution: the right crystal from the right template."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Lattice, Structure

from matloop.documents.space import ChemicalSpace
from matloop.generators.substitution import Substitution
from matloop.protocols import Parent, ProposalRequest


def by_parent(request: ProposalRequest, parent_id: str) -> list[Structure]:
    references = tuple(p for p in request.references if p.parent_id == parent_id)
    alone = replace(request, found=(), references=references)
    proposals = Substitution(min_log_probability=-20.0).propose(alone)
    assert all(proposal.parents == (parent_id,) for proposal in proposals)
    return [proposal.structure for proposal in proposals]


def test_barium_titanate_leads_to_strontium_titanate(oxide_request: ProposalRequest) -> None:
    """From BaTiO3 comes cubic SrTiO3, with its measured lattice constant within 3 %."""
    children = by_parent(oxide_request, "barium titanate")
    measured = Structure(
        Lattice.cubic(3.905),
        ["Sr", "Ti", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    )
    matcher = StructureMatcher(scale=False)
    hits = [child for child in children if matcher.fit(child, measured)]
    assert len(hits) == 1
    assert hits[0].lattice.a == pytest.approx(3.905, rel=0.03)


def test_likely_substitutions_come_first(oxide_request: ProposalRequest) -> None:
    """Over many seeds Ba > Sr is drawn from BaTiO3 before any other exchange."""
    barium = tuple(p for p in oxide_request.references if p.parent_id == "barium titanate")
    firsts = [
        Substitution().propose(
            replace(oxide_request, seed=seed, count=1, found=(), references=barium)
        )
        for seed in range(10)
    ]
    assert sum(made[0].parameters["mapping"] == "Ba > Sr" for made in firsts) >= 8


def test_each_mapping_comes_once(oxide_request: ProposalRequest) -> None:
    """No parent meets the same mapping twice, and no child repeats its parent."""
    proposals = Substitution(min_log_probability=-20.0).propose(replace(oxide_request, count=500))
    keys = [(proposal.parents, proposal.parameters["mapping"]) for proposal in proposals]
    assert len(set(keys)) == len(keys)
    cells = {p.parent_id: p.structure for p in (*oxide_request.found, *oxide_request.references)}
    matcher = StructureMatcher()
    for proposal in proposals:
        assert not matcher.fit(proposal.structure, cells[proposal.parents[0]])


def test_alloys_are_substituted_by_likeness(alloy_request: ProposalRequest) -> None:
    """Beta brass leads to the B2 aluminides, which are ordered as their template is."""
    references = alloy_request.references[:1]
    proposals = Substitution(min_log_probability=-20.0).propose(
        replace(alloy_request, found=(), references=references)
    )
    formulas = {proposal.structure.composition.reduced_formula for proposal in proposals}
    assert {"AlNi", "TiNi", "TiAl"} <= formulas
    for proposal in proposals:
        assert len(proposal.structure) == 2
        assert np.allclose(proposal.structure.lattice.angles, 90)


def test_single_orbits_are_exchanged() -> None:
    """In the ruthenate Sr3Ru2O7 one of its two kinds of strontium can become barium."""
    space = ChemicalSpace(elements=("Sr", "Ba", "Ru", "O"), charge_balance="required")
    layered = Structure.from_spacegroup(
        "I4/mmm",
        Lattice.tetragonal(3.89, 20.7),
        ["Sr", "Sr", "Ru", "O", "O", "O"],
        [
            [0, 0, 0.5],
            [0, 0, 0.3135],
            [0, 0, 0.0979],
            [0, 0, 0],
            [0, 0, 0.196],
            [0, 0.5, 0.0958],
        ],
    )
    request = ProposalRequest(space, 200, 0, found=(Parent("ruthenate", layered, 0.0),))
    proposals = Substitution(min_log_probability=-20.0).propose(request)
    made = {proposal.structure.composition.reduced_composition for proposal in proposals}
    assert {Composition(text) for text in ("Sr2BaRu2O7", "SrBa2Ru2O7", "Ba3Ru2O7")} <= made
    whole = Substitution(partial=False, min_log_probability=-20.0).propose(request)
    assert all("on" not in str(proposal.parameters["mapping"]).split() for proposal in whole)


def test_wide_spaces_stay_quick(oxide_request: ProposalRequest) -> None:
    """Among forty elements the likeliest are tried, and perovskites of them come out."""
    names = (
        "Li Na K Rb Cs Mg Ca Sr Ba Sc Y La Ti Zr Hf V Nb Ta Cr Mo W Mn Fe Co Ni Cu Zn Al Ga In "
        "Si Ge Sn Pb N O S Se F Cl"
    )
    space = ChemicalSpace(
        elements=tuple(names.split()), max_elements=3, min_elements=3, charge_balance="required"
    )
    proposals = Substitution().propose(replace(oxide_request, space=space, count=60))
    assert len(proposals) == 60
    formulas = {proposal.structure.composition.reduced_formula for proposal in proposals}
    assert (
        len(formulas & {"CaTiO3", "BaZrO3", "SrZrO3", "BaHfO3", "SrHfO3", "KMgF3", "BaSnO3"}) >= 2
    )
