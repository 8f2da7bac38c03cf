"""Parity and calibration are what their definitions say."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from matloop.reports.parity import _spearman, calibrations, coverage_curve
from matloop.reports.predictions import ParityPair


def pair(predicted: float, uncertainty: float | None, computed: float) -> ParityPair:
    return ParityPair(
        candidate_id="x",
        formula="SrO",
        iteration=1,
        predicted=predicted,
        uncertainty=uncertainty,
        computed=computed,
    )


def test_a_calibrated_prediction_covers_what_it_promises():
    """Errors drawn from the predicted normal distribution give a curve on the diagonal."""
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.05, 0.3, size=4000)
    pairs = [pair(0.0, s, float(rng.normal(0, s))) for s in sigma]
    for nominal, observed in coverage_curve(pairs):
        assert observed == pytest.approx(nominal, abs=4 * np.sqrt(0.25 / len(pairs)))


def test_overconfidence_shows_as_too_little_coverage():
    """Uncertainties half as large as the errors put the curve below the diagonal."""
    rng = np.random.default_rng(1)
    pairs = [pair(0.0, 0.05, float(rng.normal(0, 0.1))) for _ in range(500)]
    assert all(observed < nominal - 0.03 for nominal, observed in coverage_curve(pairs)[2:])


def test_no_uncertainty_gives_no_curve():
    """A surrogate that states no uncertainty cannot be called calibrated."""
    assert coverage_curve([pair(0.1, None, 0.2)]) == ()


def test_rank_correlation_agrees_with_scipy_on_ties():
    """Spearman with shared mean ranks is scipy's; constant values have none."""
    x = np.array([0.1, 0.1, 0.3, 0.2, 0.9, 0.3])
    y = np.array([1.0, 2.0, 2.0, 0.5, 3.0, 2.5])
    assert _spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert _spearman(x, np.zeros(6)) is None


def test_pairs_join_predictions_made_before_relaxation_with_computed_values(summaries):
    """Each pair is a relaxed candidate of a later iteration, and the error is over all of them."""
    (parity,) = summaries["finished"].parities
    assert parity.quantity == "e_above_hull"
    assert {p.iteration for p in parity.pairs} == {1, 2}
    errors = [abs(p.predicted - p.computed) for p in parity.pairs]
    assert parity.mae == pytest.approx(np.mean(errors))
    assert parity.mae < parity.mae_constant  # the made-up surrogate knows the answer, with noise
    assert summaries["running"].parities == ()


def test_calibration_is_told_apart_by_part():
    """One part is honest, the other four times too sure; small parts say nothing."""
    rng = np.random.default_rng(2)
    honest = [pair(0.0, 0.1, float(rng.normal(0, 0.1))) for _ in range(300)]
    sure = [
        pair(0.0, 0.1, float(rng.normal(0, 0.4))).model_copy(update={"formula": "TiO2"})
        for _ in range(300)
    ]
    few = [pair(0.0, 0.1, 0.0).model_copy(update={"formula": "Al"}) for _ in range(4)]
    found = calibrations([*honest, *sure, *few], lambda p: p.formula, 5)
    assert [(part.part, part.count) for part in found] == [("SrO", 300), ("TiO2", 300)]
    assert found[0].coverage_90 == pytest.approx(0.9, abs=0.06)
    assert found[1].coverage_90 < 0.5
    assert found[0].ence < 0.2 < found[1].ence
    assert calibrations([pair(0.1, None, 0.2)] * 9, lambda p: p.formula, 1) == ()


def test_the_summary_has_the_calibration_of_every_iteration(summaries):
    """The parts of a campaign add up to its pairs."""
    (parity,) = summaries["finished"].parities
    assert [part.part for part in parity.by_iteration] == ["2", "3"]
    assert sum(part.count for part in parity.by_iteration) == len(parity.pairs)
