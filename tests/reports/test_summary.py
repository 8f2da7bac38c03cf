"""The summary says what the ledger holds."""

from datetime import timedelta

import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.analysis.structure_matcher import StructureMatcher

from matloop.documents.artifact import Artifact
from matloop.documents.campaign import CandidateRecord, IterationState
from matloop.documents.candidate import Candidate, Origin
from matloop.documents.decision import Decision
from matloop.documents.evaluation import Cost, Evaluation, EvaluationRecord
from matloop.documents.phase import PhaseSet
from matloop.errors import LedgerError
from matloop.ledger.opening import open_ledger
from matloop.reports.contents import CampaignSummary
from matloop.reports.summary import summarize


def phases_of(ledger, campaign_id: str) -> PhaseSet:
    artifact: Artifact = ledger.states(campaign_id)[-1].resources["phases"]
    return PhaseSet.from_bytes(ledger.artifact_path(artifact.sha256).read_bytes())


def test_discoveries_lie_near_the_final_hull_of_pymatgen(ledger, summaries):
    """Distances to the final hull are those of pymatgen, and all discoveries meet the criterion."""
    summary = summaries["finished"]
    diagram = PhaseDiagram(
        [
            PDEntry(phase.structure.composition, phase.energy * len(phase.structure))
            for phase in phases_of(ledger, "finished").phases
        ]
    )
    assert len(summary.discoveries) >= 3
    for finding in summary.findings:
        energy = finding.quantities["energy_per_atom"].value
        hull = diagram.get_hull_energy_per_atom(finding.structure.composition)
        assert finding.e_above_hull_final == pytest.approx(energy - hull, abs=1e-9)
    for finding in summary.discoveries:
        assert finding.e_above_hull_final <= 0.05
        assert finding.quantities["e_above_hull"].value <= 0.05


def test_discoveries_are_new_and_distinct(ledger, summaries):
    """No discovery matches another or a reference phase."""
    matcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)
    references = [p.structure for p in phases_of(ledger, "finished").phases if p.source != "found"]
    crystals = [finding.structure for finding in summaries["finished"].discoveries]
    assert len(matcher.group_structures(crystals)) == len(crystals)
    assert not any(matcher.fit(one, other) for one in crystals for other in references)
    assert summaries["finished"].duplicates > 0


def test_withheld_phases_are_found_by_structure(summaries):
    """A rediscovered phase names a discovery whose space group is that of the withheld crystal."""
    summary = summaries["finished"]
    findings = {finding.candidate_id: finding for finding in summary.discoveries}
    found = [item for item in summary.rediscoveries if item.discovery]
    assert found
    for item in found:
        finding = findings[item.candidate_id]
        assert finding.novelty == "withheld"
        assert finding.matches == item.phase_id
        assert finding.space_group == item.space_group
        assert item.rms == pytest.approx(0.0, abs=1e-3)
        assert item.relaxations == finding.found_after.relaxations


def test_partial_campaigns_are_summarised(summaries):
    """A running campaign and one without a relaxation give numbers, not errors."""
    running, begun = summaries["running"], summaries["begun"]
    assert (running.status, running.iterations) == ("running", 2)
    assert running.spent.relaxations > 0
    assert begun.discoveries == ()
    assert begun.spent.relaxations == 0
    assert begun.findings == ()
    assert begun.arms == ()
    assert begun.hull is not None
    assert {point.source for point in begun.hull.points} == {"reference"}


def test_a_summary_travels_as_json(summaries):
    """Every field survives a round trip, so that a baseline can be kept in a file."""
    for summary in summaries.values():
        text = summary.model_dump_json()
        assert CampaignSummary.model_validate_json(text).model_dump_json() == text


def test_summaries_are_reproducible(ledger, summaries):
    """The same ledger gives the same summary."""
    assert summarize(ledger, "finished") == summaries["finished"]


def test_an_unknown_campaign_is_named_with_those_there_are(ledger):
    """The error lists what the ledger holds."""
    with pytest.raises(LedgerError, match=r"no campaign 'nowhere'.*binary.*finished"):
        summarize(ledger, "nowhere")


@pytest.fixture
def shared_evaluation(ledger, summaries, tmp_path):
    """Return a ledger in which two candidates share an evaluation, and another was paid before."""
    record = summaries["finished"].record
    structure = summaries["finished"].findings[0].structure
    small = open_ledger(tmp_path, create=True)
    small.add_campaign(record)
    stage = record.campaign.stages[0].name
    for index, key in enumerate(("one", "one", "old")):
        candidate = Candidate(
            candidate_id=f"c{index}", structure=structure, origin=Origin(generator="evolution")
        )
        small.add_candidates(
            [CandidateRecord(campaign_id="finished", iteration=0, index=index, candidate=candidate)]
        )
        evaluation = Evaluation(
            candidate_id=candidate.candidate_id,
            verdict="pass",
            reason="computed",
            structure=structure,
            cost=Cost(seconds=3.0, work=50.0, calls=10),
        )
        before = timedelta(days=1) if key == "old" else timedelta(0)
        small.add_evaluations(
            [
                EvaluationRecord(
                    key=key,
                    structure_digest="d",
                    evaluator="relaxation",
                    method="m",
                    evaluation=evaluation,
                    recorded_at=record.created_at - before,
                )
            ]
        )
        small.add_decisions(
            [
                Decision(
                    campaign_id="finished",
                    iteration=0,
                    stage=stage,
                    candidate_id=candidate.candidate_id,
                    outcome="passed",
                    reason="computed",
                    selector="gate",
                    evaluations=(key,),
                )
            ]
        )
    small.add_state(
        IterationState(
            campaign_id="finished", iteration=0, status="running", created_at=record.created_at
        )
    )
    yield small
    small.close()


def test_a_shared_evaluation_is_paid_once(shared_evaluation):
    """Three candidates with two evaluations cost two; the older one is listed as reused."""
    summary = summarize(shared_evaluation, "finished")
    assert summary.totals[0].entered == 3
    assert summary.spent.evaluations == summary.spent.relaxations == 2
    assert (summary.spent.seconds, summary.spent.work, summary.spent.calls) == (6.0, 100.0, 20)
    assert summary.spent.reused_seconds == 3.0


def test_without_a_hull_there_is_still_a_funnel(shared_evaluation):
    """A campaign whose states name no artifacts is summarised without hull and withheld phases."""
    summary = summarize(shared_evaluation, "finished")
    assert summary.hull is None
    assert summary.rediscoveries == ()
    assert summary.totals[1].entered == summary.totals[1].pending == 3
