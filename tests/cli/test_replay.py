"""`matloop replay` on a campaign that ran."""

from __future__ import annotations

import json
from pathlib import Path


def test_the_table_has_all_policies(matloop, finished: Path) -> None:
    """The campaign's own policy, chance and the one asked for, with what limits the comparison."""
    said = matloop("replay", "--dir", finished, "--seeds", 2, "-p", "best:quantity=density")
    assert said.code == 0
    for words in ("gate (own)", "random", "best:quantity=density", "20 of 20 decisions", "100 %"):
        assert words in said.out
    assert "only what the campaign bought has labels" in said.out


def test_json_is_flat(matloop, finished: Path) -> None:
    """One row per policy and share, no nesting, discoveries as the status counts them."""
    said = matloop("replay", "--dir", finished, "--seeds", 1, "--json")
    found = json.loads(said.out)
    status = json.loads(matloop("status", "--dir", finished, "--json").out)
    assert found["discoveries"] == status["discoveries"]
    assert len(found["rows"]) == 2 * 5
    for row in found["rows"]:
        assert not any(isinstance(value, dict | list) for value in row.values())
    assert found["reproduced"] == found["decisions"] == 20


def test_mistakes_are_named(matloop, finished: Path) -> None:
    """Unknown policies, parameters and stages end with one clear line and exit code 2."""
    for arguments, words in (
        (("-p", "bets"), "'bets' is no selector"),
        (("-p", "best:quantty=x"), "no such parameter"),
        (("-p", "best:quantity"), "name=value"),
        (("-p", "expected_utility:beta=many"), "beta"),
        (("--stage", "stability"), "validity, unique, relaxation"),
    ):
        said = matloop("replay", "--dir", finished, *arguments)
        assert said.code == 2, said
        assert words in said.err
        assert len(said.err.strip().splitlines()) == 1, said.err
