"""Selection by expected utility."""

from collections import Counter

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Quantity
from matloop.documents.evaluation import Evaluation
from matloop.documents.objective import Objective
from matloop.protocols import Judged, Resources, SelectionRequest
from matloop.selectors.acquisition import expected_quantities
from matloop.selectors.expected_utility import ExpectedUtility
from matloop.surrogates.descriptors import FEATURES
from matloop.surrogates.ensemble import Settings
from matloop.surrogates.fitted import TrainingTable

HULL = Objective(minimize="e_above_hull", discovery="e_above_hull <= 0.05 eV/atom")
ACQUISITIONS = ("expected_utility", "ucb", "probability_of_discovery", "thompson")


def energy(value: float, uncertainty: float | None = 0.05) -> dict[str, Quantity]:
    return {"e_above_hull": Quantity(value=value, unit="eV/atom", uncertainty=uncertainty)}


def passed(choices) -> list[int]:
    return [index for index, choice in enumerate(choices) if choice.outcome == "passed"]


def plain(**changes) -> ExpectedUtility:
    """A selector without chance and repulsion."""
    return ExpectedUtility(
        **{"random_share": 0.0, "diversity": 0.0, "formula_share": 1.0} | changes
    )


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_the_promising_pass(judged, acquisition):
    """Clear differences in predicted energy decide, whatever the acquisition."""
    batch = [
        judged(i, predicted=energy(e, 0.01)) for i, e in enumerate([0.9, 0.02, 0.7, 0.03, 0.8])
    ]
    choices = plain(acquisition=acquisition).select(batch, SelectionRequest(HULL, 0, keep=2))
    assert passed(choices) == [1, 3]


def test_uncertainty_matters_where_it_should(judged):
    """UCB and the probability of discovery prefer the uncertain of two equal means."""
    batch = [judged(0, predicted=energy(0.3, 0.01)), judged(1, predicted=energy(0.3, 0.3))]
    for acquisition in ("ucb", "probability_of_discovery"):
        choices = plain(acquisition=acquisition).select(batch, SelectionRequest(HULL, 0, keep=1))
        assert passed(choices) == [1]


def test_probability_of_discovery_is_that_of_the_normal_distribution(judged):
    """Mean 0.10, deviation 0.05, threshold 0.05: one deviation below the mean, 15.9 %."""
    batch = [judged(0, predicted=energy(0.10, 0.05))]
    choice = plain().select(batch, SelectionRequest(HULL, 3, keep=1))[0]
    assert choice.evidence["probability_of_discovery"] == pytest.approx(0.159, abs=0.02)
    assert choice.evidence["expected_utility"] == pytest.approx(-0.10, abs=0.005)
    assert choice.evidence["utility_spread"] == pytest.approx(0.05, abs=0.005)


def test_constraints_count_in_expectation(judged):
    """A candidate that will hardly be feasible loses, though its utility is higher."""
    objective = Objective(
        maximize="bulk_modulus",
        constraints=("e_above_hull <= 0.1 eV/atom",),
        discovery="bulk_modulus >= 150 GPa",
    )
    strong = {"bulk_modulus": Quantity(value=300.0, unit="GPa", uncertainty=10.0)}
    soft = {"bulk_modulus": Quantity(value=200.0, unit="GPa", uncertainty=10.0)}
    none = {"bulk_modulus": Quantity(value=50.0, unit="GPa", uncertainty=10.0)}
    batch = [
        judged(0, predicted={**strong, **energy(0.6)}),
        judged(1, predicted={**soft, **energy(0.0, 0.02)}),
        judged(2, predicted={**none, **energy(0.0, 0.02)}),
    ]
    for acquisition in ("expected_utility", "probability_of_discovery"):
        choices = plain(acquisition=acquisition).select(
            batch, SelectionRequest(objective, 0, keep=1)
        )
        assert passed(choices) == [1]


