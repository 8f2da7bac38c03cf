"""What ends a candidate's way before any ranking."""

from matloop.documents.candidate import Quantity
from matloop.documents.objective import Objective
from matloop.selectors.verdicts import refusal

OBJECTIVE = Objective(minimize="e_above_hull", constraints=("density >= 3 g/cm^3",))


def test_verdicts_become_outcomes_with_their_reasons(judged):
    """A rejection rejects, a failure fails, and both keep the evaluator's words."""
    for verdict, outcome in (("reject", "rejected"), ("fail", "failed")):
        choice = refusal(judged(0, verdict=verdict, reason="atoms too close"), OBJECTIVE)
        assert choice.outcome == outcome
        assert choice.reason == "atoms too close"
    assert refusal(judged(0), OBJECTIVE) is None


def test_a_violated_constraint_rejects_and_an_unknown_one_does_not(judged):
    """A density of 1 g/cm^3 is too low, 4000 kg/m^3 is enough, none at all is no reason."""
    low = judged(0, known={"density": Quantity(value=1.0, unit="g/cm^3")})
    high = judged(0, known={"density": Quantity(value=4000.0, unit="kg/m^3")})
    assert refusal(low, OBJECTIVE).reason == "violates density >= 3 g/cm^3"
    assert refusal(high, OBJECTIVE) is None
    assert refusal(judged(0), OBJECTIVE) is None
