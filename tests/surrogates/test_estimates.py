"""Cheap estimates combined, and what an ensemble learns on top of them."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.objective import Objective
from matloop.errors import ConfigurationError
from matloop.evaluators.surrogate import Surrogate
from matloop.learners.surrogate import SurrogateRefit
from matloop.protocols import Observation, Resources
from matloop.surrogates.ensemble import Ensemble, Settings, trust_in
from matloop.surrogates.estimates import Combination, agreed
from matloop.surrogates.representations import feature_names, represent

FEW = Settings(trees=20)
HULL = Objective(minimize="e_above_hull")
ESTIMATES = {"e_above_hull": ("e_above_hull_good", "e_above_hull_poor")}


def estimated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A target that ten features do not know, a good estimate of it (10) and a poor one (11)."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=n)
    features = rng.normal(size=(n, 12))
    features[:, 10] = target - 0.5 + 0.1 * rng.normal(size=n) + 0.2 * features[:, 0]
    features[:, 11] = target + rng.normal(size=n)
    return features, target


def test_the_better_estimate_weighs_more_and_shifts_are_taken_out():
    """Weights follow the inverse squared errors; a constant error is no error."""
    features, target = estimated(400)
    combination = Combination.fit(features, target, [10, 11])
    assert combination.weights.sum() == pytest.approx(1.0)
    assert combination.weights[0] > 0.9
    assert combination.shifts[0] == pytest.approx(0.5, abs=0.05)
    error = combination.mean(features) - target
    assert np.abs(error.mean()) < 0.05


def test_of_two_that_err_alike_the_worse_adds_nothing():
    """Errors that go together do not average out: the better one stands alone."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=500)
    common = rng.normal(size=500)
    features = np.column_stack(
        [target + 0.1 * common, target + 0.3 * common + 0.05 * rng.normal(size=500)]
    )
    assert Combination.fit(features, target, [0, 1]).weights == pytest.approx([1.0, 0.0], abs=1e-3)
    apart = features.copy()
    apart[:, 1] = target + 0.1 * rng.normal(size=500)
    assert Combination.fit(apart, target, [0, 1]).weights == pytest.approx([0.5, 0.5], abs=0.1)


def test_few_rows_leave_all_estimates_their_weight():
    """Two results do not yet decide between three estimates; a hundred do."""
    rng = np.random.default_rng(1)
    target = rng.normal(size=100)
    features = target[:, None] + np.array([0.02, 0.2, 0.2]) * rng.normal(size=(100, 3))
    few = Combination.fit(features[:2], target[:2], [0, 1, 2]).weights
    many = Combination.fit(features, target, [0, 1, 2]).weights
    assert few.max() < 0.8 < many[0]


def test_without_results_an_estimate_far_from_the_others_counts_little():
    """The centre of four estimates lies with the three that agree; one alone is taken as it is."""
    values = np.array([[0.0, 0.02, -0.02, 1.0], [np.nan, np.nan, 0.3, np.nan], [np.nan] * 4])
    centre = agreed(values, 0.1)
    assert abs(centre[0]) < 0.01
    assert values[0].mean() == pytest.approx(0.25)
    assert centre[1] == pytest.approx(0.3)
    assert np.isnan(centre[2])


def test_a_correction_is_trusted_as_far_as_it_foretells():
    """A correction that is right counts nearly in full, noise hardly, and few rows less."""
    rng = np.random.default_rng(2)
    lacking = rng.normal(size=400)
    right = lacking + 0.1 * rng.normal(size=400)
    assert trust_in(right, lacking) > 0.85
    assert trust_in(rng.normal(size=400), lacking) < 0.15
    assert trust_in(right[:15], lacking[:15]) < 0.5
    assert trust_in(np.zeros(10), lacking[:10]) == 0.0


def test_missing_estimates_are_done_without():
    """A row with one estimate uses that; a row without any has no mean."""
    features, target = estimated(100)
    combination = Combination.fit(features, target, [10, 11])
    holes = features[:3].copy()
    holes[0, 10] = holes[2, 10] = holes[2, 11] = np.nan
    mean = combination.mean(holes)
    assert mean[0] == pytest.approx(holes[0, 11] + combination.shifts[1])
    assert np.isfinite(mean[1])
    assert np.isnan(mean[2])
    assert np.isfinite(combination.spread_out(holes)).all()


