"""What passes a gate, what does not, and on what evidence."""

import pytest

from matloop.documents.candidate import Quantity
from matloop.documents.evaluation import Evaluation
from matloop.documents.objective import Objective
from matloop.protocols import Judged, SelectionRequest
from matloop.selectors.gate import Gate
from matloop.testing.conformance import check_selector

OBJECTIVE = Objective(minimize="e_above_hull", constraints=("density >= 3 g/cm^3",))


def request(keep=None):
    """Return a request with a density constraint."""
    return SelectionRequest(objective=OBJECTIVE, seed=0, keep=keep)


def test_verdicts_decide_and_keep_their_words_and_numbers(judged):
    """A rejected and a failed candidate stop with the evaluator's reason and its numbers."""
    heavy = {"density": Quantity(value=5.0, unit="g/cm^3")}
    batch = [
        judged(0, known=heavy),
        judged(1, verdict="reject", reason="too close", predicted={"d": Quantity(value=0.3)}),
        judged(2, verdict="fail", reason="not converged"),
    ]
    choices = Gate().select(batch, request())
    assert [c.outcome for c in choices] == ["passed", "rejected", "failed"]
    assert [c.reason for c in choices[1:]] == ["too close", "not converged"]
    assert choices[0].evidence == {"density": 5.0}
    assert choices[1].evidence == {"predicted_d": 0.3}


def test_the_first_reason_counts(judged):
    """Of two evaluators against a candidate, the one asked first has the word."""
    one = judged(0)
    verdicts = [("pass", "fine"), ("fail", "no energy"), ("reject", "too high")]
    evaluations = tuple(
        Evaluation(candidate_id="c0", verdict=verdict, reason=reason)
        for verdict, reason in verdicts
    )
    choice = Gate().select([Judged(one.candidate, evaluations)], request())[0]
    assert (choice.outcome, choice.reason) == ("failed", "no energy")


def test_a_violated_constraint_rejects_with_the_number_behind_it(judged):
    """2.5 g/cm^3 is too light, 4000 kg/m^3 heavy enough, and an unknown density is no reason."""
    densities = [("g/cm^3", 2.5), ("kg/m^3", 4000.0), None]
    batch = [
        judged(i, known={"density": Quantity(value=d[1], unit=d[0])} if d else {})
        for i, d in enumerate(densities)
    ]
    choices = Gate().select(batch, request())
    assert [c.outcome for c in choices] == ["rejected", "passed", "passed"]
    assert "density >= 3 g/cm^3" in choices[0].reason
    assert choices[0].evidence == {"density": 2.5}


def test_the_first_in_order_pass_where_only_some_are_kept(judged):
    """Two of four good ones pass; a rejected one takes no place; the rest are held."""
    batch = [judged(0), judged(1, verdict="reject", reason="no"), judged(2), judged(3), judged(4)]
    choices = Gate().select(batch, request(keep=2))
    assert [c.outcome for c in choices] == ["passed", "rejected", "passed", "held", "held"]
    assert "first 2" in choices[3].reason


@pytest.mark.parametrize("keep", [None, 1, 10])
def test_the_gate_keeps_the_contract(judged, keep):
    """One finite, reasoned choice per candidate, nothing turned down passes, at most `keep` do."""
    nan = {"density": Quantity(value=float("nan"), unit="g/cm^3")}
    batch = [judged(0), judged(1, verdict="fail", reason="broken"), judged(2, known=nan), judged(3)]
    check_selector(Gate(), batch, request(keep))
    assert Gate().select([], request(keep)) == []
    assert Gate().select(batch, request(keep))[2].outcome == "rejected"
