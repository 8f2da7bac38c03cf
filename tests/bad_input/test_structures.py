"""Crystals that are none: set aside by name, or turned down alone; no neighbour is harmed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from .conftest import SOUND, Matloop, untouched

FRAME = """\
2
Lattice="{edge} 0 0 0 {edge} 0 0 0 {edge}" Properties=species:S:1:pos:R:3 pbc="T T T"
Cu 0 0 0
Au {place} {place} {place}
"""
LOST = ": it cannot be read: it has no block with atoms"
SET_ASIDE = {
    "notes.cif": LOST,
    "empty.cif": LOST,
    "picture.cif": LOST,
    "alloy.cif": ": it is disordered: sites are shared or partly occupied; give an ordered model",
    "half.json": ": it cannot be read: Unterminated string starting at: line 1 column 78 (char 77)",
    "frames.extxyz:1": ": its lattice or coordinates are not finite numbers",
}
GENERATOR = "- use: files\n    with: {paths: [proposals], shuffle: false}"


NONSENSE = {
    "NaN coordinate": "the coordinates of site 1 are not finite numbers",
    "infinite coordinate": "the coordinates of site 1 are not finite numbers",
    "NaN lattice": "a lattice vector is not a finite number",
    "500 atoms": "has 500 atoms, allowed are 1 to 4",
    "500 atoms of a small cell": "has 500 atoms in the cell, at most 200 allowed",
    "no volume": "a lattice vector is 0 Å long",
    "two atoms in one place": "Cu and Au are 0.00031 Å apart, at least 0.5 allowed",
    "disordered": "a site is disordered",
    "vacancies": "a site is disordered",
    "no atoms": "has 0 elements, allowed are 1 to 2",
    "foreign element": "holds Pu, outside the chemical space",
    "no element": "holds X0+, outside the chemical space",
    "needle": "a lattice vector is 5e+03 Å long",
    "far apart": "the volume per atom is 3.64e+08 Å^3, allowed are 2 to 150",
}


def crystal(formula: list[str], edge: float) -> Structure:
    places = {2: [[0.5] * 3], 4: [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]}[len(formula)]
    return Structure(Lattice.cubic(edge), formula, [[0, 0, 0], *places])


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """Return a campaign whose folders of references and proposals hold good files and bad ones."""
    for folder in (tmp_path / "phases", tmp_path / "proposals"):
        folder.mkdir()
        (folder / "notes.cif").write_text("This was once a CIF.\n")
        (folder / "empty.cif").write_text("")
        (folder / "picture.cif").write_bytes(bytes(range(256)))
        Structure(Lattice.cubic(3.1), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]]).to(
            filename=str(folder / "alloy.cif")
        )
        (folder / "half.json").write_text(json.dumps(crystal(["Cu", "Au"], 3.1).as_dict())[:80])
        frames = [(3.2, 1.6), (3.2, "nan"), (3.3, 1.65)]
        (folder / "frames.extxyz").write_text(
            "".join(FRAME.format(edge=edge, place=place) for edge, place in frames)
        )
    crystal(["Au", "Cu", "Cu", "Cu"], 3.8).to(filename=str(tmp_path / "phases" / "good.cif"))
    crystal(["Cu", "Au", "Au", "Au"], 4.0).to(filename=str(tmp_path / "proposals" / "good.cif"))
    large = crystal(["Cu", "Au"], 3.1)
    large.make_supercell([5, 5, 10])
    (tmp_path / "proposals" / "large.json").write_text(json.dumps(large.as_dict()))
    large.replace(0, "Au")
    (tmp_path / "proposals" / "odd.json").write_text(json.dumps(large.as_dict()))
    file = tmp_path / "campaign.yaml"
    file.write_text(
        SOUND.replace("- random_symmetric", GENERATOR) + "references: {files: [phases]}\n"
    )
    return file


def test_bad_files_are_named_and_the_rest_goes_on(
    matloop: Matloop, tmp_path: Path, spoiled: Path
) -> None:
    """References and proposals: each bad file or frame is named with its reason, once each.

    Crystals of 500 atoms are read, and turned down as candidates; what stands beside them in the
    same folders, and in the same file, is relaxed.
    """
    said = matloop("run", spoiled, "--dir", "run")
    assert said.code == 0
    complaints = [line[9:] for line in said.err.splitlines() if "set aside" in line]
    assert sorted(complaints) == sorted(
        f"! {'reference ' if folder == 'phases' else ''}{tmp_path / folder / name} is set aside"
        f"{reason}"
        for folder in ("phases", "proposals")
        for name, reason in SET_ASIDE.items()
    )
    matloop("export", "--dir", "run", "-f", "json", "-o", "all.json")
    records = json.loads((tmp_path / "all.json").read_text())
    ends = {item["origin"]["parameters"]["record"]: item["evaluations"][-1] for item in records}
    said_of = {name: (end["verdict"], end["reason"]) for name, end in ends.items()}
    assert said_of.pop("large") == ("reject", "has 500 atoms in the cell, at most 200 allowed")
    assert said_of.pop("odd") == ("reject", "has 500 atoms, allowed are 1 to 4")
    assert set(said_of) == {"good", "frames-0", "frames-2"}
    assert all(ends[name]["evaluator"] == "hull_distance" for name in said_of)
    assert {verdict for verdict, _ in said_of.values()} == {"pass"}


def test_no_usable_file_is_a_mistake_and_mending_it_goes_on(
    matloop: Matloop, tmp_path: Path
) -> None:
    """A generator without a single crystal ends the run in one line; --resume finds new files."""
    proposals = tmp_path / "proposals"
    proposals.mkdir()
    (proposals / "notes.cif").write_text("This was once a CIF.\n")
    file = tmp_path / "campaign.yaml"
    file.write_text(SOUND.replace("- random_symmetric", GENERATOR))
    said = matloop("run", file, "--dir", "run")
    assert said.code == 2
    assert said.err.splitlines()[-1] == (
        f"error: no usable crystal in {proposals} ({proposals / 'notes.cif'}{LOST})"
    )
    crystal(["Cu", "Au", "Au", "Au"], 4.0).to(filename=str(proposals / "good.cif"))
    assert matloop("run", file, "--dir", "run", "--resume").code == 0


@pytest.fixture(scope="module")
def nonsense(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of a campaign whose generator mixes sound crystals with nonsense."""
    folder = tmp_path_factory.mktemp("nonsense")
    file = folder / "campaign.yaml"
    file.write_text(
        SOUND.replace("random_symmetric", "nonsense").replace("candidates: 6", "candidates: 40")
    )
    command = [sys.executable, "-m", "matloop", "run", str(file), "--dir", str(folder / "run")]
    subprocess.run(command, env=environment, check=True)
    return folder / "run"


