"""Candidates as a stage leaves them, for selectors."""

import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.evaluation import Evaluation
from matloop.protocols import Judged


def make_judged(
    index: int,
    *,
    verdict: str = "pass",
    reason: str = "fine",
    generator: str = "one",
    structure: Structure | None = None,
    known: dict[str, Quantity] | None = None,
    predicted: dict[str, Quantity] | None = None,
) -> Judged:
    """Return a candidate with known quantities, and predictions made in this stage."""
    if structure is None:
        structure = Structure(
            Lattice.cubic(3.0 + 0.05 * index), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        )
    name = f"c{index}"
    new = {f"predicted_{key}": value for key, value in (predicted or {}).items()}
    candidate = Candidate(
        candidate_id=name,
        structure=structure,
        origin=Origin(generator=generator),
        quantities={**(known or {}), **new},
    )
    evaluation = Evaluation(candidate_id=name, verdict=verdict, reason=reason, quantities=new)
    return Judged(candidate, (evaluation,))


@pytest.fixture
def judged():
    """Return the maker of judged candidates."""
    return make_judged
