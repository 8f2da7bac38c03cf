"""Element table and composition statistics."""

import numpy as np
import pytest

from matloop.surrogates import elements


def test_table_has_no_gaps():
    """Every property of every element up to lawrencium is a number, noble gases included."""
    table = elements.table()
    assert table.shape == (104, len(elements.PROPERTIES))
    assert np.isfinite(table).all()


def test_gaps_take_the_value_of_a_chemical_neighbour():
    """Argon has no electronegativity; it gets one between those of other elements, not zero."""
    assert 2.0 < elements.column("electronegativity")[18] < 4.0


@pytest.mark.parametrize(
    ("number", "valence"),
    [(22, (2, 0, 2, 0)), (8, (2, 4, 0, 0)), (29, (1, 0, 10, 0)), (60, (2, 0, 0, 4))],
)
def test_valence_electrons_are_those_outside_the_noble_gas_core(number, valence):
    """Ti is s2 d2, O s2 p4, Cu s1 d10, Nd s2 f4."""
    start = elements.PROPERTIES.index("valence_s")
    assert tuple(elements.table()[number, start : start + 4]) == valence


@pytest.mark.parametrize(
    ("numbers", "counts", "charges"),
    [
        ((20, 22, 8), (1, 1, 3), (2, 4, -2)),
        ((8, 20, 22), (3, 1, 1), (-2, 2, 4)),
        ((26, 8), (2, 3), (3, -2)),
        ((11, 17), (4, 4), (1, -1)),
        ((28, 13), (3, 1), None),
        ((14,), (2,), None),
    ],
)
def test_ionic_charges_are_the_textbook_ones(numbers, counts, charges):
    """Perovskite, hematite and rock salt balance with common states; an alloy does not."""
    assert elements.ionic_charges(numbers, counts) == charges


def test_composition_features_are_weighted_by_fraction():
    """Means of TiO2 are one part Ti and two parts O; Ti2O4 is the same composition."""
    features = dict(
        zip(
            elements.COMPOSITION_FEATURES,
            elements.composition_features((8, 22), (2, 1)),
            strict=True,
        )
    )
    assert features["number_mean"] == pytest.approx((2 * 8 + 22) / 3)
    assert features["number_range"] == 14
    assert features["is_neutral"] == 1.0
    twice = elements.composition_features((8, 22), (4, 2))
    assert twice == pytest.approx(elements.composition_features((8, 22), (2, 1)))
