"""What holds for every generator that makes crystals of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from monty.json import MontyDecoder, MontyEncoder

from matloop.documents.base import digest
from matloop.documents.space import ChemicalSpace
from matloop.generators.cells import contact_limits, contact_ratio, symbols_of
from matloop.generators.evolution import Evolution
from matloop.generators.random_symmetric import RandomSymmetric
from matloop.generators.substitution import Substitution
from matloop.protocols import Generator, Parent, Proposal, ProposalRequest
from matloop.structures.chemistry import is_charge_balanced

GENERATORS = [RandomSymmetric(), Substitution(), Evolution()]
each = pytest.mark.parametrize("generator", GENERATORS, ids=lambda g: type(g).__name__)


def fingerprint(proposals: list[Proposal]) -> str:
    return digest([[p.structure.as_dict(), list(p.parents), dict(p.parameters)] for p in proposals])


@each
def test_travels_through_json(generator: Generator) -> None:
    """A generator comes back equal from JSON, as jobflow and FireWorks carry it."""
    text = json.dumps(generator, cls=MontyEncoder)
    assert json.loads(text, cls=MontyDecoder) == generator
    assert isinstance(generator, Generator)


@each
def test_same_request_gives_same_crystals(
    generator: Generator, oxide_request: ProposalRequest
) -> None:
    """The seed decides everything: equal seeds agree, another seed does not."""
    small = replace(oxide_request, count=8)
    first = generator.propose(small)
    assert fingerprint(generator.propose(small)) == fingerprint(first)
    assert fingerprint(generator.propose(replace(small, seed=12))) != fingerprint(first)


def test_other_process_gives_same_crystals(oxide_request: ProposalRequest, tmp_path: Path) -> None:
    """Another process with another hash seed proposes the very same crystals."""
    small = replace(oxide_request, count=6)
    parents = [
        [[p.parent_id, p.structure.as_dict(), p.utility] for p in group]
        for group in (small.found, small.references)
    ]
    (tmp_path / "parents.json").write_text(json.dumps(parents))
    (tmp_path / "script.py").write_text(
        f"""
import json, pathlib
from pymatgen.core import Structure
from matloop.documents.base import digest
from matloop.documents.space import ChemicalSpace
from matloop.protocols import Parent, ProposalRequest
from matloop.generators.evolution import Evolution
from matloop.generators.random_symmetric import RandomSymmetric
from matloop.generators.substitution import Substitution

groups = json.loads((pathlib.Path(__file__).parent / "parents.json").read_text())
found, known = (tuple(Parent(i, Structure.from_dict(s), u) for i, s, u in g) for g in groups)
space = ChemicalSpace(system="Sr-Ti-O", charge_balance="required")
request = ProposalRequest(space, {small.count}, {small.seed}, found, known)
for generator in (RandomSymmetric(), Substitution(), Evolution()):
    made = generator.propose(request)
    print(digest([[p.structure.as_dict(), list(p.parents), dict(p.parameters)] for p in made]))
"""
    )
    answer = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONHASHSEED": "4242"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = [fingerprint(generator.propose(small)) for generator in GENERATORS]
    assert answer.stdout.split() == here


@each
@pytest.mark.parametrize("kind", ["oxide_request", "alloy_request"])
def test_proposals_lie_in_the_space(
    generator: Generator, kind: str, request: pytest.FixtureRequest
) -> None:
    """Every proposal is inside the space, neutral where required, sane, plain and primitive."""
    wanted: ProposalRequest = request.getfixturevalue(kind)
    proposals = generator.propose(wanted)
    assert 5 <= len(proposals) <= wanted.count
    ids = {parent.parent_id for parent in (*wanted.found, *wanted.references)}
    for proposal in proposals:
        crystal = proposal.structure
        assert wanted.space.objection(crystal.composition) is None
        if wanted.space.charge_balance == "required":
            assert is_charge_balanced(crystal.composition)
        limits = contact_limits(symbols_of(crystal), 0.5)
        assert contact_ratio(crystal.lattice.matrix, crystal.frac_coords, limits) >= 1.0
        assert np.isfinite(crystal.cart_coords).all()
        assert not crystal.site_properties
        assert len(crystal.get_primitive_structure(tolerance=1e-3)) == len(crystal)
        assert set(proposal.parents) <= ids
        json.dumps(dict(proposal.parameters), allow_nan=False)


@each
def test_denied_elements_never_occur(generator: Generator, oxide_request: ProposalRequest) -> None:
    """Elements on the deny list do not occur, even where parents hold them."""
    space = ChemicalSpace(elements=("Sr", "Ba", "Ti", "O"), deny=("Ba",), charge_balance="required")
    for proposal in generator.propose(replace(oxide_request, space=space, count=15)):
        assert "Ba" not in proposal.structure.symbol_set


@each
def test_limits_of_the_space_hold(generator: Generator, oxide_request: ProposalRequest) -> None:
    """Numbers of elements and atoms stay within narrow limits."""
    space = ChemicalSpace(
        elements=("Sr", "Ba", "Ti", "O", "S"),
        min_elements=3,
        max_elements=3,
        min_atoms=4,
        max_atoms=9,
    )
    proposals = generator.propose(replace(oxide_request, space=space, count=15))
    assert proposals
    for proposal in proposals:
        assert len(proposal.structure.symbol_set) == 3
        assert 4 <= len(proposal.structure) <= 9


@each
def test_bad_parents_do_no_harm(
    generator: Generator, oxide_request: ProposalRequest, bad_parents: tuple[Parent, ...]
) -> None:
    """Unusable parents are passed over; the good ones beside them still serve."""
    mixed = replace(
        oxide_request,
        count=6,
        found=(*bad_parents, *oxide_request.found),
        references=(*oxide_request.references, *bad_parents),
    )
    unusable = {parent.parent_id for parent in bad_parents}
    proposals = generator.propose(mixed)
    assert len(proposals) == 6
    assert not any(unusable & set(proposal.parents) for proposal in proposals)
    alone = generator.propose(replace(mixed, found=bad_parents, references=bad_parents))
    assert all(not proposal.parents for proposal in alone)


@each
def test_nothing_wanted_gives_nothing(generator: Generator, oxide_request: ProposalRequest) -> None:
    """A request for no crystals is answered by none."""
    assert generator.propose(replace(oxide_request, count=0)) == []


@each
def test_impossible_space_ends(generator: Generator, oxide_request: ProposalRequest) -> None:
    """Where no composition is neutral the answer is empty and comes soon."""
    space = ChemicalSpace(system="Sr-O", min_elements=2, min_atoms=2, max_atoms=3, deny=())
    noble = replace(
        oxide_request,
        space=ChemicalSpace(system="Ne-Ar", min_elements=2, charge_balance="required"),
    )
    assert generator.propose(noble) == []
    assert all(
        2 <= len(p.structure) <= 3 for p in generator.propose(replace(oxide_request, space=space))
    )
