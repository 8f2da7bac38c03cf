"""Refitting the surrogate."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.objective import Objective
from matloop.learners.surrogate import SurrogateRefit
from matloop.protocols import Learner, Observation
from matloop.surrogates.fitted import MEDIA_TYPE, TrainingTable

OBJECTIVE = Objective(minimize="e_above_hull", constraints=("density >= 1 g/cm^3",))
LEARNER = SurrogateRefit(trees=20)


def rock_salt(lattice: Lattice, cation: str, anion: str) -> Structure:
    corners = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    centres = [[0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    return Structure(lattice, [cation] * 4 + [anion] * 4, corners + centres)


def strained(index: int) -> Structure:
    """Rock salt of several compounds, expanded or compressed at random."""
    rng = np.random.default_rng(index)
    anion, cation = ("Cl", "Br", "F")[index % 3], ("Na", "K", "Rb", "Li")[index % 4]
    return rock_salt(Lattice.cubic(5.0 + 2.0 * rng.random()), cation, anion)


def observe(
    index: int,
    *,
    energy: float | None = None,
    work: float = 100.0,
    moved: bool = True,
    ahead: tuple[float, float] | None = None,
    learned: bool = True,
) -> Observation:
    """A relaxed crystal whose energy is the square of its strain."""
    structure = strained(index)
    value = (structure.volume / 200.0 - 1.0) ** 2 if energy is None else energy
    proposed = Candidate(
        candidate_id=f"c{index}", structure=structure, origin=Origin(generator="g")
    )
    relaxed = structure.copy()
    if moved:
        relaxed.scale_lattice(200.0)
    quantities = {"density": Quantity(value=float(relaxed.density), unit="g/cm^3")}
    if moved:
        quantities["e_above_hull"] = Quantity(value=value, unit="eV/atom", theory="model")
    if ahead is not None:
        quantities["predicted_e_above_hull"] = Quantity(
            value=ahead[0], unit="eV/atom", uncertainty=ahead[1]
        )
        if learned:
            quantities["out_of_domain"] = Quantity(value=0.5)
    return Observation(
        proposed=proposed,
        final=proposed.updated(relaxed, quantities),
        iteration=0,
        generator="g",
        utility=-value if moved else None,
        discovery=False,
        work=work,
    )


HISTORY = [observe(i) for i in range(40)]


def test_it_is_a_learner():
    """The class fulfils the protocol and names its resource."""
    assert isinstance(LEARNER, Learner)
    assert SurrogateRefit.resource == "surrogate"


def test_too_few_results_teach_nothing():
    """Below the least number there is no lesson, from it on there is one."""
    assert LEARNER.learn([], OBJECTIVE, 0) is None
    assert LEARNER.learn(HISTORY[:11], OBJECTIVE, 0) is None
    assert LEARNER.learn(HISTORY[:12], OBJECTIVE, 0) is not None


def test_the_lesson_holds_every_quantity_of_the_objective():
    """Energy and density are learned from crystals as proposed, with metrics and their n."""
    lesson = LEARNER.learn(HISTORY, OBJECTIVE, 0)
    table = TrainingTable.from_bytes(lesson.content)
    assert lesson.media_type == MEDIA_TYPE
    assert sorted(table.targets) == ["density", "e_above_hull"]
    assert table.units == {"density": "g/cm^3", "e_above_hull": "eV/atom"}
    assert lesson.metrics["observations"] == 40.0
    for name in table.targets:
        assert lesson.metrics[f"{name}.n"] == 40.0
        assert {f"{name}.mae", f"{name}.coverage_90", f"{name}.factor"} <= lesson.metrics.keys()
    assert all(np.isfinite(value) for value in lesson.metrics.values())
    assert lesson.metrics["e_above_hull.rank_correlation"] > 0.5


def test_the_same_history_teaches_the_same():
    """Equal input gives equal bytes; another seed gives others."""
    first, second, other = (LEARNER.learn(HISTORY, OBJECTIVE, seed) for seed in (1, 1, 2))
    assert first.content == second.content
    assert first.metrics == second.metrics
    assert first.content != other.content


def test_candidates_that_were_never_relaxed_do_not_teach():
    """Held before relaxation: their density is that of the crystal as proposed."""
    held = [observe(100 + i, work=0.0, moved=False) for i in range(30)]
    assert LEARNER.learn([*HISTORY[:5], *held], OBJECTIVE, 0) is None
    assert LEARNER.learn([*HISTORY, *held], OBJECTIVE, 0).metrics["density.n"] == 40.0


def test_failed_relaxations_do_not_teach():
    """Work was spent, but nothing moved: no energy, and no final density either."""
    failed = [observe(100 + i, moved=False) for i in range(10)]
    metrics = LEARNER.learn([*HISTORY, *failed], OBJECTIVE, 0).metrics
    assert metrics["observations"] == 50.0
    assert metrics["density.n"] == metrics["e_above_hull.n"] == 40.0


def test_where_nothing_costs_anything_every_value_is_final():
    """A campaign of rules alone learns from the values it has."""
    free = [observe(i, work=0.0, moved=False) for i in range(20)]
    lesson = LEARNER.learn(free, OBJECTIVE, 0)
    assert sorted(TrainingTable.from_bytes(lesson.content).targets) == ["density"]


def test_poison_is_left_out_and_counted():
    """NaN results and crystals without a descriptor do not reach the table."""
    spoiled = observe(200, energy=float("nan"))
    structure = Structure(Lattice.cubic(3.0), ["Na"], [[np.nan, 0, 0]])
    collapsed = Observation(
        proposed=spoiled.proposed.model_copy(update={"structure": structure}),
        final=HISTORY[0].final,
        iteration=0,
        generator="g",
        utility=None,
        discovery=False,
        work=1.0,
    )
    lesson = LEARNER.learn([*HISTORY, spoiled, collapsed], OBJECTIVE, 0)
    table = TrainingTable.from_bytes(lesson.content)
    assert lesson.metrics["not_described"] == 1.0
    assert lesson.metrics["e_above_hull.n"] == 40.0
    assert np.isfinite(table.features).all()


def test_predictions_made_ahead_widen_false_certainty():
    """Earlier predictions that were off by ten deviations raise the scale factor."""
    plain = LEARNER.learn(HISTORY, OBJECTIVE, 0).metrics
    sure = [observe(i, ahead=(9.0, 0.001)) for i in range(40)]
    warned = LEARNER.learn(sure, OBJECTIVE, 0).metrics
    assert warned["e_above_hull.factor"] > 1.5 * plain["e_above_hull.factor"]
    assert warned["e_above_hull.ahead.n"] == 40.0
    assert warned["e_above_hull.ahead.coverage_95"] == 0.0
    assert "e_above_hull.ahead.n" not in plain


def test_what_was_foretold_without_a_surrogate_does_not_judge_it():
    """Predictions made before the first lesson leave the scale as it is."""
    plain = LEARNER.learn(HISTORY, OBJECTIVE, 0).metrics
    before = [observe(i, ahead=(9.0, 0.001), learned=False) for i in range(40)]
    assert LEARNER.learn(before, OBJECTIVE, 0).metrics == plain


def test_only_the_newest_teach_beyond_the_limit():
    """With room for 20 results the last 20 are used."""
    lesson = SurrogateRefit(trees=20, max_observations=20).learn(HISTORY, OBJECTIVE, 0)
    energies = TrainingTable.from_bytes(lesson.content).targets["e_above_hull"]
    expected = [item.final.quantities["e_above_hull"].value for item in HISTORY[20:]]
    assert energies.tolist() == expected


@pytest.mark.parametrize("bad", [{"min_observations": 1}, {"folds": 1}, {"trees": 0}])
def test_senseless_parameters_are_refused(bad):
    """Parameters outside their range raise a ValueError."""
    with pytest.raises(ValueError, match=r"must be|too small"):
        SurrogateRefit(**bad)
