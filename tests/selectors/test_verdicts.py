"""What ends a candidate's way before any ranking."""

from dataclasses import replace

from matloop.documents.candidate import Quantity
from matloop.documents.objective import Objective
from matloop.protocols import SelectionRequest
from matloop.selectors.verdicts import refusal

OBJECTIVE = Objective(minimize="e_above_hull", constraints=("density >= 3 g/cm^3",))
REQUEST = SelectionRequest(OBJECTIVE, seed=1)


def test_verdicts_become_outcomes_with_their_reasons(judged):
    """A rejection rejects, a failure fails, and both keep the evaluator's words."""
    for verdict, outcome in (("reject", "rejected"), ("fail", "failed")):
        choice = refusal(judged(0, verdict=verdict, reason="atoms too close"), REQUEST)
        assert choice.outcome == outcome
        assert choice.reason == "atoms too close"
    assert refusal(judged(0), REQUEST) is None


def test_a_violated_constraint_rejects_and_an_unknown_one_does_not(judged):
    """A density of 1 g/cm^3 is too low, 4000 kg/m^3 is enough, none at all is no reason."""
    low = judged(0, known={"density": Quantity(value=1.0, unit="g/cm^3")})
    high = judged(0, known={"density": Quantity(value=4000.0, unit="kg/m^3")})
    assert refusal(low, REQUEST).reason == "violates density >= 3 g/cm^3"
    assert refusal(high, REQUEST) is None
    assert refusal(judged(0), REQUEST) is None


def test_constraints_wait_until_the_atoms_have_settled(judged):
    """The density of a crystal that is still to be relaxed rejects nobody."""
    low = judged(0, known={"density": Quantity(value=1.0, unit="g/cm^3")})
    assert refusal(low, replace(REQUEST, final=False)) is None
