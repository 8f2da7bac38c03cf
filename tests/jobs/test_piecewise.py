"""A campaign read piece by piece is the campaign read at once, and so is its table of the past."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from matloop.documents.campaign import Campaign
from matloop.jobs.evaluation import Standing
from matloop.jobs.history import HISTORY, Seen, read_history
from matloop.jobs.learn import current_observations
from matloop.jobs.piecewise import Piecewise
from matloop.launch.local import run
from matloop.ledger.opening import read_ledger
from matloop.ledger.past import read_past
from matloop.testing.toys import toys_registered

NAME = "pieces"


def campaign() -> Campaign:
    return Campaign.model_validate(
        {
            "name": NAME,
            "seed": 5,
            "space": {"system": "Sr-Ti-O", "max_atoms": 4},
            "objective": {"minimize": "e_above_hull"},
            "references": {"max_elements": 1},
            "generators": ["toy_generator"],
            "stages": [
                {"name": "validity", "evaluate": ["minimum_distance"], "workers": 0},
                {"name": "choice", "select": {"use": "random"}, "keep": 15},
                {"name": "relaxation", "evaluate": ["toy_relaxation"], "workers": 0, "chunk": 4},
                {"name": "stability", "evaluate": ["hull_distance"], "workers": 0},
            ],
            "feedback": {"parents": 4},
            "budget": {"iterations": 3, "candidates": 24},
        }
    )


def contents(directory: Path) -> dict[str, object]:
    """Return everything but times."""
    ledger = read_ledger(directory)
    states = ledger.states(NAME)
    found = {
        "candidates": [record.model_dump() for record in ledger.candidates(NAME)],
        "decisions": [decision.model_dump() for decision in ledger.decisions(NAME)],
        "states": [state.model_dump(exclude={"created_at"}) for state in states],
    }
    ledger.close()
    return found


def test_pieces_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With five candidates in memory at a time every decision, state and artifact is the same."""
    with toys_registered():
        run(campaign(), tmp_path / "whole")
        monkeypatch.setattr(importlib.import_module("matloop.jobs.piecewise"), "PIECE", 5)
        monkeypatch.setattr(importlib.import_module("matloop.jobs.stage"), "PIECE", 5)
        run(campaign(), tmp_path / "pieces")
    whole, pieces = contents(tmp_path / "whole"), contents(tmp_path / "pieces")
    assert len(whole["states"]) == 4
    for part, expected in whole.items():
        assert pieces[part] == expected, part


def test_no_job_holds_more_than_two_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 160 candidates no more than two pieces of eight stand in memory at once, in any stage."""
    alive: weakref.WeakSet[Standing] = weakref.WeakSet()
    most = [0]
    begin = Standing.__init__

    def counted(standing: Standing, *arguments: Any, **named: Any) -> None:
        begin(standing, *arguments, **named)
        alive.add(standing)
        most[0] = max(most[0], len(alive))

    monkeypatch.setattr(Standing, "__init__", counted)
    monkeypatch.setattr(Standing, "__hash__", object.__hash__)
    for name in ("piecewise", "stage", "decide"):
        monkeypatch.setattr(importlib.import_module(f"matloop.jobs.{name}"), "PIECE", 8)
    large = campaign().model_dump(mode="json")
    large["stages"] = [{**stage, "keep": None, "chunk": 8} for stage in large["stages"]]
    large["stages"][1]["select"] = {"use": "gate", "parameters": {}}
    large["budget"] |= {"iterations": 1, "candidates": 160}
    with toys_registered():
        run(Campaign.model_validate(large), tmp_path)
    assert contents(tmp_path)["candidates"]
    assert 8 <= most[0] <= 16


def test_the_table_is_what_reading_everything_gives(tmp_path: Path) -> None:
    """After three iterations, each row equals the candidate read and judged from scratch."""
    declared = campaign()
    with toys_registered():
        run(declared, tmp_path)
        ledger = read_ledger(tmp_path)
        for state in ledger.states(NAME)[1:]:
            rows = read_history(ledger, state.resources[HISTORY])
            past = [
                item
                for item in read_past(ledger, NAME, declared)
                if item.record.iteration < state.iteration
            ]
            observed = current_observations(ledger, declared, past, state.resources)
            expected = [
                Seen.of(observation, item.record.index, declared.objective)
                for item, observation in zip(past, observed, strict=True)
            ]
            assert list(rows) == expected
            assert [rows[3], rows[-1]] == [expected[3], expected[-1]]
            assert list(rows[5:9]) == expected[5:9]
        assert len(rows) == 72
        assert any(row.discovery for row in rows)
        hulls = {state.resources["phases"].sha256 for state in ledger.states(NAME)}
        assert len(hulls) > 1, "no hull changed, so nothing had to be judged again"
        ledger.close()


def test_a_sequence_holds_one_piece() -> None:
    """Items come in order and by number, each piece read when it is asked for, slices too."""
    read: list[list[str]] = []

    def load(names: Sequence[str]) -> list[int]:
        read.append(list(names))
        return [int(name) for name in names]

    numbers = Piecewise([str(number) for number in range(10)], load, 4)
    assert (len(numbers), numbers[5], numbers[-1]) == (10, 5, 9)
    assert list(numbers) == list(range(10))
    assert list(numbers[3:7]) == [3, 4, 5, 6]
    assert [len(piece) for piece in numbers.pieces()] == [4, 4, 2]
    assert max(map(len, read)) == 4
    with pytest.raises(IndexError):
        numbers[10]
