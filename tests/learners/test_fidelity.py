"""The lesson about two levels of theory: from both, with numbers that have denominators."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin
from matloop.documents.objective import Objective
from matloop.learners.fidelity import FidelityCorrection
from matloop.protocols import Observation
from matloop.surrogates.fidelity import Correction
from matloop.testing import conformance

OBJECTIVE = Objective(minimize="e_above_hull", discovery="e_above_hull <= 0.05 eV/atom")


def seen(index: int, pair: tuple[float, float] | None) -> Observation:
    structure = Structure(Lattice.cubic(3), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    candidate = Candidate(
        candidate_id=f"c{index}", structure=structure, origin=Origin(generator="one")
    )
    return Observation(candidate, candidate, 0, "one", None, False, 1.0, on_shared_hull=pair)


def test_the_mean_difference_is_learned_and_flips_are_counted() -> None:
    """Differences, errors and flips both ways come with what they are out of."""
    pairs = [(0.00, 0.10), (0.01, 0.03), (0.04, 0.09), (0.06, 0.04), (0.20, 0.24)]
    history = [seen(i, pair) for i, pair in enumerate(pairs)] + [seen(9, None)]
    lesson = FidelityCorrection().learn(history, OBJECTIVE, 1)
    assert lesson is not None
    differences = np.array([high - low for low, high in pairs])
    metrics = lesson.metrics
    assert metrics["n"] == 5
    assert metrics["mean_difference"] == pytest.approx(differences.mean())
    assert metrics["mae_uncorrected"] == pytest.approx(np.abs(differences).mean())
    assert (metrics["stable_below"], metrics["flips_to_unstable"]) == (3, 2)
    assert (metrics["unstable_below"], metrics["flips_to_stable"]) == (2, 1)
    assert Correction.from_bytes(lesson.content).count == 5


def test_a_known_shift_is_recovered() -> None:
    """With forty pairs the shift comes out to within its standard error."""
    rng = np.random.default_rng(0)
    pairs = [(x, x + 0.06 + 0.02 * rng.standard_normal()) for x in rng.uniform(-0.1, 0.2, 40)]
    lesson = FidelityCorrection().learn([seen(i, p) for i, p in enumerate(pairs)], OBJECTIVE, 1)
    assert lesson is not None
    assert lesson.metrics["mean_difference"] == pytest.approx(0.06, abs=3 * 0.02 / 40**0.5)
    assert lesson.metrics["mae"] < 0.5 * lesson.metrics["mae_uncorrected"]
    assert 0.8 <= lesson.metrics["coverage_90"] <= 1.0


def test_too_few_pairs_teach_nothing() -> None:
    """Two pairs are no lesson; candidates of one level do not count."""
    history = [seen(0, (0.0, 0.1)), seen(1, (0.0, 0.1)), *[seen(i, None) for i in range(2, 30)]]
    assert FidelityCorrection().learn(history, OBJECTIVE, 1) is None


def test_it_is_a_learner() -> None:
    """It fulfils the contract of learners."""
    history = [seen(i, (0.01 * i, 0.01 * i + 0.02 * (i % 3))) for i in range(25)]
    conformance.check_learner(FidelityCorrection(), history, OBJECTIVE)
