"""Duplicates within a batch, against the archive, and against the references."""

import pytest

from matloop.documents.phase import Archive, Known
from matloop.evaluators.novelty import Novelty, Uniqueness
from matloop.protocols import Resources

from .conftest import PEROVSKITE, RUTILE, SALT, make_candidate


def verdicts(evaluations):
    """Return what was said, in order."""
    return [evaluation.verdict for evaluation in evaluations]


def described_otherwise(structure):
    """Return the same crystal in a supercell, shifted and swollen."""
    other = structure * [1, 2, 1]
    other.translate_sites(range(len(other)), [0.1, 0.2, 0.3])
    other.scale_lattice(other.volume * 1.1)
    return other


def test_the_first_of_a_batch_stays():
    """The same crystal three times in other words: one passes, two name it."""
    batch = [
        make_candidate("first", PEROVSKITE),
        make_candidate("other", RUTILE),
        make_candidate("second", described_otherwise(PEROVSKITE)),
        make_candidate("third", PEROVSKITE),
    ]
    found = Uniqueness().evaluate(batch, Resources())
    assert verdicts(found) == ["pass", "pass", "reject", "reject"]
    assert all("repeats first of the same batch" in found[i].reason for i in (2, 3))
    assert "ltol 0.2, stol 0.3, angle 5°" in found[2].reason


def test_the_archive_counts_and_a_candidate_never_repeats_itself(store):
    """The archive holds a crystal as proposed and as relaxed, its own entries excepted."""
    archive = Archive(
        crystals=(
            Known(known_id="old", structure=PEROVSKITE),
            Known(known_id="me", structure=RUTILE),
            Known(known_id="me", structure=described_otherwise(RUTILE)),
        )
    )
    batch = [
        make_candidate("new", described_otherwise(PEROVSKITE)),
        make_candidate("me", RUTILE),
        make_candidate("salt", SALT),
    ]
    found = Uniqueness().evaluate(batch, store(archive=archive))
    assert verdicts(found) == ["reject", "pass", "pass"]
    assert "repeats old of the archive" in found[0].reason


def test_archives_do_not_leak_into_each_other(store):
    """Asking again, with or without an archive, gives the same answer: nothing is remembered."""
    archive = Archive(crystals=(Known(known_id="old", structure=PEROVSKITE),))
    batch = [make_candidate("new", PEROVSKITE), make_candidate("salt", SALT)]
    resources = store(archive=archive)
    for _ in range(2):
        assert verdicts(Uniqueness().evaluate(batch, resources)) == ["reject", "pass"]
        assert verdicts(Uniqueness().evaluate(batch, Resources())) == ["pass", "pass"]
    assert verdicts(Uniqueness().evaluate(batch, store(archive=Archive()))) == ["pass", "pass"]


def test_a_rejected_twin_blocks_nobody():
    """Only crystals that stayed are compared with: order decides, and decides alike every time."""
    batch = [make_candidate(name, RUTILE) for name in "abc"]
    assert verdicts(Uniqueness().evaluate(batch, Resources())) == ["pass", "reject", "reject"]
    assert verdicts(Uniqueness().evaluate(batch[::-1], Resources())) == ["pass", "reject", "reject"]


def test_a_reference_is_known_and_a_found_phase_is_not(store, oxides):
    """Rutile matches a reference; the CsCl form of SrO was found by the campaign and is new."""
    found_phase = next(phase for phase in oxides.phases if phase.source == "found")
    batch = [
        make_candidate("rutile", described_otherwise(RUTILE)),
        make_candidate("perovskite", PEROVSKITE),
        make_candidate("found", found_phase.structure),
    ]
    resources = store(phases=oxides)
    found = Novelty().evaluate(batch, resources)
    assert verdicts(found) == ["reject", "pass", "pass"]
    assert [evaluation.quantities["novel"].value for evaluation in found] == [0, 1, 1]
    assert "matches reference phase TiO2 rutile (ltol 0.2" in found[0].reason
    marked = Novelty(reject=False).evaluate(batch, resources)
    assert verdicts(marked) == ["pass"] * 3
    assert marked[0].quantities["novel"].value == 0


def test_tolerances_are_parameters(store, oxides):
    """A bent rutile is rutile within wide tolerances, and not within narrow ones."""
    bent = RUTILE.copy()
    bent.translate_sites([2], [0.04, 0.0, 0.05])
    batch = [make_candidate("bent", bent)]
    resources = store(phases=oxides)
    assert verdicts(Novelty().evaluate(batch, resources)) == ["reject"]
    narrow = Novelty(ltol=0.05, stol=0.02, angle_tol=1)
    assert verdicts(narrow.evaluate(batch, resources)) == ["pass"]


def test_novelty_without_references_is_not_judged():
    """Nothing to compare with is no proof of novelty."""
    found = Novelty().evaluate([make_candidate("a", SALT)], Resources())[0]
    assert found.verdict == "fail"
    assert "no reference phases" in found.reason


@pytest.mark.parametrize("plugin", [Uniqueness, Novelty])
def test_tolerances_must_be_positive(plugin):
    """A tolerance of zero matches nothing and is a mistake."""
    with pytest.raises(ValueError, match="stol must be positive"):
        plugin(stol=0.0)
