"""The correction between two levels of theory: what it finds, and how sure it may be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pymatgen.core import Composition

from matloop.errors import MatloopError
from matloop.surrogates.fidelity import (
    FEATURES,
    Correction,
    features_of,
    leave_one_out,
)

ELEMENTS = ("Li", "Na", "Mg", "Al", "Ti", "Fe", "Sr", "O", "F", "S")
Z90 = 1.6449


def draw(
    rng: np.random.Generator, count: int, slope: float, noise: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return features of random compositions, and differences of a known law."""
    compositions = []
    for _ in range(count):
        names = rng.choice(ELEMENTS, size=int(rng.integers(1, 4)), replace=False)
        compositions.append(Composition({str(name): int(rng.integers(1, 4)) for name in names}))
    features = features_of(compositions, rng.normal(0.05, 0.1, count))
    errors = 0.04 * rng.standard_normal(count)
    if noise == "heavy":
        errors = 0.025 * rng.standard_t(3, count)
    return features, 0.03 + slope * (features[:, 1] - 2.5) - slope * features[:, 0] + errors


@pytest.mark.parametrize("noise", ["normal", "heavy"])
@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("count", [9, 14, 30, 60])
def test_the_interval_covers_what_it_says(count: int, slope: float, noise: str) -> None:
    """Over many draws the 90 % interval holds 87 to 93 % of new differences."""
    rng = np.random.default_rng(count)
    inside = []
    for _ in range(200):
        features, difference = draw(rng, count, slope, noise)
        fresh, found = draw(rng, 40, slope, noise)
        shift = Correction.fit(features, difference).shift(fresh)
        inside.append(np.mean(np.abs(found - shift.mean) <= Z90 * shift.spread))
    assert 0.87 <= np.mean(inside) <= 0.93


@pytest.mark.parametrize("count", [2, 5, 8])
def test_with_few_pairs_the_interval_is_too_wide_rather_than_too_narrow(count: int) -> None:
    """Below nine pairs the prior keeps the interval wide: at least 90 % are inside."""
    rng = np.random.default_rng(count)
    inside = []
    for _ in range(200):
        features, difference = draw(rng, count, 0.05, "normal")
        fresh, found = draw(rng, 40, 0.05, "normal")
        shift = Correction.fit(features, difference, prior=0.1).shift(fresh)
        inside.append(np.mean(np.abs(found - shift.mean) <= Z90 * shift.spread))
    assert np.mean(inside) >= 0.9


def test_a_constant_shift_is_found() -> None:
    """Without noise to speak of, a constant difference comes out, and no slopes are made up."""
    rng = np.random.default_rng(1)
    features, _ = draw(rng, 40, 0.0, "normal")
    shift = Correction.fit(features, 0.07 + 1e-3 * rng.standard_normal(40)).shift(features)
    assert shift.mean == pytest.approx(0.07, abs=1e-3)


def test_a_slope_is_used_once_there_are_pairs_enough() -> None:
    """A difference that depends on composition is foretold better than by its mean alone."""
    rng = np.random.default_rng(2)
    features, difference = draw(rng, 60, 0.3, "normal")
    fresh, found = draw(rng, 400, 0.3, "normal")
    shift = Correction.fit(features, difference).shift(fresh)
    alone = np.mean(np.abs(found - difference.mean()))
    assert np.mean(np.abs(found - shift.mean)) < 0.65 * alone
    few = Correction.fit(features[:10], difference[:10]).shift(fresh)
    assert np.ptp(few.mean) < 1e-6, "ten pairs do not tell six slopes"


def test_one_absurd_pair_does_not_move_the_mean_far() -> None:
    """A calculation that fell into another crystal widens the interval, and hardly moves it."""
    rng = np.random.default_rng(3)
    features, difference = draw(rng, 25, 0.0, "normal")
    before = Correction.fit(features, difference).shift(features).mean
    difference[7] = -4.0
    after = Correction.fit(features, difference).shift(features).mean
    assert np.abs(after - before).max() < 0.03


def test_pairs_left_out_are_judged_without_themselves() -> None:
    """Leave-one-out errors are those of refitting without the pair (means, no slopes)."""
    rng = np.random.default_rng(4)
    features, difference = draw(rng, 12, 0.0, "normal")
    unseen = leave_one_out(features, difference)
    for row in range(12):
        rest = np.delete(difference, row)
        assert unseen.error[row] == pytest.approx(rest.mean() - difference[row], abs=2e-4)


def test_a_correction_is_text() -> None:
    """It is stored as JSON, comes back the same, and anything else is refused."""
    rng = np.random.default_rng(5)
    features, difference = draw(rng, 30, 0.1, "normal")
    correction = Correction.fit(features, difference)
    assert Correction.from_bytes(correction.to_bytes()) == correction
    assert json.loads(correction.to_bytes())["features"] == list(FEATURES)
    for content in (b"\x80\x04K\x01.", b"{}", b"[]", b'{"format": 9, "features": []}'):
        with pytest.raises(MatloopError):
            Correction.from_bytes(content)


def test_the_prior_corrects_nothing() -> None:
    """Before the first lesson the distance stays, with the assumed uncertainty."""
    found = Correction.prior(0.1).correct([Composition("NaCl")], np.array([0.03]))
    assert found.mean == pytest.approx(0.03)
    assert found.spread == pytest.approx(0.1)
