"""Expected hypervolume improvement, against what can be worked out otherwise."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.stats import norm

from matloop.documents.candidate import Quantity
from matloop.documents.objective import Objective
from matloop.documents.pareto import hypervolume
from matloop.protocols import Resources, SelectionRequest
from matloop.selectors.acquisition import SAMPLES, Outcomes
from matloop.selectors.expected_utility import ExpectedUtility
from matloop.selectors.volume import Volume, volume
from matloop.surrogates.descriptors import FEATURES
from matloop.surrogates.ensemble import Settings
from matloop.surrogates.fitted import TrainingTable

GOALS = Objective(
    minimize=("e_above_hull", "density"),
    reference={"e_above_hull": "1 eV/atom", "density": "10 g/cm^3"},
    discovery="e_above_hull <= 0.05 eV/atom",
)
VOLUME = "expected_hypervolume_improvement"


def said(energy: float, density: float, spread: float = 0.0, **more: Quantity):
    return {
        "e_above_hull": Quantity(value=energy, unit="eV/atom", uncertainty=spread),
        "density": Quantity(value=density, unit="g/cm^3", uncertainty=10 * spread),
        **more,
    }


@pytest.fixture
def learned(tmp_path, judged):
    """Results at (0.2, 8), (0.5, 5) and (0.8, 3) among worse ones, of crystals like the batch's."""
    from matloop.surrogates.descriptors import describe_all

    features, _ = describe_all([judged(i).candidate.structure for i in range(12)])
    worse = np.linspace(0.85, 0.99, 9)
    content = TrainingTable(
        features.astype(np.float32),
        {
            "e_above_hull": np.array([0.2, 0.5, 0.8, *worse]),
            "density": np.array([8.0, 5.0, 3.0, *(9.0 + 0.1 * worse)]),
        },
        {"e_above_hull": "eV/atom", "density": "g/cm^3"},
        {"e_above_hull": 1.0, "density": 1.0},
        0,
        Settings(trees=2),
    ).to_bytes()
    assert features.shape[1] == len(FEATURES)
    path = tmp_path / "surrogate.npz"
    path.write_bytes(content)
    return Resources({"surrogate": path}, {"surrogate": hashlib.sha256(content).hexdigest()})


def test_certain_candidates_add_what_they_add(judged, learned):
    """Without uncertainty the score is the volume added, in eV/atom times g/cm^3."""
    cases = [(0.1, 9.0), (0.3, 4.0), (0.6, 9.5)]
    batch = [judged(i, predicted=said(*case)) for i, case in enumerate(cases)]
    request = SelectionRequest(GOALS, 1, keep=2, resources=learned)
    _, added = volume(batch, request, np.random.default_rng(0))
    assert added is not None
    front = -np.array([[0.2, 8.0], [0.5, 5.0], [0.8, 3.0]])
    worst = np.array([-1.0, -10.0])
    before = hypervolume(front, worst)
    for score, case in zip(added.scores, cases, strict=True):
        after = hypervolume(np.vstack([front, -np.array(case)]), worst)
        assert score == pytest.approx(after - before)
    assert added.scores[2] == 0.0


def test_the_expectation_is_that_of_the_normal_distribution(judged):
    """One box, two independent goals: the product of two expected improvements."""
    batch = [judged(0, predicted=said(0.8, 9.0, 0.2)), judged(1, predicted=said(1.5, 9.0, 0.2))]
    request = SelectionRequest(GOALS, 1, keep=1)
    found = np.mean(
        [volume(batch, request, np.random.default_rng(s))[1].scores for s in range(8)], axis=0
    )
    for score, (energy, density) in zip(found, [(0.8, 9.0), (1.5, 9.0)], strict=True):
        exact = 1.0
        for gap, spread in ((1.0 - energy, 0.2), (10.0 - density, 2.0)):
            z = gap / spread
            exact *= gap * norm.cdf(z) + spread * norm.pdf(z)
        assert score == pytest.approx(exact, rel=0.1, abs=0.005)


def test_picks_are_counted_sample_by_sample():
    """After each pick, scores are those of the front that has it, for 200 random cases."""
    rng = np.random.default_rng(0)
    for goals in (2, 3):
        gains = rng.random((6, SAMPLES, goals))
        feasible = rng.random((6, SAMPLES)) < 0.8
        front = rng.random((4, goals))
        worst = np.full(goals, 0.1)
        outcomes = Outcomes(gains, feasible, feasible, gains[..., 0])
        added = Volume(outcomes, front, worst)
        scores = added.pick(3)
        scores = added.pick(5)
        for row in range(6):
            exact = []
            for sample in range(SAMPLES):
                taken = [gains[i, sample] for i in (3, 5) if feasible[i, sample]]
                known = np.vstack([front, *taken])
                own = [gains[row, sample]] if feasible[row, sample] else []
                grown = hypervolume(np.vstack([known, *own]), worst)
                exact.append(grown - hypervolume(known, worst))
            assert scores[row] == pytest.approx(np.mean(exact), abs=1e-12)


