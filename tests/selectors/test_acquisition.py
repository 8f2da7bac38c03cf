"""Scores that rank promises, against what can be worked out on paper."""

import hashlib

import numpy as np
import pytest
from scipy.stats import norm

from matloop.documents.candidate import Quantity
from matloop.documents.objective import Objective
from matloop.errors import ConfigurationError
from matloop.protocols import NextCalculation, Resources, SelectionRequest
from matloop.selectors.expected_utility import ExpectedUtility
from matloop.surrogates.descriptors import FEATURES
from matloop.surrogates.ensemble import Settings
from matloop.surrogates.fitted import TrainingTable

HULL = Objective(minimize="e_above_hull", discovery="e_above_hull <= 0.05 eV/atom")


def energy(value: float, spread: float) -> dict[str, Quantity]:
    return {"e_above_hull": Quantity(value=value, unit="eV/atom", uncertainty=spread)}


def scores(batch, request, **changes) -> list[float]:
    selector = ExpectedUtility(**{"random_share": 0.0, "diversity": 0.0} | changes)
    return [choice.evidence["acquisition"] for choice in selector.select(batch, request)]


@pytest.fixture
def learned(tmp_path) -> Resources:
    """A surrogate whose best result so far lies 0.1 eV/atom above the hull."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(12, len(FEATURES))).astype(np.float32)
    content = TrainingTable(
        features,
        {"e_above_hull": np.linspace(0.1, 1.2, 12)},
        {"e_above_hull": "eV/atom"},
        {"e_above_hull": 1.0},
        0,
        Settings(trees=2),
    ).to_bytes()
    path = tmp_path / "surrogate.npz"
    path.write_bytes(content)
    return Resources({"surrogate": path}, {"surrogate": hashlib.sha256(content).hexdigest()})


def test_expected_improvement_is_over_the_best_result(judged, learned):
    """Mean and best 0.1: s/sqrt(2 pi); the closed form of Jones et al. (1998) for the others."""
    cases = [(0.1, 0.05), (0.0, 0.05), (0.3, 0.2)]
    batch = [judged(i, predicted=energy(*case)) for i, case in enumerate(cases)]
    request = SelectionRequest(HULL, 1, keep=2, resources=learned)
    found = scores(batch, request, acquisition="expected_improvement")
    for score, (mean, spread) in zip(found, cases, strict=True):
        z = (0.1 - mean) / spread
        exact = (0.1 - mean) * norm.cdf(z) + spread * norm.pdf(z)
        assert score == pytest.approx(exact, rel=0.06)


def test_without_results_improvement_ranks_by_utility(judged):
    """Before the first lesson nothing can be improved on: the better mean goes first."""
    batch = [judged(0, predicted=energy(0.3, 0.2)), judged(1, predicted=energy(0.1, 0.01))]
    found = scores(batch, SelectionRequest(HULL, 1, keep=1), acquisition="expected_improvement")
    assert found[1] > found[0]


def test_hull_drop_and_stability_are_those_of_the_normal_distribution(judged):
    """On the hull with deviation 0.1: drop 0.1/sqrt(2 pi), stable with one half."""
    batch = [judged(0, predicted=energy(0.0, 0.1)), judged(1, predicted=energy(0.4, 0.1))]
    request = SelectionRequest(HULL, 2, keep=1)
    drop = scores(batch, request, acquisition="expected_hull_drop")
    assert drop[0] == pytest.approx(0.1 / np.sqrt(2 * np.pi), rel=0.05)
    assert drop[1] < 0.002
    stable = scores(batch, request, acquisition="probability_of_stability")
    assert stable[0] == pytest.approx(0.5, abs=0.02)
    assert stable[1] < 0.02


def test_cost_divides_the_gain(judged):
    """Of two equal chances the cheaper calculation goes first; without cost, equal they stay."""
    batch = [judged(0, predicted=energy(0.02, 0.05)), judged(1, predicted=energy(0.02, 0.05))]
    hours = iter([8.0, 2.0] * 4)
    calculation = NextCalculation(lambda structure: next(hours))
    request = SelectionRequest(HULL, 3, keep=1, calculation=calculation)
    free = scores(batch, request)
    dear = scores(batch, request, cost_exponent=1.0)
    assert free[0] == free[1]
    assert dear[1] == pytest.approx(4.0 * dear[0])


def test_what_makes_no_sense_is_refused(judged):
    """A utility below zero has no gain per cost; a score of distances needs the distance."""
    with pytest.raises(ValueError, match="cost_exponent divides only"):
        ExpectedUtility(acquisition="ucb", cost_exponent=1.0)
    objective = Objective(maximize="density", discovery="density >= 3 g/cm^3")
    batch = [judged(0), judged(1)]
    with pytest.raises(ConfigurationError, match="names e_above_hull"):
        scores(batch, SelectionRequest(objective, 0, keep=1), acquisition="expected_hull_drop")


@pytest.mark.parametrize("repulsion", ["nearest", "determinantal"])
def test_the_random_arm_has_its_share_under_every_repulsion(judged, repulsion):
    """A fifth of ten places goes by lot, marked as such, and the batch has ten members."""
    batch = [judged(i, predicted=energy(0.01 * i, 0.05)) for i in range(40)]
    selector = ExpectedUtility(random_share=0.2, repulsion=repulsion, formula_share=1.0)
    choices = selector.select(batch, SelectionRequest(HULL, 4, keep=10))
    arms = [choice.evidence["arm"] for choice in choices if choice.outcome == "passed"]
    assert len(arms) == 10
    assert sum(arms) == 2
