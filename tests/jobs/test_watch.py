"""Collapse is noticed, told, and answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from matloop.cli.results import status_data
from matloop.cli.standing import Standing
from matloop.documents.campaign import Campaign, CandidateRecord, PluginUse
from matloop.documents.candidate import Candidate, Origin
from matloop.documents.diversity import Watch
from matloop.jobs.watch import alarms, watched
from matloop.launch.local import run
from matloop.ledger.opening import read_ledger
from matloop.reports import wording
from matloop.reports.html import render_report
from matloop.reports.summary import summarize
from matloop.testing.toys import toys_registered

FIELDS = {
    "name": "collapse",
    "seed": 5,
    "space": {"elements": ["Cu", "Au", "Ag", "Pd"], "max_atoms": 4},
    "objective": {"minimize": "e_above_hull", "discovery": "e_above_hull <= 0.2 eV/atom"},
    "references": {"max_elements": 1},
    "generators": [
        {"use": "toy_generator", "name": "toy"},
        {"use": "toy_parrot", "name": "parrot"},
    ],
    "stages": [
        {"name": "validity", "evaluate": ["minimum_distance"], "keep": 4, "select": "random"},
        {
            "name": "relaxation",
            "evaluate": [{"use": "relaxation", "with": {"model": "ase", "max_steps": 20}}],
        },
        {"name": "stability", "evaluate": ["hull_distance"]},
    ],
    "feedback": {"learn": [], "allocate": {"use": "watchful", "with": {"allocator": "fixed"}}},
    "budget": {"iterations": 3, "candidates": 32},
}


@pytest.fixture
def campaign() -> Iterator[Campaign]:
    """Return a campaign of two toy generators, one of which repeats what was found."""
    with toys_registered():
        yield Campaign.model_validate(FIELDS)


def test_a_generator_that_repeats_itself_is_noticed(campaign: Campaign, tmp_path: Path) -> None:
    """Alarm in the iteration it happens, a smaller share in the next, in status and report."""
    run(campaign, tmp_path)
    ledger = read_ledger(tmp_path)
    first, *rest = ledger.states("collapse")[1:]
    assert not first.alarms
    for state in rest:
        assert {alarm.generator for alarm in state.alarms} == {"parrot"}
        assert {"uniqueness", "top_formula"} <= {alarm.measure for alarm in state.alarms}
        assert all("its share goes from" in alarm.reaction for alarm in state.alarms)
    shares = [state.shares["parrot"] for state in (first, *rest)]
    assert shares[0] > shares[1] > shares[2] > 0
    proposed = [
        sum(r.candidate.origin.generator == "parrot" for r in ledger.candidates("collapse", turn))
        for turn in (1, 2)
    ]
    assert proposed[0] > proposed[1] > 0

    summary = summarize(ledger, "collapse")
    data = status_data(summary, Standing("finished"))
    assert {alarm["generator"] for alarm in data["alarms"]} == {"parrot"}
    offered = {row["generator"]: row for row in data["iterations"][2]["diversity"]}
    assert offered["parrot"]["uniqueness"] < 0.2
    assert offered["toy"]["uniqueness"] > 0.6
    (line,) = wording.alarms(summary)
    assert line.startswith("alarm: parrot offers little new")
    page = render_report(summary)
    assert "What they offered" in page
    assert alarm_words(summary) in page


def test_repeats_of_a_discovery_earn_nothing(campaign: Campaign, tmp_path: Path) -> None:
    """The bandit counts distinct discoveries: a parrot's share falls though all it says is good."""
    feedback = campaign.feedback.model_copy(update={"allocate": PluginUse(use="bandit")})
    watch = Watch(min_proposals=33)  # no alarm
    run(campaign.model_copy(update={"feedback": feedback, "watch": watch}), tmp_path)
    states = read_ledger(tmp_path).states("collapse")
    assert not any(state.alarms for state in states)
    assert states[-1].shares["parrot"] < states[1].shares["parrot"]
    assert states[-1].shares["parrot"] >= 0.1


def alarm_words(summary) -> str:
    return next(alarm.reaction for alarm in summary.alarms)


def records(iteration: int, formulas: list[tuple[str, str]]) -> list[CandidateRecord]:
    found = []
    for index, species in enumerate(formulas):
        structure = Structure(Lattice.cubic(3.5), species, [[0, 0, 0], [0.5, 0.5, 0.5]])
        candidate = Candidate(
            candidate_id=f"{iteration}-{index}",
            structure=structure,
            origin=Origin(generator="toy"),
        )
        found.append(
            CandidateRecord(
                campaign_id="collapse", iteration=iteration, index=index, candidate=candidate
            )
        )
    return found


def test_each_limit_has_its_alarm(campaign: Campaign) -> None:
    """Drifted elements, repeated references and replayed training data are told apart."""
    varied = [("Cu", "Au"), ("Cu", "Ag"), ("Au", "Ag"), ("Cu", "Cu")] * 4
    start, later = records(0, varied), records(1, [("Pd", "Pd")] * 16)
    before = watched(campaign, 0, start, [], {})
    assert before[0].divergence == 0.0
    assert before[0].uniqueness == 4 / 16
    palladium = [("Pd", later[0].candidate.structure)]
    metrics = {"tune.toy.replayed_share": 0.9}
    (now,) = watched(campaign, 1, [*start, *later], palladium, metrics)
    assert now.divergence == pytest.approx(1.0)
    assert (now.novelty, now.uniqueness, now.top_formula) == (0.0, 1 / 16, 1.0)
    assert now.replayed == 0.9
    measures = [alarm.measure for alarm in alarms([now], Watch(), before)]
    assert sorted(measures) == [
        "divergence", "novelty", "replayed", "top_formula", "top_prototype", "uniqueness",
    ]  # fmt: skip
    assert not alarms([now], Watch(min_proposals=17), before)
    # A search that had only one formula from the start has not collapsed onto it.
    assert "top_formula" not in [alarm.measure for alarm in alarms([now], Watch(), [now])]
