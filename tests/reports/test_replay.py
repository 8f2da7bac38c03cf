"""Replays: same labels, same budget, another policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from matloop.documents.campaign import Campaign, PluginUse
from matloop.errors import ConfigurationError
from matloop.jobs.choices import past_choices
from matloop.launch.local import run
from matloop.ledger.interface import Ledger
from matloop.ledger.opening import read_ledger
from matloop.reports.replay import choosing_stage, replay

NAME = "replayed"


def declared() -> Campaign:
    return Campaign.model_validate(
        {
            "name": NAME,
            "seed": 3,
            "space": {"elements": ["Cu", "Au"], "max_atoms": 4},
            "objective": {"minimize": "e_above_hull", "discovery": "e_above_hull <= 0.1 eV/atom"},
            "references": {"max_elements": 1},
            "generators": ["random_symmetric", "substitution"],
            "stages": [
                {"name": "validity", "evaluate": ["minimum_distance", "cell"]},
                {"name": "choice", "evaluate": ["uniqueness"], "select": "random", "keep": 5},
                {
                    "name": "relaxation",
                    "evaluate": [{"use": "relaxation", "with": {"model": "ase", "max_steps": 60}}],
                },
                {"name": "stability", "evaluate": ["hull_distance"]},
            ],
            "feedback": {"learn": []},
            "budget": {"iterations": 2, "candidates": 10},
        }
    )


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Return the ledger of a campaign that bought 5 of 10 candidates in each of 2 iterations."""
    directory: Path = tmp_path_factory.mktemp("replayed")
    run(declared(), directory)
    return read_ledger(directory)


def test_the_same_question_gets_the_same_answer(past: Ledger) -> None:
    """Own decisions are reproduced, and another seed or number of places is noticed."""
    record = past.campaign(NAME)
    assert record is not None
    choices = past_choices(past, record, record.campaign.stages[1])
    assert [choice.iteration for choice in choices] == [0, 1]
    for choice in choices:
        assert choice.on_record
        assert choice.differing(choice.again()) == []
        fewer = replace(choice, request=replace(choice.request, keep=4))
        assert len(fewer.differing(fewer.again())) >= 1
        other = replace(choice, request=replace(choice.request, seed=choice.request.seed + 1))
        assert other.differing(other.again()) != []


def test_ledgers_without_questions_are_replayed_too(past: Ledger) -> None:
    """What was asked follows from the campaign and its states, where nobody recorded it."""

    class Older:
        def __getattr__(self, name: str) -> object:
            return getattr(past, name)

        def decisions(self, *args: object, **kwargs: object) -> list[object]:
            found = past.decisions(*args, **kwargs)  # type: ignore[arg-type]
            return [decision.model_copy(update={"selection": ""}) for decision in found]

    record = past.campaign(NAME)
    for choice in past_choices(Older(), record, record.campaign.stages[1]):  # type: ignore[arg-type]
        assert not choice.on_record
        assert choice.differing(choice.again()) == []


def test_at_the_full_budget_all_hold_the_same(past: Ledger) -> None:
    """Only what was bought has labels: curves rise to the campaign's own discoveries."""
    found = replay(past, NAME, [PluginUse(use="best", parameters={"quantity": "density"})], seeds=3)
    assert found.reproduced == found.decisions == found.candidates
    assert found.bought == 10
    assert found.discoveries >= 1
    assert [item.own for item in found.policies] == [True, False, False]
    for item in found.policies:
        counts = [point.discoveries for point in item.curve]
        assert counts == sorted(counts)
        assert counts[-1] == found.discoveries
        assert item.curve[-1].cost == pytest.approx(found.cost)
        assert item.curve[0].bought == 2
        assert item.curve[0].cost <= 0.2 * found.cost * (1 + 1e-9)
    fixed = found.policies[2]
    assert all(point.spread == 0.0 for point in fixed.curve)
    assert 0 < fixed.unlabelled < fixed.choices


def test_fewer_places_cost_less(past: Ledger) -> None:
    """With other places per iteration the budget shrinks with them, and the choice is real."""
    found = replay(past, NAME, [], seeds=2, keep=2)
    assert found.bought == 4
    assert found.cost < replay(past, NAME, [], seeds=1).cost
    assert all(point.bought <= 4 for item in found.policies for point in item.curve)


def test_a_stage_without_a_choice_is_refused(past: Ledger) -> None:
    """The message says what to do, and names the stages there are."""
    campaign = declared()
    with pytest.raises(ConfigurationError, match="validity, choice, relaxation"):
        choosing_stage(campaign, "choise")
    stages = tuple(
        stage.model_copy(update={"keep": None, "select": PluginUse(use="gate")})
        for stage in campaign.stages
    )
    with pytest.raises(ConfigurationError, match="nothing to replay"):
        choosing_stage(campaign.model_copy(update={"stages": stages}))