def test_a_twin_of_a_chosen_candidate_adds_nothing_more(judged, learned):
    """Of two equal crystals and a lesser one elsewhere, one of the twins and the other pass."""
    twin = judged(3).candidate.structure
    batch = [
        judged(0, structure=twin, predicted=said(0.1, 4.0, 0.01)),
        judged(1, structure=twin, predicted=said(0.1, 4.0, 0.01)),
        judged(9, predicted=said(0.9, 2.0, 0.01)),
    ]
    selector = ExpectedUtility(VOLUME, random_share=0.0, diversity=0.0, formula_share=1.0)
    request = SelectionRequest(GOALS, 2, keep=2, resources=learned)
    choices = selector.select(batch, request)
    assert [c.outcome == "passed" for c in choices].count(True) == 2
    assert choices[2].outcome == "passed"
    assert choices[0].evidence["acquisition"] > choices[2].evidence["acquisition"]


def test_joint_samples_hang_together_as_the_surrogate_says(judged, learned):
    """Neighbours vary together, and each has the same samples as any other."""
    from matloop.selectors.volume import _joint

    batch = [judged(i, predicted=said(0.5, 5.0, 0.1)) for i in (30, 31, 3)]
    request = SelectionRequest(GOALS, 2, keep=2, resources=learned)
    normal = _joint(batch, ["density", "e_above_hull"], request, np.random.default_rng(0))
    assert normal.shape == (2, 3, SAMPLES)
    assert (np.sort(normal, axis=2) == np.sort(normal[0, 0])).all()
    near = np.corrcoef(normal[0])
    assert near[0, 1] > near[0, 2]
    assert near[0, 1] > 0.2


def test_known_constraints_are_exact_and_predicted_ones_multiply(judged, learned):
    """Probability one half halves the volume; a known violation leaves nothing, a known yes all."""
    objective = GOALS.model_copy(update={"constraints": ("bulk_modulus >= 100 GPa",)})

    def stiff(value: float, spread: float) -> dict[str, Quantity]:
        return {"bulk_modulus": Quantity(value=value, unit="GPa", uncertainty=spread)}

    base = said(0.1, 4.0)
    batch = [
        judged(0, predicted=base),
        judged(1, predicted={**base, **stiff(100.0, 20.0)}),
        judged(2, known=stiff(99.0, 0.0), predicted=base),
        judged(3, known=stiff(101.0, 0.0), predicted=base),
    ]
    request = SelectionRequest(objective, 1, keep=2, final=False, resources=learned)
    for acquisition in (VOLUME, "probability_of_feasibility"):
        choices = ExpectedUtility(acquisition, random_share=0.0).select(batch, request)
        scores = np.array([c.evidence["acquisition"] for c in choices])
        assert scores[1:] / scores[0] == pytest.approx([0.5, 0.0, 1.0], abs=0.03)
        chances = [c.evidence["probability_of_feasibility"] for c in choices]
        assert chances == pytest.approx([1.0, 0.5, 0.0, 1.0], abs=0.02)


def test_without_a_feasible_result_feasibility_comes_first(judged, learned):
    """Results are known and none is dense enough: the likelier goes first, whatever it adds."""
    constraints = ("density >= 12 g/cm^3",)
    two = GOALS.model_copy(update={"constraints": constraints})
    one = Objective(
        minimize="e_above_hull", constraints=constraints, discovery="e_above_hull <= 0.05 eV/atom"
    )
    batch = [
        judged(0, predicted=said(0.0, 11.0, 0.05)),
        judged(1, predicted=said(0.9, 12.0, 0.05)),
    ]
    for objective, acquisition in ((two, VOLUME), (one, "expected_improvement")):
        request = SelectionRequest(objective, 1, keep=1, final=False, resources=learned)
        choices = ExpectedUtility(acquisition, random_share=0.0).select(batch, request)
        assert [c.outcome for c in choices] == ["held", "passed"]
        assert choices[1].evidence["acquisition"] == pytest.approx(0.5, abs=0.02)


def test_without_predictions_the_choice_is_by_lot(judged):
    """Before the first lesson several goals are no trouble."""
    batch = [judged(i) for i in range(10)]
    choices = ExpectedUtility(VOLUME).select(batch, SelectionRequest(GOALS, 0, keep=3))
    passed = [c for c in choices if c.outcome == "passed"]
    assert len(passed) == 3
    assert all(c.evidence == {"arm": 1.0} for c in passed)
