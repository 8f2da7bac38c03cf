"""Calibration of uncertainties."""

import numpy as np
import pytest

from matloop.surrogates.calibration import (
    LocalScale,
    Residuals,
    cross_scaled,
    quality,
    scale_factor,
    spearman,
    tempered,
)


def gaussian(n: int, scale: float, seed: int = 0) -> Residuals:
    """Predictions whose errors are `scale` times what they say."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.5, 2.0, n)
    mean = rng.normal(0.0, 3.0, n)
    return Residuals(mean + scale * spread * rng.normal(size=n), mean, spread)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_scale_factor_recovers_the_true_scale(scale):
    """Errors that are twice as large as said need a factor of two."""
    assert scale_factor(gaussian(5000, scale)) == pytest.approx(scale, rel=0.05)


def test_scale_factor_ignores_a_few_absurd_results():
    """One percent of wild outliers hardly moves the factor."""
    residuals = gaussian(1000, 1.0)
    residuals.target[:10] += 1e6
    assert scale_factor(residuals) == pytest.approx(1.0, rel=0.1)


def test_scale_factor_of_nothing_is_one():
    """Without residuals nothing is rescaled."""
    assert scale_factor(Residuals(*(np.empty(0),) * 3)) == 1.0


def test_small_samples_are_not_flattered():
    """On average over many tables of ten rows, at least 68 % of new results are covered."""
    covered = []
    for seed in range(400):
        sample = gaussian(11, 1.0, seed)
        factor = scale_factor(Residuals(sample.target[1:], sample.mean[1:], sample.spread[1:]))
        covered.append(sample.scores[0] <= factor)
    assert np.mean(covered) > 0.66


def test_cross_calibration_gives_nominal_coverage():
    """Over-confident predictions, calibrated without their own fold, cover what they promise."""
    residuals = gaussian(2000, 3.0)
    folds = np.arange(2000) % 5
    before = quality(residuals)
    after = quality(cross_scaled(residuals, folds))
    assert before["coverage_90"] < 0.6
    for level in (50, 80, 90, 95):
        assert after[f"coverage_{level}"] == pytest.approx(level / 100, abs=0.04)
    assert after["ence"] < 0.15 < before["ence"]


def test_a_local_scale_covers_where_few_results_are():
    """Errors that grow away from what was bought are covered there too; one factor fails."""
    rng = np.random.default_rng(3)

    def predicted(mean):
        error = (1.0 + 2.0 * np.clip(mean, 0.0, None)) * rng.normal(size=len(mean))
        return Residuals(mean + error, mean, np.ones(len(mean)))

    covered = {"one": [], "local": []}
    for _ in range(40):
        promising, by_lot = rng.normal(-0.5, 0.3, 90), rng.uniform(-1.0, 3.0, 12)
        seen = predicted(np.r_[promising, by_lot])
        rest = predicted(rng.uniform(0.0, 3.0, 300))
        factors = {"one": scale_factor(seen), "local": LocalScale.of(seen).factors(rest.mean)}
        for name, factor in factors.items():
            covered[name].append(quality(rest.scaled(factor))["coverage_90"])
    assert np.mean(covered["one"]) + 0.1 < np.mean(covered["local"]) < 0.95


def test_where_errors_are_even_a_local_scale_is_the_plain_one():
    """With many rows everywhere the factors agree within a tenth."""
    residuals = gaussian(3000, 2.0)
    factors = LocalScale.of(residuals).factors(np.linspace(-3.0, 3.0, 50))
    assert factors == pytest.approx(np.full(50, 2.0), rel=0.15)
    assert LocalScale.of(Residuals(*(np.empty(0),) * 3)).factors(np.zeros(2)).tolist() == [1.0, 1.0]


def test_earlier_predictions_correct_the_factor_by_their_number():
    """Overconfidence seen ahead of time raises the factor, and more so with more evidence."""
    none = tempered(1.0, Residuals(*(np.empty(0),) * 3))
    few, many = tempered(1.0, gaussian(10, 3.0)), tempered(1.0, gaussian(2000, 3.0))
    assert none == 1.0
    assert 1.0 < few < many
    assert many == pytest.approx(3.0, rel=0.1)


def test_quality_of_perfect_and_of_useless_predictions():
    """R2 is 1 for a perfect prediction and 0 for the mean of the results."""
    target = np.linspace(0.0, 1.0, 50)
    perfect = quality(Residuals(target, target, np.full(50, 0.1)))
    useless = quality(Residuals(target, np.full(50, 0.5), np.full(50, 0.3)))
    assert perfect["r2"] == 1.0
    assert perfect["mae"] == 0.0
    assert perfect["rank_correlation"] == pytest.approx(1.0)
    assert useless["r2"] == pytest.approx(0.0)
    assert "rank_correlation" not in useless
    assert perfect["n"] == useless["n"] == 50.0


def test_every_number_is_finite_even_for_few_rows():
    """Tables of zero to five rows give finite numbers and always their count."""
    for n in range(6):
        metrics = quality(gaussian(n, 1.0))
        assert metrics["n"] == n
        assert np.isfinite(list(metrics.values())).all()


def test_spearman_sees_order_alone():
    """A monotonous distortion leaves the rank correlation at one."""
    x = np.linspace(-2, 2, 30)
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert spearman(x, -(x**3)) == pytest.approx(-1.0)