def test_gates_come_first(judged):
    """Rejected and failed candidates keep their reasons and take no place."""
    batch = [
        judged(0, verdict="reject", reason="too close", predicted=energy(0.0)),
        judged(1, verdict="fail", reason="no descriptor", predicted=energy(0.0)),
        judged(2, predicted=energy(0.5)),
    ]
    choices = ExpectedUtility().select(batch, SelectionRequest(HULL, 0, keep=1))
    assert [c.outcome for c in choices] == ["rejected", "failed", "passed"]
    assert [c.reason for c in choices][:2] == ["too close", "no descriptor"]


@pytest.mark.parametrize("keep", [None, 1, 5, 12, 100])
def test_the_funnel_adds_up(judged, keep):
    """One choice per candidate, in order, and exactly as many pass as there are places."""
    batch = [judged(i, predicted=energy(0.1 * i)) for i in range(12)]
    choices = ExpectedUtility().select(batch, SelectionRequest(HULL, 1, keep=keep))
    assert [c.candidate_id for c in choices] == [j.candidate.candidate_id for j in batch]
    assert len(passed(choices)) == min(keep or 12, 12)
    assert {c.outcome for c in choices} <= {"passed", "held"}
    assert all(np.isfinite(list(c.evidence.values())).all() for c in choices)


def test_nothing_to_choose_from(judged):
    """An empty batch, or one where all were rejected, is no trouble."""
    request = SelectionRequest(HULL, 0, keep=3)
    assert ExpectedUtility().select([], request) == []
    choices = ExpectedUtility().select([judged(0, verdict="reject")], request)
    assert [c.outcome for c in choices] == ["rejected"]