def test_the_difference_is_learned():
    """With estimates the error falls far below that of features alone, and of the best estimate."""
    features, target = estimated(300)
    train, test = slice(0, 200), slice(200, 300)
    alone = Ensemble.fit(features[train, :10], target[train], FEW, 0)
    delta = Ensemble.fit(features[train], target[train], FEW, 0, [10, 11])
    error = np.abs(delta.predict(features[test]).mean - target[test]).mean()
    assert error < 0.5 * np.abs(alone.predict(features[test, :10]).mean - target[test]).mean()
    best = features[test, 10] + 0.5 - target[test]
    assert error < np.abs(best).mean()


def crystal(index: int, *, value: float | None = None) -> Observation:
    rng = np.random.default_rng(index)
    anion, cation = ("Cl", "Br", "F")[index % 3], ("Na", "K", "Rb", "Li")[index % 4]
    structure = Structure(
        Lattice.cubic(4.0 + rng.random()), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    truth = float(rng.normal()) if value is None else value
    cheap = {
        "e_above_hull_good": Quantity(value=truth + 0.1 * rng.normal(), unit="eV/atom"),
        "e_above_hull_poor": Quantity(value=truth + rng.normal(), unit="eV/atom"),
    }
    proposed = Candidate(
        candidate_id=f"c{index}",
        structure=structure,
        origin=Origin(generator="g"),
        quantities=cheap,
    )
    found = {"e_above_hull": Quantity(value=truth, unit="eV/atom", theory="dear")}
    return Observation(proposed, proposed.updated(None, found), 0, "g", -truth, False, 1.0)


def test_the_loop_of_learner_and_evaluator_uses_estimates(tmp_path):
    """Taught with estimates, the evaluator foretells unseen crystals better than the poor one."""
    lesson = SurrogateRefit(trees=20, estimates=ESTIMATES).learn(
        [crystal(i) for i in range(60)], HULL, 0
    )
    path = tmp_path / "surrogate.npz"
    path.write_bytes(lesson.content)
    resources = Resources({"surrogate": path}, {"surrogate": "with estimates"})
    new = [crystal(i) for i in range(100, 140)]
    candidates = [item.proposed for item in new]
    evaluations = Surrogate(estimates=ESTIMATES).evaluate(candidates, resources)
    truth = np.array([item.final.quantities["e_above_hull"].value for item in new])
    mean = np.array([e.quantities["predicted_e_above_hull"].value for e in evaluations])
    assert np.abs(mean - truth).mean() < 0.25
    bare = [item.proposed.model_copy(update={"quantities": {}}) for item in new[:1]]
    nothing = Surrogate(estimates=ESTIMATES).evaluate(bare, resources)[0]
    assert (nothing.verdict, nothing.reason) == ("pass", "it carries no estimate")
    with pytest.raises(ConfigurationError, match="give both the same"):
        Surrogate().evaluate(candidates, resources)


def test_before_the_first_lesson_estimates_stand_alone():
    """What they agree on, with the prior uncertainty of their mean and their disagreement."""
    item = crystal(0).proposed
    good, poor = (item.quantities[name].value for name in ESTIMATES["e_above_hull"])
    evaluation = Surrogate(estimates=ESTIMATES).evaluate([item], Resources())[0]
    found = evaluation.quantities["predicted_e_above_hull"]
    assert found.value == pytest.approx((good + poor) / 2)
    assert found.uncertainty == pytest.approx(np.hypot(0.1 / np.sqrt(2), abs(good - poor) / 2))
    assert found.unit == "eV/atom"


def test_estimates_are_part_of_the_key():
    """Another estimate is another evaluation: it is not found under the first one's key."""
    from matloop.jobs.keys import evaluation_keys

    item = crystal(0).proposed
    other = item.updated(None, {"e_above_hull_good": Quantity(value=9.0, unit="eV/atom")})
    reads, ignores = Surrogate(estimates=ESTIMATES), Surrogate()
    assert evaluation_keys(reads, [item], Resources()) != evaluation_keys(
        reads, [other], Resources()
    )
    assert evaluation_keys(ignores, [item], Resources()) == evaluation_keys(
        ignores, [other], Resources()
    )


def test_composition_alone_does_not_see_geometry():
    """The same formula in another cell has the same representation; the names fit its length."""
    small = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    large = Structure(Lattice.cubic(6.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    features, failures = represent("composition", [small, large, small * [2, 1, 1]])
    assert not failures
    assert features.shape == (3, len(feature_names("composition")))
    assert np.allclose(features, features[0])
