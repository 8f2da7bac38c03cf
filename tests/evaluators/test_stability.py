"""Distance to the hull: signs, errors, theories, and many at a time."""

import random

import numpy as np
import pytest
from pymatgen.core import Composition, DummySpecies, Lattice, Species, Structure

from matloop.evaluators.stability import HullDistance
from matloop.protocols import Resources

from .conftest import PEROVSKITE, RUTILE, SALT, THEORY, make_candidate, make_energy, poisoned


def judge(evaluator, candidate, resources):
    """Return the evaluation of one candidate."""
    return evaluator.evaluate([candidate], resources)[0]


# SrTiO3 is two fifths SrO (-3.0 eV/atom) and three fifths TiO2 (-3.2 eV/atom).
RIVALS = 0.4 * -3.0 + 0.6 * -3.2


@pytest.mark.parametrize("distance", [0.25, 0.0, -0.1])
def test_the_distance_is_signed_and_names_its_rivals(distance, store, oxides):
    """SrTiO3 against SrO + TiO2: above, on and below the hull of what is known."""
    candidate = make_candidate("c", PEROVSKITE, RIVALS + distance)
    evaluation = judge(HullDistance(), candidate, store(phases=oxides))
    assert evaluation.verdict == "pass"
    assert evaluation.quantities["e_above_hull"].value == pytest.approx(distance, abs=1e-9)
    assert evaluation.quantities["formation_energy"].value == pytest.approx(RIVALS + distance)
    assert evaluation.quantities["e_above_hull"].theory == THEORY.key
    assert evaluation.theory == THEORY
    assert "SrO rock salt" in evaluation.reason
    assert "TiO2 rutile" in evaluation.reason


def test_a_limit_rejects_what_lies_too_high(store, oxides):
    """0.2 eV/atom is too much where 0.1 is allowed, and the numbers stay on record."""
    resources = store(phases=oxides)
    for distance, verdict in ((0.2, "reject"), (0.05, "pass")):
        candidate = make_candidate("c", PEROVSKITE, RIVALS + distance)
        evaluation = judge(HullDistance(reject_above=0.1), candidate, resources)
        assert evaluation.verdict == verdict
        assert evaluation.quantities["e_above_hull"].value == pytest.approx(distance)


def test_the_uncertainty_of_the_energy_is_that_of_the_distance(store, oxides):
    """The hull counts as exact."""
    candidate = make_candidate("c", RUTILE).updated(
        None, {"energy_per_atom": make_energy(-3.1, uncertainty=0.03)}
    )
    evaluation = judge(HullDistance(), candidate, store(phases=oxides))
    assert evaluation.quantities["e_above_hull"].uncertainty == 0.03


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"theory": "vasp-PBE@0123456789"}, "same method"),
        ({"theory": None}, "no level of theory"),
        ({"unit": "eV"}, "not in eV/atom"),
        ({"value": float("nan")}, "not a finite number"),
    ],
)
def test_an_energy_that_does_not_belong_on_the_hull_fails(changes, words, store, oxides):
    """Another theory, none, another unit, no number: a failed candidate, no quantity."""
    energy = make_energy(**{"value": -3.0, **changes})
    candidate = make_candidate("c", RUTILE).updated(None, {"energy_per_atom": energy})
    evaluation = judge(HullDistance(), candidate, store(phases=oxides))
    assert evaluation.verdict == "fail"
    assert words in evaluation.reason
    assert evaluation.quantities == {}


def test_no_energy_no_phases_and_no_reference_each_say_so(store, oxides):
    """What is missing is named: the energy, the phases, or the element."""
    resources = store(phases=oxides)
    assert (
        "energy_per_atom is not known"
        in judge(HullDistance(), make_candidate("c", RUTILE), resources).reason
    )
    assert (
        "no phases" in judge(HullDistance(), make_candidate("c", RUTILE, -3.0), Resources()).reason
    )
    barium = Structure(Lattice.cubic(5.5), ["Ba", "O"], [[0, 0, 0], [0.5] * 3])
    missing = judge(HullDistance(), make_candidate("c", barium, -3.0), resources)
    assert missing.verdict == "fail"
    assert "of Ba is known" in missing.reason


def crowd():
    """Return candidates of several systems, good and bad ones of all kinds among each other."""
    chance = random.Random(4)
    cubic = Lattice.cubic(9)

    def crystal(*sites):
        return Structure(cubic, list(sites), np.linspace(0, 0.9, len(sites))[:, None] * np.ones(3))

    crystals = [
        crystal(*(chance.choice(["Sr", "Ti", "O"]) for _ in range(chance.randint(1, 9))))
        for _ in range(120)
    ]
    negative = crystal("Sr", "O")
    negative.sites[0]._species = Composition({"Sr": -1}, allow_negative=True)
    crystals += [
        *poisoned(),
        crystal(Species("Ti", 4), Species("Ti", 3), Species("O", -2)),
        crystal("D", "O"),
        crystal({"Sr": 0.5, "Ti": 0.3}, "O"),
        crystal({"Sr": 1e-9}, "O"),
        crystal(DummySpecies("Xa", 1), "O"),
        crystal("Ba", "U", "O"),
        negative,
    ]
    candidates = [
        make_candidate(f"c{i}", crystal, chance.uniform(-5, 1))
        for i, crystal in enumerate(crystals)
    ]
    for i, changes in enumerate(
        [{"theory": "other"}, {"theory": None}, {"unit": "eV"}, {"value": float("nan")}]
    ):
        energy = {"energy_per_atom": make_energy(**{"value": -3.0, **changes})}
        candidates.append(make_candidate(f"e{i}", SALT).updated(None, energy))
        candidates.append(make_candidate(f"u{i}", crystals[-2]).updated(None, energy))
    candidates.append(make_candidate("none", RUTILE))
    chance.shuffle(candidates)
    return candidates


@pytest.mark.parametrize("limit", [None, 0.1])
def test_a_batch_is_judged_as_each_alone_to_the_last_bit(limit, store, oxides):
    """Whatever stands beside it, good or bad, in whatever order: only the cost may differ."""
    evaluator, candidates, resources = HullDistance(limit), crowd(), store(phases=oxides)
    together = evaluator.evaluate(candidates, resources)
    backwards = evaluator.evaluate(candidates[::-1], resources)[::-1]
    for candidate, first, second in zip(candidates, together, backwards, strict=True):
        alone = judge(evaluator, candidate, resources)
        for one in (first, second):
            assert one.candidate_id == candidate.candidate_id
            assert one.model_copy(update={"cost": alone.cost}) == alone
    reasons = {one.candidate_id: one.reason for one in together}
    assert "same method" in reasons["e0"]
    assert "same method" in reasons["u0"]  # also where elements have no reference
    assert any("cannot be negative" in reason for reason in reasons.values())
    assert any("of Ba, U is known" in reason for reason in reasons.values())


def test_phases_that_cannot_be_read_fail_every_candidate_with_the_reason(tmp_path):
    """A broken file is no reason to raise, and what is wrong without it is still named."""
    path = tmp_path / "phases"
    path.write_bytes(b"broken")
    candidates = [make_candidate("a", RUTILE, -3.0), make_candidate("b", SALT)]
    found = HullDistance().evaluate(candidates, Resources({"phases": path}, {"phases": "0"}))
    assert [one.verdict for one in found] == ["fail", "fail"]
    assert "could not be judged" in found[0].reason
    assert "is not known" in found[1].reason