def test_nonsense_among_proposals_is_turned_down_one_by_one(
    matloop: Matloop, nonsense: Path, tmp_path: Path
) -> None:
    """Whatever a generator proposes gets a verdict with a reason; sound ones pass beside it."""
    matloop("export", "--dir", nonsense, "-f", "json", "-o", "all.json")
    records = json.loads((tmp_path / "all.json").read_text(), parse_constant=_no_json)
    assert len(records) == 28
    ends = {}
    for item in records:
        kind, end = item["origin"]["parameters"]["kind"], item["evaluations"][-1]
        if kind.startswith("sound"):
            assert (end["evaluator"], end["verdict"]) == ("hull_distance", "pass")
        else:
            ends[kind] = (end["verdict"], end["reason"])
    assert ends == {kind: ("reject", reason) for kind, reason in NONSENSE.items()}
    (turn,) = json.loads(matloop("status", "--dir", nonsense, "--json").out)["iterations"]
    for stage, entered in zip(turn["stages"], (28, 14, 14), strict=True):
        outcomes = ("passed", "rejected", "failed", "held")
        assert sum(stage[outcome] for outcome in outcomes) == stage["entered"] == entered


def test_what_is_no_crystal_can_be_looked_at(
    matloop: Matloop, nonsense: Path, tmp_path: Path
) -> None:
    """Stories, tables and the report take all candidates; CIF and extxyz leave nonsense out."""
    matloop("export", "--dir", nonsense, "-f", "json", "-o", "all.json")
    for item in json.loads((tmp_path / "all.json").read_text()):
        said = matloop("show", item["candidate_id"], "--dir", nonsense)
        assert item["evaluations"][-1]["reason"] in said.out
    for form, target, count in (
        ("csv", "all.csv", 28), ("cif", "cif", 19), ("extxyz", "all.extxyz", 19),
    ):  # fmt: skip
        said = matloop("export", "--dir", nonsense, "-f", form, "-o", target)
        assert (said.code, said.err) == (0, "")
        assert f"wrote {count} candidates" in said.out
        assert ("left out 9 that are no crystals" in said.out) == (count == 19)
    assert len(list((tmp_path / "cif").iterdir())) == 19
    assert matloop("report", "--dir", nonsense, "-o", "report.html").code == 0


def _no_json(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def test_a_missing_elemental_reference_stops_everything(
    matloop: Matloop, campaign: Path, finished: Path
) -> None:
    """The element is named with what to do; nothing is relaxed, and no ledger is begun."""
    campaign.write_text(
        SOUND.replace("name: copper-gold", "name: other") + "references: {embedded: false}\n"
    )
    expected = (
        "error: no elemental reference for Cu, Au: the hull needs the pure element; name a "
        "structure file of each in references.files, or set references.embedded to true, or "
        "leave them out with space.deny"
    )
    with untouched(campaign.parent):
        matloop("run", campaign, "--dir", "run").refuses(expected)
    shutil.copytree(finished, campaign.parent / "run")
    with untouched(campaign.parent / "run"):  # nor is it recorded beside another campaign
        matloop("run", campaign, "--dir", "run").refuses(expected)
    matloop("status", "--dir", "run", "--campaign", "other").refuses(
        "error: run holds no campaign 'other', but copper-gold"
    )
