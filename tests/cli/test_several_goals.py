"""A campaign with two goals, from its file to its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parent / "several_goals.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("goals")
    command = [sys.executable, "-m", "matloop", "run", str(FILE), "--dir", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    return directory


def test_status_shows_the_front_and_the_volume(matloop, run: Path) -> None:
    """Nobody on the front is dominated, the volume grows, and the table names its crystals."""
    state = json.loads(matloop("status", "--dir", run, "--json").out)
    front = state["front"]
    assert [(goal["text"], goal["unit"], goal["reference"]) for goal in front["goals"]] == [
        ("e_above_hull", "eV/atom", 0.5),
        ("density", "g/cm^3", 20.0),
    ]
    values = [point["values"] for point in front["points"]]
    for one in values:
        assert not any(a <= one[0] and b <= one[1] and [a, b] != one for a, b in values)
    volumes = [turn["hypervolume"] for turn in state["iterations"]]
    assert volumes == front["volumes"]
    assert 0 < volumes[0] <= volumes[1]
    said = matloop("status", "--dir", run).out
    for point in front["points"]:
        assert point["candidate_id"] in said


def test_the_front_is_exported_and_nobody_dominates_it(matloop, run: Path, tmp_path: Path) -> None:
    """`--select front` writes the same crystals; all others are dominated, as utility says."""
    state = json.loads(matloop("status", "--dir", run, "--json").out)
    path = tmp_path / "front.json"
    matloop("export", "--dir", run, "-f", "json", "-s", "front", "-o", path)
    records = json.loads(path.read_text())
    assert {r["candidate_id"] for r in records} == {
        point["candidate_id"] for point in state["front"]["points"]
    }
    assert all(record["utility"] == 0 for record in records)
    matloop("export", "--dir", run, "-f", "json", "-s", "all", "-o", path)
    ranks = [r["utility"] for r in json.loads(path.read_text()) if r["utility"] is not None]
    assert min(ranks) < 0


def test_the_second_iteration_goes_by_the_volume(matloop, run: Path, tmp_path: Path) -> None:
    """Decisions of the choice carry the score, and parents were bred from the front."""
    path = tmp_path / "all.json"
    matloop("export", "--dir", run, "-f", "json", "-s", "all", "-o", path)
    later = [r for r in json.loads(path.read_text()) if r["iteration"] == 1]
    scored = [d for r in later for d in r["decisions"] if "acquisition" in d.get("evidence", {})]
    assert scored
    assert all("expected_utility" not in d["evidence"] for d in scored)
    assert any(r["origin"]["parents"] for r in later)


def test_the_report_draws_it(matloop, run: Path, tmp_path: Path) -> None:
    """Front, volume and table are there, with the user's reference point."""
    path = tmp_path / "report.html"
    assert matloop("report", "--dir", run, "-o", path).code == 0
    page = path.read_text()
    for text in ('id="front"', 'id="plot-front"', 'id="plot-volumes"', "Crystals on the front"):
        assert text in page
    assert "Reference point: e_above_hull 0.5 eV/atom, density 20 g/cm^3." in page
    assert "Dominated by" in page


def test_replay_measures_the_volume(matloop, run: Path) -> None:
    """The own choice comes out again, and every policy has its share of the volume."""
    said = matloop("replay", "--dir", run, "--seeds", 2, "--json", "-p", "best:quantity=density")
    found = json.loads(said.out)
    assert found["reproduced"] == found["decisions"] == 24
    whole = [row["volume"] for row in found["rows"] if row["share"] == 1.0]
    assert len(whole) == 3
    assert whole == pytest.approx([1.0] * 3)
    part = [row["volume"] for row in found["rows"] if row["share"] == 0.4]
    assert all(0 <= volume < 1 for volume in part)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("density]", "hardness]", "6: objective.minimize[1]: no stage finds 'hardness'"),
        ("density]", "density + 1 GPa]", "6: objective.minimize[1]: units do not fit in 'density"),
        ("density]", "density, e_above_hull]", "'e_above_hull' is a goal twice; name it once"),
        ("density]", "3]", "6: objective.minimize: must be an expression or a list of them, got 3"),
        ("500 meV/atom", "500 GPa", "8: objective.reference.e_above_hull: '500 GPa' is in GPa, "
         "where eV/atom is needed for 'e_above_hull'"),
        ("    density: 20", "    volume: 20", "7: objective.reference: names every goal once; "
         "'density' is a goal without a value there"),
        ("20 g/cm^3", "heavy", "7: objective.reference: 'heavy' must be a number with its unit"),
        ("expected_hypervolume_improvement", "ucb", "stages[1].select: acquisition ucb ranks by "
         "one utility, the objective has 2 goals; take expected_hypervolume_improvement"),
        ("[e_above_hull, density]", "e_above_hull", "is for several goals; this objective has one"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_place(
    matloop, tmp_path: Path, old: str, new: str, expected: str
) -> None:
    """Which goal, which unit, which line; exit code 2."""
    text = FILE.read_text()
    assert old in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(old, new, 1))
    said = matloop("validate", path)
    assert said.code == 2
    assert expected in said.err
