"""Gaussian process on standardised descriptors."""

import numpy as np
import pytest

from matloop.surrogates.gaussian_process import GaussianProcess, Scaler


def wave(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 2))
    return x, np.sin(2 * x[:, 0]) + x[:, 1] + noise * rng.normal(size=n)


def test_interpolates_a_smooth_function():
    """With 150 exact points the error on new ones is below 3 % of the function's spread."""
    x, y = wave(150, 0.0)
    new, truth = wave(100, 0.0, seed=1)
    mean, _ = GaussianProcess.fit(x, y, np.random.default_rng(0)).predict(new)
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.03 * truth.std() + 0.02


def test_uncertainty_grows_away_from_the_data():
    """Far from all points the standard deviation is larger, at them it is about the noise."""
    x, y = wave(100, 0.05)
    process = GaussianProcess.fit(x[x[:, 0] < 0], y[x[:, 0] < 0], np.random.default_rng(0))
    _, near = process.predict(x[x[:, 0] < -0.5])
    _, far = process.predict(np.array([[2.0, 0.0]]))
    assert far[0] > 2.0 * np.median(near)


def test_noise_is_recognised():
    """A noisy target gets a standard deviation of the right size, not a false certainty."""
    x, y = wave(300, 0.5)
    _, spread = GaussianProcess.fit(x, y, np.random.default_rng(0)).predict(x)
    assert np.median(spread) == pytest.approx(0.5, rel=0.3)


def test_scaler_drops_constants_and_clips():
    """A feature that never varies has no say, and an absurd value is no farther than four."""
    features = np.column_stack([np.arange(10.0), np.full(10, 7.0)])
    scaler = Scaler.fit(features)
    assert scaler.kept.tolist() == [0]
    assert scaler.transform(np.array([[1e9, -1e9]])).tolist() == [[4.0]]


def test_correlations_are_those_of_draws_from_the_posterior():
    """Of 200,000 functions drawn from the prior, what ten known points leave unexplained."""
    rng = np.random.default_rng(1)
    x, y = wave(10, 0.1)
    process = GaussianProcess.fit(x, y, rng)
    new = np.array([[3.0, 0.0], [3.1, 0.0], [-3.0, 0.5], x[0]])
    found = process.correlation(new)
    assert np.diag(found) == pytest.approx(1.0)
    assert (found == found.T).all()
    whole = np.vstack([x, new])
    scaled = process._scaler.transform(whole)
    gaps = np.linalg.norm(scaled[:, None] - scaled[None], axis=2) * np.sqrt(3.0) / process.length
    kernel = (1.0 + gaps) * np.exp(-gaps) + process.noise * np.eye(len(whole))
    draws = np.linalg.cholesky(kernel) @ rng.normal(size=(len(whole), 200_000))
    weights = np.linalg.solve(kernel[:10, :10], kernel[:10, 10:])
    left = draws[10:] - weights.T @ draws[:10]
    assert found == pytest.approx(np.corrcoef(left), abs=0.02)
    assert found[0, 1] > found[0, 2]
