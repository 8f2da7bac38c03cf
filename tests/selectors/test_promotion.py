"""Promotion: what is calculated, what is audited, and what was known at the time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.decision import AUDIT, TURNED_DOWN, Choice
from matloop.documents.evaluation import Evaluation
from matloop.documents.objective import Objective
from matloop.protocols import Judged, NextCalculation, Resources, SelectionRequest
from matloop.selectors.promotion import Promotion
from matloop.surrogates.fidelity import RESOURCE, Correction, features_of
from matloop.testing import conformance

OBJECTIVE = Objective(minimize="e_above_hull", discovery="e_above_hull <= 0.05 eV/atom")


def crystal(atoms: int = 2) -> Structure:
    """Return a crystal of sodium chloride's formula, of any number of atoms."""
    sites = [[i / atoms, 0.5 * (i % 2), 0.5 * (i % 2)] for i in range(atoms)]
    return Structure(Lattice.cubic(3.0 * atoms), ["Na", "Cl"] * (atoms // 2), sites)


def judged(index: int, distance: float | None, verdict: str = "pass", atoms: int = 2) -> Judged:
    known = {}
    if distance is not None:
        known["e_above_hull"] = Quantity(value=distance, unit="eV/atom", theory="low")
    candidate = Candidate(
        candidate_id=f"c{index}",
        structure=crystal(atoms),
        origin=Origin(generator="one"),
        quantities=known,
    )
    reason = "far above the hull" if verdict == "reject" else "fine"
    evaluation = Evaluation(
        candidate_id=f"c{index}", verdict=verdict, reason=reason, quantities=known
    )
    return Judged(candidate, (evaluation,))


def request(keep: int | None = 4, seed: int = 1, **options: object) -> SelectionRequest:
    calculation = NextCalculation(lambda s: 0.1 * len(s) ** 2, options.pop("left", None))
    return SelectionRequest(OBJECTIVE, seed, keep, False, calculation=calculation, **options)


def passed(choices: list[Choice], audit: float) -> set[str]:
    return {c.candidate_id for c in choices if c.outcome == "passed" and c.evidence[AUDIT] == audit}


def test_the_likeliest_per_core_hour_go_first() -> None:
    """Of two equally likely, the cheap one; of two equally cheap, the likely one."""
    batch = [judged(0, 0.04, atoms=4), judged(1, 0.04), judged(2, 0.30), judged(3, 0.02)]
    choices = Promotion(audit_share=0.0).select(batch, request(keep=2))
    assert passed(choices, 0.0) == {"c1", "c3"}
    assert "by the chance of a discovery" in choices[3].reason


def test_everything_known_is_recorded() -> None:
    """Each choice carries distance, correction, uncertainty, chance, cost and audit."""
    batch = [judged(i, 0.03 * i) for i in range(6)]
    for choice in Promotion().select(batch, request(keep=2)):
        assert choice.evidence.keys() >= {
            "e_above_hull", "corrected_e_above_hull", "uncertainty",
            "probability_of_discovery", "core_hours", AUDIT,
        }  # fmt: skip
        assert choice.evidence["core_hours"] == pytest.approx(0.4)


def test_the_lesson_is_used(tmp_path: Path) -> None:
    """With a lesson that the potential is 0.1 eV/atom too kind, what lay near the hull stays."""
    features = features_of([crystal().composition] * 20, np.linspace(-0.1, 0.1, 20))
    noise = 0.01 * np.random.default_rng(0).standard_normal(20)
    content = Correction.fit(features, 0.1 + noise).to_bytes()
    path = tmp_path / "correction.json"
    path.write_bytes(content)
    batch = [judged(0, 0.03), judged(1, -0.08)]
    told = request(resources=Resources({RESOURCE: path}, {RESOURCE: str(hash(content))}))
    selector = Promotion(audit_share=0.0, prior_uncertainty=0.02)
    naive, informed = selector.select(batch, request()), selector.select(batch, told)
    assert passed(naive, 0.0) == {"c0", "c1"}
    assert passed(informed, 0.0) == {"c1"}
    assert informed[0].evidence["corrected_e_above_hull"] == pytest.approx(0.13, abs=0.01)
    assert "worth a calculation" in informed[0].reason


def test_the_audit_draws_from_all_others_alike() -> None:
    """Over many seeds rejected and low-ranked ones are drawn equally often, at the stated share."""
    batch = [judged(i, 0.01) for i in range(4)]
    batch += [judged(i, 0.2) for i in range(4, 12)]
    batch += [judged(i, 0.6, "reject") for i in range(12, 24)]
    drawn: dict[str, int] = {}
    for seed in range(400):
        for name in passed(Promotion(audit_share=0.1).select(batch, request(8, seed)), 1.0):
            drawn[name] = drawn.get(name, 0) + 1
    low = sum(drawn.get(f"c{i}", 0) for i in range(4, 12)) / 8 / 400
    rejected = sum(drawn.get(f"c{i}", 0) for i in range(12, 24)) / 12 / 400
    assert rejected == pytest.approx(0.1, abs=0.03)
    assert low == pytest.approx(0.1, abs=0.035)


def test_an_audited_reject_says_so() -> None:
    """It passes, marked and with the reason of the evaluator; the rest of the rejects do not."""
    batch = [judged(0, 0.01), *[judged(i, 0.5, "reject") for i in range(1, 11)]]
    choices = Promotion(audit_share=0.3).select(batch, request(8))
    audited = [c for c in choices if c.evidence[AUDIT] == 1.0]
    assert len(audited) in (3, 4)
    for choice in audited:
        assert choice.outcome == "passed"
        assert choice.evidence[TURNED_DOWN] == 1.0
        assert choice.reason == "audit, drawn by lot among the others: far above the hull"
    for choice in choices[1:]:
        assert choice.outcome == ("passed" if choice in audited else "rejected")


def test_what_failed_is_never_calculated() -> None:
    """A failed candidate, and one without a distance, are not drawn, however large the share."""
    batch = [judged(0, 0.01), judged(1, 0.3, "fail"), judged(2, None), judged(3, None, "reject")]
    for seed in range(20):
        choices = Promotion(audit_share=1.0).select(batch, request(None, seed))
        assert [c.outcome for c in choices] == ["passed", "failed", "held", "rejected"]


def test_the_hull_goes_first() -> None:
    """A dear crystal below the hull is calculated before a cheap one above it."""
    batch = [judged(0, -0.01, atoms=8), judged(1, 0.01)]
    share = {"audit_share": 0.0}
    assert passed(Promotion(**share).select(batch, request(1)), 0.0) == {"c0"}
    free = Promotion(**share, hull_first=False).select(batch, request(1))
    assert passed(free, 0.0) == {"c1"}


def test_what_the_budget_does_not_pay_is_held() -> None:
    """The estimates of all that pass fit what is left, and who does not fit is told so."""
    batch = [judged(i, 0.01 * i) for i in range(10)]
    choices = Promotion().select(batch, request(8, left=1.3))
    hours = [c.evidence["core_hours"] for c in choices if c.outcome == "passed"]
    assert sum(hours) <= 1.3
    assert len(hours) == 3
    assert sum("do not fit the budget left" in c.reason for c in choices) >= 4


def test_promotion_beats_the_lowest_distance_at_equal_cost() -> None:
    """With a known truth, more discoveries per core-hour than by the potential's order.

    Crystals of 2 to 12 atoms; the truth is the potential's distance plus 0.04 eV/atom plus noise of
    0.05 eV/atom. Both may spend the same estimated core-hours, 20 times over.
    """
    rng = np.random.default_rng(7)
    won = lost = 0
    for seed in range(20):
        distances = rng.uniform(0.0, 0.2, 120)
        atoms = 2 * rng.integers(1, 7, 120)
        truth = distances + 0.04 + 0.05 * rng.standard_normal(120)
        batch = [
            judged(i, float(d), atoms=int(n))
            for i, (d, n) in enumerate(zip(distances, atoms, strict=True))
        ]
        budget = 60.0
        choices = Promotion().select(batch, request(None, seed, left=budget))
        chosen = [i for i, c in enumerate(choices) if c.outcome == "passed"]
        assert sum(0.1 * atoms[i] ** 2 for i in chosen) <= budget
        won += sum(truth[i] <= 0.05 for i in chosen)
        spent = 0.0
        for i in np.argsort(distances):
            if spent + 0.1 * atoms[i] ** 2 > budget:
                break
            spent += 0.1 * atoms[i] ** 2
            lost += truth[i] <= 0.05
    assert won > 1.4 * lost


@pytest.mark.parametrize("keep", [None, 1, 5])
def test_it_is_a_selector(keep: int | None) -> None:
    """It fulfils the contract of selectors, audits included."""
    batch = [judged(i, 0.02 * i, "reject" if i % 3 == 0 else "pass") for i in range(12)]
    conformance.check_selector(Promotion(audit_share=0.4), batch, request(keep))
