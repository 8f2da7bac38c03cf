"""Cell contents: drawing and finding them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pymatgen.core import Composition

from matloop.documents.space import ChemicalSpace
from matloop.generators.formulas import draw_counts, formulas_of, is_allowed, nearest_counts


def test_formulas_are_reduced_and_neutral() -> None:
    """SrTiO3 and Sr2TiO4 are listed; the multiple Sr2Ti2O6 and the charged SrTi3O are not."""
    elements = ("Sr", "Ti", "O")
    rows = {tuple(map(int, row)) for row in formulas_of(elements, 20, True)}
    assert {(1, 1, 3), (2, 1, 4), (3, 2, 7)} <= rows
    assert not {(2, 2, 6), (1, 3, 1)} & rows


def test_wide_systems_stay_bounded() -> None:
    """Five elements in cells of 200 atoms list the small formulas, and soon."""
    formulas = formulas_of(("Na", "Mg", "Al", "Si", "O"), 200, False)
    assert 1_000 < len(formulas) < 25_000
    assert formulas[0].tolist() == [1, 1, 1, 1, 1]


def test_drawn_contents_lie_in_the_space() -> None:
    """Every draw is allowed; small formulas and common oxidation states lead."""
    space = ChemicalSpace(system="Sr-Ti-O", charge_balance="required", min_atoms=4)
    rng = np.random.default_rng(0)
    drawn = Counter()
    for _ in range(300):
        result = draw_counts(
            space, rng, full_system=6.0, simplicity=3.0, small_cells=0.5, largest=20
        )
        assert result is not None
        counts, z = result
        assert is_allowed(space, counts)
        assert all(number % z == 0 for number in counts.values())
        drawn[Composition(counts).reduced_formula] += 1
    assert drawn.most_common(1)[0][0] == "SrTiO3"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"Sr": 1, "Ti": 1, "O": 3}, {"Sr": 1, "Ti": 1, "O": 3}),
        ({"Sr": 20, "Ti": 1, "O": 1}, None),
    ],
)
def test_nearest_is_neutral(counts: dict[str, int], expected: dict[str, int] | None) -> None:
    """A neutral content is its own nearest one; any other is led to a neutral one that fits."""
    space = ChemicalSpace(system="Sr-Ti-O", charge_balance="required")
    nearest = nearest_counts(space, counts, np.random.default_rng(0))
    assert nearest is not None
    assert is_allowed(space, nearest)
    if expected:
        assert nearest == expected


def test_slack_leads_elsewhere() -> None:
    """With slack the start itself is never the answer, and answers vary."""
    space = ChemicalSpace(system="Al-Ni")
    rng = np.random.default_rng(0)
    start = {"Al": 1, "Ni": 3}
    answers = [nearest_counts(space, start, rng, slack=1) for _ in range(20)]
    assert all(answer and answer != start for answer in answers)
    assert len({tuple(answer.items()) for answer in answers if answer}) > 3
