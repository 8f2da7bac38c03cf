"""A campaign's past: candidates as their stages left them, and only what the ledger holds."""

from __future__ import annotations

import pytest
from pymatgen.core import Structure

from matloop.documents.campaign import Stage
from matloop.documents.phase import Archive, Known
from matloop.errors import LedgerError
from matloop.ledger.opening import open_ledger
from matloop.ledger.past import read_packed, read_past


@pytest.fixture
def ledger(tmp_path):
    ledger = open_ledger(tmp_path, create=True)
    yield ledger
    ledger.close()


@pytest.fixture
def ladder(campaign):
    declared = campaign().campaign
    stages = tuple(Stage(name=name) for name in ("rules", "relaxation", "stability"))
    return declared.model_copy(update={"stages": stages})


def test_a_candidate_stands_as_its_stages_left_it(
    ledger, ladder, candidate, evaluation, decision
) -> None:
    """Decisions come in the order of the ladder, and each stage adds its structure and numbers."""
    larger = evaluation("relaxed").evaluation.structure.copy()
    larger.scale_lattice(80.0)
    relaxed = evaluation("relaxed", -5.0)
    relaxed = relaxed.model_copy(
        update={"evaluation": relaxed.evaluation.model_copy(update={"structure": larger})}
    )
    ledger.add_candidates([candidate(0), candidate(1)])
    ledger.add_evaluations([relaxed])
    ledger.add_decisions(
        [
            decision("c0-0", "relaxation").model_copy(update={"evaluations": ("relaxed",)}),
            decision("c0-0", "rules"),
            decision("c0-1", "rules").model_copy(update={"outcome": "held"}),
        ]
    )
    first, second = read_past(ledger, "mgo", ladder)
    assert [item.stage for item in first.decisions] == ["rules", "relaxation"]
    assert first.passed("relaxation")
    assert not first.passed("stability")
    assert first.relaxed
    assert first.candidate.structure.volume == pytest.approx(80.0)
    assert first.candidate.quantities["energy"].value == -5.0
    assert first.after(["rules"]) == first.record.candidate
    assert not second.passed("rules")
    assert not second.relaxed
    assert second.candidate == second.record.candidate


def test_an_evaluation_of_two_stages_is_one_result(
    ledger, ladder, candidate, evaluation, decision
) -> None:
    """What two stages asked for was paid for once, so it counts once."""
    ledger.add_candidates([candidate(0)])
    ledger.add_evaluations([evaluation("shared")])
    ledger.add_decisions(
        [
            decision("c0-0", stage).model_copy(update={"evaluations": ("shared",)})
            for stage in ("rules", "relaxation")
        ]
    )
    (past,) = read_past(ledger, "mgo", ladder)
    assert [result.key for result in past.results] == ["shared"]
    assert sum(found.cost.work for found in past.evaluations) == 800


def test_a_lost_evaluation_is_named(ledger, ladder, candidate, decision) -> None:
    """A decision whose evaluation is gone stops the reader, who would else count too little."""
    ledger.add_candidates([candidate(0)])
    ledger.add_decisions([decision("c0-0").model_copy(update={"evaluations": ("gone",)})])
    with pytest.raises(LedgerError, match="evaluation gone, which is missing"):
        read_past(ledger, "mgo", ladder)


def test_an_artifact_comes_back_as_its_document(ledger) -> None:
    """What was packed into an artifact is what is read from it."""
    structure = Structure([[3, 0, 0], [0, 3, 0], [0, 0, 3]], ["Cs"], [[0, 0, 0]])
    archive = Archive(crystals=(Known(known_id="a", structure=structure),))
    artifact = ledger.put_artifact("archive", archive.to_bytes(), "application/gzip")
    assert read_packed(ledger, artifact, Archive) == archive
