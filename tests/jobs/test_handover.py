"""What a stage hands on within a process is what the ledger holds."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.decision import Choice
from matloop.documents.evaluation import Evaluation
from matloop.jobs.evaluation import Standing
from matloop.jobs.handover import (
    Chosen,
    chosen_here,
    forget,
    hand_chosen,
    hand_judged,
    hand_over,
    hand_passed,
    handed_over,
    judged_here,
)
from matloop.jobs.place import Place
from matloop.ledger.opening import LedgerConfig


def test_candidates_come_back_to_the_last_bit_and_only_to_their_stage() -> None:
    """Crystal, origin and quantities are equal; another stage or iteration finds nobody."""
    rng = np.random.default_rng(3)
    candidates = [
        Candidate(
            candidate_id=f"c{number}",
            structure=Structure(
                Lattice(rng.normal(scale=4.0, size=(3, 3))), ["Al", "Ni"], rng.random((2, 3))
            ),
            origin=Origin(generator="toy", parameters={"sites": 2, "share": rng.random()}),
            quantities={"density": Quantity(value=rng.random(), unit="g/cm^3")},
        )
        for number in range(20)
    ]
    place = Place(LedgerConfig(directory="."), "mgo", 1, "rules")
    hand_over(place, candidates)
    hand_over(place, [])
    next_stage = Place(LedgerConfig(directory="."), "mgo", 1, "relaxation")
    names = ["c3", "c19", "nobody"]
    found = handed_over(next_stage, "rules", names)
    assert list(found) == ["c3", "c19"]
    for name, candidate in found.items():
        expected = candidates[int(name[1:])]
        assert candidate.model_dump() == expected.model_dump()
        assert np.array_equal(candidate.structure.frac_coords, expected.structure.frac_coords)
    assert handed_over(next_stage, "validity", names) == {}
    other = Place(LedgerConfig(directory="."), "mgo", 2, "relaxation")
    assert handed_over(other, "rules", names) == {}


def standing(name: str) -> Standing:
    structure = Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    candidate = Candidate(candidate_id=name, structure=structure, origin=Origin(generator="toy"))
    said = Evaluation(candidate_id=name, verdict="pass", reason="it is whole", structure=structure)
    return Standing(candidate, [said], [f"key of {name}"])


def test_choices_wait_for_their_decisions_and_who_passed_for_the_next_stage() -> None:
    """Each choice comes back with its keys; of three crystals the two that passed are handed on."""
    place = Place(LedgerConfig(directory="."), "mgo", 0, "rules")
    standings = [standing(name) for name in ("a", "b", "c")]
    chosen = [
        Chosen(
            choice=Choice(
                candidate_id=item.candidate.candidate_id,
                outcome="rejected" if item.candidate.candidate_id == "b" else "passed",
                reason="by lot",
                evidence={"draw": 0.1},
            ),
            keys=tuple(item.keys),
        )
        for item in standings
    ]
    hand_chosen(place, chosen)
    hand_passed(place, chosen, standings)
    assert list(chosen_here(place, ["c", "b", "x"]).values()) == [chosen[2], chosen[1]]
    assert list(handed_over(place, "rules", ["a", "b", "c"])) == ["a", "c"]
    forget()
    assert chosen_here(place, ["c"]) == {}
    hand_passed(place, chosen, standings)
    assert chosen_here(place, ["c"]) == {}
    assert list(handed_over(place, "rules", ["a", "b", "c"])) == ["a", "c"]
    forget()


def test_two_stages_are_kept_and_no_more() -> None:
    """A stage that hands on still finds what the one before left, and nothing of earlier ones."""
    for name in ("first", "second", "third"):
        hand_over(Place(LedgerConfig(directory="."), "mgo", 0, name), [standing(name).candidate])
    place = Place(LedgerConfig(directory="."), "mgo", 0, "third")
    assert handed_over(place, "first", ["first"]) == {}
    assert list(handed_over(place, "second", ["second"])) == ["second"]
    assert list(handed_over(place, "third", ["third"])) == ["third"]
    forget()


def test_without_room_nothing_is_kept_and_nothing_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a folder for temporary files the ledger is all there is."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    place = Place(LedgerConfig(directory="."), "mgo", 0, "full")
    hand_judged(place, [standing("a")])
    assert judged_here(place, ["a"]) == {}
    monkeypatch.undo()
    hand_judged(place, [standing("a")])
    assert judged_here(place, ["a"])["a"].keys == ["key of a"]
    forget()
