"""Evolution: whose children, of which kind, and none that equals a parent."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from matloop.errors import ConfigurationError
from matloop.generators.evolution import Evolution
from matloop.protocols import ProposalRequest
from matloop.registry import build

OPERATORS = ("crossover", "strain", "permutation", "composition", "rattle", "supercell")


def only(operator: str) -> Evolution:
    return Evolution(**{name: float(name == operator) for name in OPERATORS})


def known(request: ProposalRequest) -> dict[str, Structure]:
    return {p.parent_id: p.structure for p in (*request.found, *request.references)}


def test_without_parents_no_children(oxide_request: ProposalRequest) -> None:
    """Nothing comes of nothing: templates of other chemical systems are no parents."""
    strangers = tuple(p for p in oxide_request.references if "Ti" not in p.structure.symbol_set)
    assert Evolution().propose(replace(oxide_request, found=(), references=())) == []
    assert Evolution().propose(replace(oxide_request, found=(), references=strangers)) == []


def test_references_help_while_little_is_found(oxide_request: ProposalRequest) -> None:
    """Binaries of the space are parents as long as few crystals were found, and then no more."""
    moved = replace(oxide_request, found=(), references=oxide_request.found)
    thin = Evolution().propose(moved)
    assert len(thin) == moved.count
    rich = replace(oxide_request, found=oxide_request.found[:2], references=oxide_request.found[2:])
    for proposal in Evolution(min_parents=2).propose(rich):
        assert "found-3" not in proposal.parents


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_operator_has_children(operator: str, alloy_request: ProposalRequest) -> None:
    """Each operator alone proposes, says its name and the right number of parents."""
    proposals = only(operator).propose(replace(alloy_request, found=_richer(alloy_request)))
    assert len(proposals) >= 5
    for proposal in proposals:
        assert str(proposal.parameters["operator"]).startswith(operator)
        assert len(proposal.parents) == (2 if operator == "crossover" else 1)
        assert len(set(proposal.parents)) == len(proposal.parents)


def test_strain_and_permutation_keep_the_composition(oxide_request: ProposalRequest) -> None:
    """Mutations of shape and order keep the parent's formula."""
    parents = known(oxide_request)
    for operator in ("strain", "permutation", "rattle"):
        for proposal in only(operator).propose(oxide_request):
            parent = parents[proposal.parents[0]]
            formula = proposal.structure.composition.reduced_formula
            assert formula == parent.composition.reduced_formula


def test_no_child_is_its_parent(oxide_request: ProposalRequest) -> None:
    """No child matches one of its parents within tight tolerances."""
    parents = known(oxide_request)
    matcher = StructureMatcher(ltol=0.05, stol=0.05, angle_tol=1, scale=False)
    for proposal in Evolution().propose(oxide_request):
        assert not any(matcher.fit(proposal.structure, parents[name]) for name in proposal.parents)


def test_pressure_favours_the_best(alloy_request: ProposalRequest) -> None:
    """Under strong pressure the best parent has most children; under none they share."""
    wanted = replace(alloy_request, found=_richer(alloy_request), count=60)
    weights = {name: float(name in ("strain", "rattle")) for name in OPERATORS}
    hard = Counter(p.parents[0] for p in Evolution(pressure=6.0, **weights).propose(wanted))
    even = Counter(p.parents[0] for p in Evolution(pressure=0.0, **weights).propose(wanted))
    assert hard["found-1"] > 0.5 * 60
    assert even["found-1"] < 0.5 * 60


def test_wrong_parameters_are_named() -> None:
    """Negative weights, no weights at all and a tiny distance are configuration errors."""
    for parameters, message in (
        ({"strain": -1.0}, "strain"),
        (dict.fromkeys(OPERATORS, 0.0), "at least one operator"),
        ({"min_distance": 0.1}, "min_distance"),
        ({"rattle_sigma": 0.0}, "rattle_sigma"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            build("generators", "evolution", parameters)


# The alloys found, and three of their first crossover's children, so that all operators have room.
def _richer(request: ProposalRequest) -> tuple:
    from matloop.protocols import Parent

    children = Evolution().propose(replace(request, count=4, seed=1))
    made = (
        Parent(f"child-{index}", child.structure, -1.0 - index)
        for index, child in enumerate(children)
    )
    return (*request.found, *made)