def test_before_the_first_lesson_the_choice_is_by_lot_and_diverse(judged):
    """Without predictions, seeds differ, a seed repeats, and twins are spread."""
    twins = [judged(i, structure=judged(i // 10).candidate.structure) for i in range(40)]
    choices = [
        ExpectedUtility(formula_share=1.0).select(twins, SelectionRequest(HULL, seed, keep=4))
        for seed in (0, 0, 1, 2, 3)
    ]
    assert choices[0] == choices[1]
    assert len({tuple(passed(c)) for c in choices}) == 4
    for chosen in choices:
        assert len({index // 10 for index in passed(chosen)}) == 4
        assert all(chosen[index].evidence == {"arm": 1.0} for index in passed(chosen))


def test_one_formula_does_not_fill_the_batch(judged):
    """Ten good candidates of one formula get a quarter of eight places, others the rest."""
    other = Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    batch = [judged(i, predicted=energy(0.01 * i)) for i in range(10)]
    for i, scale in enumerate(np.linspace(0.9, 1.3, 10)):
        structure = other.copy()
        structure.replace_species({"Mg": ["Ca", "Sr", "Ba", "Zn", "Mg"][i % 5]})
        structure.scale_lattice(structure.volume * scale)
        batch.append(judged(10 + i, structure=structure, predicted=energy(0.5)))
    selector = ExpectedUtility(random_share=0.0, diversity=0.0, formula_share=0.25)
    choices = selector.select(batch, SelectionRequest(HULL, 0, keep=8))
    formulas = Counter(batch[i].candidate.structure.reduced_formula for i in passed(choices))
    assert formulas["NaCl"] == 2
    assert max(formulas.values()) == 2
    assert sum(formulas.values()) == 8


def test_generators_keep_their_part_of_the_places(judged):
    """A generator with half of the candidates gets half of the places, its own best."""
    batch = [
        judged(i, generator="a" if i < 10 else "b", predicted=energy(0.01 * i)) for i in range(20)
    ]
    request = SelectionRequest(HULL, 0, keep=6)
    assert passed(plain().select(batch, request)) == [0, 1, 2, 10, 11, 12]
    assert passed(plain(stratified=False).select(batch, request)) == [0, 1, 2, 3, 4, 5]


def test_the_random_arm_has_its_share_and_is_marked(judged):
    """A tenth of the places goes by lot, on average, to any candidate, and evidence says so."""
    batch = [judged(i, predicted=energy(0.02 * i)) for i in range(40)]
    drawn = Counter()
    for seed in range(200):
        choices = plain(random_share=0.1).select(batch, SelectionRequest(HULL, seed, keep=5))
        arms = [choice.evidence["arm"] for choice in choices if choice.outcome == "passed"]
        assert len(arms) == 5
        drawn["random"] += int(sum(arms))
        drawn["poor"] += any(index > 15 for index in passed(choices))
    assert 60 < drawn["random"] < 145
    assert drawn["poor"] > 30


def test_the_random_arm_shrinks_as_results_come_in(judged, tmp_path):
    """With ten batches learned, a tenth of the places becomes an eleventh of that; 0 keeps it."""
    table = TrainingTable(
        features=np.zeros((100, len(FEATURES)), dtype=np.float32),
        targets={"e_above_hull": np.linspace(0.0, 1.0, 100)},
        units={"e_above_hull": "eV/atom"},
        factors={"e_above_hull": 1.0},
        seed=0,
        settings=Settings(trees=1),
    )
    path = tmp_path / "surrogate.npz"
    path.write_bytes(table.to_bytes())
    resources = Resources({"surrogate": path}, {"surrogate": "a hundred results"})
    batch = [judged(i, predicted=energy(0.02 * i)) for i in range(40)]
    drawn = Counter()
    for decay in (0.0, 1.0):
        selector = plain(random_share=0.5, random_decay=decay)
        for seed in range(40):
            request = SelectionRequest(HULL, seed, keep=10, resources=resources)
            choices = selector.select(batch, request)
            drawn[decay] += sum(c.evidence.get("arm") == 1.0 for c in choices)
    assert drawn[0.0] == 200
    assert 8 <= drawn[1.0] <= 30


def test_places_filled_by_lot_do_not_depend_on_the_ranking(judged):
    """The lot is drawn among all: reversing the predictions draws the same candidates."""
    up = [judged(i, predicted=energy(0.02 * i)) for i in range(30)]
    down = [judged(i, predicted=energy(0.6 - 0.02 * i)) for i in range(30)]
    request = SelectionRequest(HULL, 4, keep=10)
    lots = [
        [
            c.candidate_id
            for c in plain(random_share=0.5).select(b, request)
            if c.evidence.get("arm")
        ]
        for b in (up, down)
    ]
    assert lots[0] == lots[1] != []


def test_known_goes_before_predicted(judged):
    """A computed energy outranks its prediction."""
    known = {"e_above_hull": Quantity(value=0.7, unit="eV/atom", theory="chgnet")}
    item = judged(0, known=known, predicted=energy(0.0))
    assert expected_quantities(item, HULL)["e_above_hull"].value == 0.7


def test_a_fresh_prediction_outranks_the_density_as_proposed(judged):
    """Before relaxation the predicted density counts; after it, in the same stage, the known."""
    objective = Objective(maximize="density", discovery="density >= 5 g/cm^3")
    known = {"density": Quantity(value=1.0, unit="g/cm^3")}
    predicted = {"density": Quantity(value=4.0, unit="g/cm^3", uncertainty=0.5)}
    before = judged(0, known=known, predicted=predicted)
    assert expected_quantities(before, objective)["density"].value == 4.0
    relaxation = Evaluation(
        candidate_id="c0", verdict="pass", reason="r", structure=before.candidate.structure
    )
    after = Judged(before.candidate, (*before.evaluations, relaxation))
    assert expected_quantities(after, objective)["density"].value == 1.0
    later = Judged(before.candidate, ())
    assert expected_quantities(later, objective)["density"].value == 1.0


def test_units_are_respected(judged):
    """A prediction of 60 meV/atom is worse than one of 0.05 eV/atom."""
    milli = {"e_above_hull": Quantity(value=60.0, unit="meV/atom", uncertainty=1.0)}
    batch = [judged(0, predicted=milli), judged(1, predicted=energy(0.05, 0.001))]
    selector = plain(acquisition="expected_utility")
    assert passed(selector.select(batch, SelectionRequest(HULL, 0, keep=1))) == [1]


@pytest.mark.parametrize("bad", [{"random_share": 1.5}, {"formula_share": -1}, {"diversity": -1}])
def test_senseless_parameters_are_refused(bad):
    """Parameters outside their range raise a ValueError."""
    with pytest.raises(ValueError, match="must"):
        ExpectedUtility(**bad)
