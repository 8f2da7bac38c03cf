"""The surrogate as an evaluator."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin
from matloop.evaluators.surrogate import Surrogate
from matloop.protocols import Evaluator, Resources
from matloop.surrogates.descriptors import describe_all
from matloop.surrogates.ensemble import Settings
from matloop.surrogates.fitted import TrainingTable


def rock_salt(lattice: Lattice, cation: str, anion: str) -> Structure:
    corners = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    centres = [[0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    return Structure(lattice, [cation] * 4 + [anion] * 4, corners + centres)


def crystal(index: int) -> Candidate:
    rng = np.random.default_rng(index)
    structure = rock_salt(
        Lattice.cubic(5.0 + 1.5 * rng.random()), "Na", ("Cl", "Br", "I")[index % 3]
    )
    return Candidate(candidate_id=f"c{index}", structure=structure, origin=Origin(generator="test"))


def energy(candidate: Candidate) -> float:
    return (candidate.structure.volume / 200.0 - 1.0) ** 2


@pytest.fixture(scope="module")
def resources(tmp_path_factory) -> Resources:
    """A surrogate trained on the energies of 60 strained crystals."""
    candidates = [crystal(i) for i in range(60)]
    features, _ = describe_all([candidate.structure for candidate in candidates])
    table = TrainingTable(
        features.astype(np.float32),
        {"e_above_hull": np.array([energy(candidate) for candidate in candidates])},
        {"e_above_hull": "eV/atom"},
        {"e_above_hull": 1.0},
        0,
        Settings(trees=30),
    )
    path: Path = tmp_path_factory.mktemp("artifacts") / "surrogate"
    path.write_bytes(table.to_bytes())
    digest = hashlib.sha256(table.to_bytes()).hexdigest()
    return Resources({"surrogate": path}, {"surrogate": digest})


def test_it_is_an_evaluator():
    """The class fulfils the protocol and says which artifact it reads."""
    assert isinstance(Surrogate(), Evaluator)
    assert Surrogate.resources == ("surrogate",)


def test_before_the_first_lesson_all_pass_without_predictions():
    """Without an artifact nobody is judged, and the reason says so."""
    evaluations = Surrogate().evaluate([crystal(0), crystal(1)], Resources())
    assert [e.verdict for e in evaluations] == ["pass", "pass"]
    assert {e.reason for e in evaluations} == {"no surrogate yet"}
    assert all(not e.quantities for e in evaluations)


def test_predictions_carry_unit_and_uncertainty(resources):
    """Unseen strained crystals are ranked by energy, in the unit of the target."""
    new = [crystal(i) for i in range(100, 140)]
    evaluations = Surrogate().evaluate(new, resources)
    predicted = [e.quantities["predicted_e_above_hull"] for e in evaluations]
    assert [e.candidate_id for e in evaluations] == [c.candidate_id for c in new]
    assert {q.unit for q in predicted} == {"eV/atom"}
    assert all(q.uncertainty > 0 for q in predicted)
    values = np.array([q.value for q in predicted])
    assert np.corrcoef(values, [energy(c) for c in new])[0, 1] > 0.9
    assert "eV/atom" in evaluations[0].reason
    assert evaluations[0].cost.work == 0.0


def test_strangers_are_flagged(resources):
    """A crystal like the training data is inside its domain, an iron slab-like cell is not."""
    strange = Structure(Lattice.tetragonal(2.5, 9.0), ["Fe", "O"], [[0, 0, 0], [0.5, 0.5, 0.2]])
    stranger = crystal(100).model_copy(update={"structure": strange})
    kin, far = Surrogate().evaluate([crystal(5), stranger], resources)
    assert kin.quantities["out_of_domain"].value == 0.0
    assert far.quantities["out_of_domain"].value == 1.0


def test_one_bad_candidate_harms_nobody(resources):
    """A NaN coordinate fails with a reason; its neighbours get what they would get alone."""
    nan = Structure(Lattice.cubic(3.0), ["Na"], [[np.nan, 0, 0]])
    bad = crystal(7).model_copy(update={"structure": nan})
    alone = Surrogate().evaluate([crystal(1)], resources)[0]
    first, second, third = Surrogate().evaluate([crystal(0), bad, crystal(1)], resources)
    assert (first.verdict, second.verdict, third.verdict) == ("pass", "fail", "pass")
    assert "not numbers" in second.reason
    assert not second.quantities
    predicted = third.quantities["predicted_e_above_hull"]
    assert predicted.value == pytest.approx(alone.quantities["predicted_e_above_hull"].value)


def test_all_bad_and_none_at_all(resources):
    """A batch of poison fails as a whole and an empty one gives nothing, without an error."""
    nan = Structure(Lattice.cubic(3.0), ["Na"], [[np.nan, 0, 0]])
    bad = crystal(7).model_copy(update={"structure": nan})
    assert [e.verdict for e in Surrogate().evaluate([bad, bad], resources)] == ["fail", "fail"]
    assert Surrogate().evaluate([], resources) == []
