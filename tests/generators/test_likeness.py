"""Likelihood of substitutions against chemical common sense and pymatgen's own numbers."""

from __future__ import annotations

from math import log

import pytest
from pymatgen.core.structure_prediction.substitution_probability import SubstitutionProbability

from matloop.generators.likeness import likeliest, log_likelihood, neutral_states


def test_ions_follow_the_published_table() -> None:
    """For ionic contents the score is the sum of the published conditional probabilities."""
    model = SubstitutionProbability()
    expected = sum(
        log(model.cond_prob(old, new))
        for old, new in (("Ba2+", "Sr2+"), ("Ti4+", "Ti4+"), ("O2-", "O2-"))
    )
    before = (("Ba", 1), ("Ti", 1), ("O", 3))
    after = (("Sr", 1), ("Ti", 1), ("O", 3))
    assert log_likelihood(before, after) == pytest.approx(expected)


def test_like_ions_beat_unlike_ones() -> None:
    """Barium gives way to strontium sooner than to titanium with titanium in strontium's place."""
    before = (("Ba", 1), ("Zr", 1), ("O", 3))
    right = log_likelihood(before, (("Sr", 1), ("Ti", 1), ("O", 3)))
    wrong = log_likelihood(before, (("Ti", 1), ("Sr", 1), ("O", 3)))
    assert right > wrong + 4


def test_alloys_follow_the_chemical_scale() -> None:
    """In alloys nickel is replaced by palladium rather than by aluminium or caesium."""
    before = (("Ti", 1), ("Ni", 1))
    scores = [log_likelihood(before, (("Ti", 1), (name, 1))) for name in ("Pd", "Al", "Cs")]
    assert scores == sorted(scores, reverse=True)
    assert likeliest("Zr", ["Cl", "Ti", "Na"], 1) == ["Ti"]


def test_neutral_states_are_shared_by_an_element() -> None:
    """Two classes of one element have one oxidation state between them."""
    assert neutral_states((("Sr", 1), ("O", 1), ("Sr", 1), ("O", 1))) == ((2, -2, 2, -2),)
    assert neutral_states((("Ti", 1), ("Ni", 1))) == ()
