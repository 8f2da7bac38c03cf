"""The archive of a campaign grows by what is new."""

from datetime import UTC, datetime

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.campaign import CandidateRecord
from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.decision import Decision
from matloop.documents.evaluation import Evaluation, EvaluationRecord
from matloop.documents.phase import Archive, Known
from matloop.evaluators.novelty import Uniqueness
from matloop.jobs.archive import archived
from matloop.ledger.opening import open_ledger
from matloop.ledger.past import Past, read_packed
from matloop.protocols import Resources
from matloop.structures.segments import Segment

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path):
    """Return an empty ledger."""
    ledger = open_ledger(tmp_path, create=True)
    yield ledger
    ledger.close()


def crystal(seed):
    """Return a random crystal of six atoms."""
    rng = np.random.default_rng(seed)
    lattice = Lattice.from_parameters(*rng.uniform(4, 5, 3), *rng.uniform(80, 100, 3))
    return Structure(lattice, ["Ti"] * 2 + ["O"] * 4, rng.random((6, 3)))


def past(number, *moved):
    """Return a candidate whose atoms stages moved to these crystals."""
    name = f"c{number}"
    results = [
        EvaluationRecord(
            key=f"{name}-{count}",
            structure_digest="0" * 64,
            evaluator="relaxation",
            method="m",
            evaluation=Evaluation(
                candidate_id=name, verdict="pass", reason="converged", structure=structure
            ),
            recorded_at=NOW,
        )
        for count, structure in enumerate(moved)
    ]
    decisions = [
        Decision(
            campaign_id="x",
            candidate_id=name,
            stage=f"s{count}",
            iteration=0,
            outcome="passed",
            reason="good",
            selector="gate",
            evaluations=(result.key,),
        )
        for count, result in enumerate(results)
    ]
    candidate = Candidate(
        candidate_id=name, structure=crystal(number), origin=Origin(generator="toy")
    )
    record = CandidateRecord(campaign_id="x", iteration=0, index=number, candidate=candidate)
    return Past(record, tuple(decisions), tuple(results))


def held(ledger, artifact):
    """Return the names in each segment."""
    files = read_packed(ledger, artifact, Archive).segments
    return [sorted(Segment(ledger.artifact_path(name)).names()) for name in files]


def resources(ledger, artifact):
    """Return what evaluators are given."""
    files = read_packed(ledger, artifact, Archive).segments
    return Resources(
        {"archive": ledger.artifact_path(artifact.sha256)},
        {"archive": artifact.sha256},
        {name: ledger.artifact_path(name) for name in files},
    )


def test_only_what_is_new_is_stored(ledger):
    """As proposed and as relaxed, once; what no stage has moved is not paid for."""
    seen = [past(n, crystal(n + 1000)) for n in range(12)] + [past(50)]
    first = archived(ledger, None, seen)
    assert held(ledger, first) == [sorted((f"c{n}", k) for n in range(12) for k in (0, 1))]
    second = archived(ledger, first, [*seen, past(12, crystal(2000))])
    assert held(ledger, second)[0] == held(ledger, first)[0]
    assert held(ledger, second)[1] == [("c12", 0), ("c12", 1)]
    assert archived(ledger, second, [*seen, past(12, crystal(2000))]) == second


def test_the_same_past_gives_the_same_archive(ledger, tmp_path):
    """A job that dies and runs again writes nothing else; another ledger has the same names."""
    seen = [past(n, crystal(n + 1000)) for n in range(3)]
    other = open_ledger(tmp_path / "other", create=True)
    assert archived(ledger, None, seen) == archived(ledger, None, seen)
    assert archived(other, None, seen).sha256 == archived(ledger, None, seen).sha256
    other.close()


def test_a_crystal_moved_again_is_added_as_it_is_now(ledger):
    """A second level of theory moves the atoms further: both ends are known."""
    first = archived(ledger, None, [past(0, crystal(1000))])
    second = archived(ledger, first, [past(0, crystal(1000), crystal(1001))])
    assert [name for names in held(ledger, second) for name in names] == [
        ("c0", 0),
        ("c0", 1),
        ("c0", 2),
    ]


def test_what_cannot_be_compared_is_remembered_by_name(ledger):
    """It is not prepared again in every iteration, and repeats nothing."""
    broken = Structure(Lattice.cubic(4), ["Ti"], [[np.nan, 0, 0]])
    first = archived(ledger, None, [past(0, broken)])
    assert held(ledger, first) == [[("c0", 0), ("c0", 1)]]
    assert archived(ledger, first, [past(0, broken)]) == first


def test_candidates_are_found_in_segments_and_never_repeat_themselves(ledger):
    """An earlier candidate rejects a later one as proposed and as relaxed, not itself."""
    seen = [past(n, crystal(n + 1000)) for n in range(4)]
    artifact = archived(ledger, None, seen)
    artifact = archived(ledger, artifact, [*seen, *(past(n, crystal(n + 1000)) for n in (4, 5))])
    origin = Origin(generator="toy")
    force = {"max_force": Quantity(value=0.05, unit="eV/Å")}
    batch = [
        Candidate(candidate_id="new", structure=crystal(2) * [2, 1, 1], origin=origin),
        Candidate(candidate_id="again", structure=crystal(1005), origin=origin, quantities=force),
        Candidate(candidate_id="c3", structure=crystal(1003), origin=origin),
        Candidate(candidate_id="other", structure=crystal(77), origin=origin),
    ]
    found = Uniqueness().evaluate(batch, resources(ledger, artifact))
    assert [evaluation.verdict for evaluation in found] == ["reject", "reject", "pass", "pass"]
    assert "repeats c2 of the archive" in found[0].reason
    assert "repeats c5 of the archive" in found[1].reason


def test_an_archive_of_an_older_campaign_goes_on(ledger):
    """Crystals inside the archive itself stay, and only theirs as proposed are not added again."""
    older = Archive(crystals=(Known(known_id="c0", structure=crystal(0)),))
    stored = ledger.put_artifact("archive", older.to_bytes(), "application/gzip")
    artifact = archived(ledger, stored, [past(0, crystal(1000)), past(1, crystal(1001))])
    assert read_packed(ledger, artifact, Archive).crystals == older.crystals
    assert held(ledger, artifact) == [[("c0", 1), ("c1", 0), ("c1", 1)]]


def test_a_missing_file_is_named(ledger):
    """Without its files an archive is not silently taken for an empty one."""
    artifact = archived(ledger, None, [past(0, crystal(1000))])
    given = resources(ledger, artifact)
    found = Candidate(candidate_id="a", structure=crystal(0), origin=Origin(generator="toy"))
    with pytest.raises(Exception, match="files that are not here"):
        Uniqueness().evaluate([found], Resources(given.paths, given.digests))
