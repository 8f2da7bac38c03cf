"""`matloop status`, `show`, `export` and `report` on a campaign that ran."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path

import pytest


def status(matloop, directory: Path) -> dict:
    return json.loads(matloop("status", "--dir", directory, "--json").out)


def exported(matloop, directory: Path, tmp_path: Path, select: str = "all") -> list[dict]:
    path = tmp_path / f"{select}.json"
    assert matloop("export", "--dir", directory, "-f", "json", "-s", select, "-o", path).code == 0
    return json.loads(path.read_text())


def test_the_funnel_adds_up(matloop, finished: Path) -> None:
    """Each stage decides on all that entered, and what passes one enters the next."""
    state = status(matloop, finished)
    assert state["status"] == "finished"
    assert len(state["iterations"]) == 2
    for turn in state["iterations"]:
        entering = 10
        for stage in turn["stages"]:
            assert stage["entered"] == entering
            outcomes = ("passed", "rejected", "failed", "held")
            assert stage["entered"] == sum(stage[outcome] for outcome in outcomes)
            assert stage["pending"] == 0
            entering = stage["passed"]
        assert turn["stages"][2]["cost"]["work"] > 0
        assert turn["discoveries"] == sum(stage["discoveries"] for stage in turn["stages"])
    assert state["discoveries"] == sum(turn["discoveries"] for turn in state["iterations"])


def test_the_table_shows_every_stage(matloop, finished: Path) -> None:
    """The readable status names stages, outcomes and the campaign."""
    said = matloop("status", "--dir", finished)
    assert said.code == 0
    for word in ("copper-gold", "validity", "relaxation", "stability", "rejected", "held"):
        assert word in said.out


def test_records_hold_the_whole_story(matloop, finished: Path, tmp_path: Path) -> None:
    """Every exported record has its structure, origin, evaluations and decisions."""
    from pymatgen.core import Structure

    records = exported(matloop, finished, tmp_path)
    assert len(records) == 20
    for record in records:
        assert set(record) >= {
            "candidate_id", "formula", "structure", "origin", "evaluations", "decisions",
        }  # fmt: skip
        structure = Structure.from_dict(record["structure"])
        assert structure.composition.reduced_formula == record["formula"]
        assert record["origin"]["generator"] == "random_symmetric"
        assert record["decisions"][0]["stage"] == "validity"
        assert all(item["reason"] for item in record["evaluations"] + record["decisions"])
    relaxed = [r for r in records if "energy_per_atom" in r["quantities"]]
    assert relaxed
    for record in relaxed:
        assert record["quantities"]["energy_per_atom"]["theory"]
        assert record["structure"] != record["proposed"]


def test_selections_are_nested(matloop, finished: Path, tmp_path: Path) -> None:
    """Novel and stable candidates passed the last stage, and discoveries are novel."""
    ids = {
        name: {record["candidate_id"] for record in exported(matloop, finished, tmp_path, name)}
        for name in ("all", "passed", "novel", "stable", "discoveries")
    }
    assert ids["all"] > ids["passed"] >= ids["novel"]
    assert ids["passed"] >= ids["stable"]
    assert ids["novel"] >= ids["discoveries"]
    assert len(ids["discoveries"]) == status(matloop, finished)["discoveries"]


def test_other_formats_hold_the_same_candidates(matloop, finished: Path, tmp_path: Path) -> None:
    """CSV and Parquet agree on numbers and units; extxyz and CIF hold the same crystals."""
    import pyarrow.parquet as pq
    from ase.io import read
    from pymatgen.core import Structure

    records = {r["candidate_id"]: r for r in exported(matloop, finished, tmp_path, "passed")}
    for form in ("csv", "parquet", "extxyz"):
        path = tmp_path / f"out.{form}"
        matloop("export", "--dir", finished, "-f", form, "-s", "passed", "-o", path)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "out.parquet")
    assert [row["candidate_id"] for row in rows] == list(records)
    assert table.column("candidate_id").to_pylist() == list(records)
    assert table.schema.field("energy_per_atom").metadata[b"unit"] == b"eV/atom"
    energies = [record["quantities"]["energy_per_atom"]["value"] for record in records.values()]
    assert [float(row["energy_per_atom (eV/atom)"]) for row in rows] == energies
    assert table.column("energy_per_atom").to_pylist() == energies
    images = read(tmp_path / "out.extxyz", index=":")
    assert [atoms.info["candidate_id"] for atoms in images] == list(records)
    per_atom = [atoms.get_potential_energy() / len(atoms) for atoms in images]
    assert per_atom == pytest.approx(energies)

    folder, archive = tmp_path / "cifs", tmp_path / "cifs.zip"
    for path in (folder, archive):
        matloop("export", "--dir", finished, "-f", "cif", "-s", "passed", "-o", path)
    files = sorted(folder.glob("*.cif"))
    assert len(files) == len(records)
    assert sorted(zipfile.ZipFile(archive).namelist()) == [file.name for file in files]
    for file in files:
        record = next(r for name, r in records.items() if file.name.endswith(f"_{name}.cif"))
        given = Structure.from_dict(record["structure"])
        assert Structure.from_file(file).volume == pytest.approx(given.volume, rel=1e-4)


def test_exports_are_whole_or_not_there(
    matloop, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the middle leaves the older file as it was, and nothing beside it."""
    path = tmp_path / "out.json"
    path.write_text("older")
    monkeypatch.setattr("matloop.reports.exporting.record", _full_disk)
    said = matloop("export", "--dir", finished, "-f", "json", "-o", path)
    assert said.code == 1
    assert "No space left" in said.err
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def _full_disk(item: object) -> dict:
    raise OSError(28, "No space left on device")


def test_a_full_folder_is_not_mixed_with_an_export(matloop, finished: Path, tmp_path: Path) -> None:
    """CIF files go to a new folder only."""
    (tmp_path / "mine.cif").write_text("")
    said = matloop("export", "--dir", finished, "-f", "cif", "-o", tmp_path)
    assert said.code == 2
    assert [file.name for file in tmp_path.iterdir()] == ["mine.cif"]


def test_a_candidate_tells_its_story(matloop, finished: Path, tmp_path: Path) -> None:
    """`show` names origin, every verdict with its reason, energies with theory, and decisions."""
    record = exported(matloop, finished, tmp_path, "passed")[0]
    said = matloop("show", record["candidate_id"], "--dir", finished)
    assert said.code == 0
    for item in record["evaluations"]:
        assert item["reason"] in said.out
    for item in record["decisions"]:
        assert item["stage"] in said.out
        assert item["reason"] in said.out
    assert record["quantities"]["energy_per_atom"]["theory"] in said.out
    assert "random_symmetric" in said.out
    assert f"{record['quantities']['e_above_hull']['value']:.5g}" in said.out


def test_a_candidate_may_be_named_by_the_start_of_its_id(
    matloop, finished: Path, tmp_path: Path
) -> None:
    """A unique prefix is enough; an ambiguous or wrong one lists what could be meant."""
    ids = [record["candidate_id"] for record in exported(matloop, finished, tmp_path)]
    name = ids[3]
    short = next(
        name[:n] for n in range(1, len(name) + 1) if sum(i.startswith(name[:n]) for i in ids) == 1
    )
    assert name in matloop("show", short, "--dir", finished).out
    many = matloop("show", "", "--dir", finished)
    assert many.code == 2
    assert ids[0] in many.err
    wrong = matloop("show", f"{name}x", "--dir", finished)
    assert wrong.code == 2
    assert name in wrong.err


def test_the_run_is_found_from_where_one_stands(
    matloop, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current folder, or the only run below it; several are listed, none is a clear line."""
    monkeypatch.chdir(tmp_path)
    assert "no run found" in matloop("status").err
    shutil.copytree(finished, tmp_path / "runs" / "one")
    assert matloop("status").code == 0
    shutil.copytree(finished, tmp_path / "runs" / "two")
    several = matloop("status")
    assert several.code == 2
    assert "runs/one, runs/two" in several.err
    monkeypatch.chdir(tmp_path / "runs" / "two")
    assert matloop("status").code == 0
    assert matloop("status", "--campaign", "other").code == 2


def test_a_damaged_ledger_is_named_and_left_alone(matloop, finished: Path, tmp_path: Path) -> None:
    """Reading a corrupted file says so in one line, exits with 1, and changes nothing."""
    shutil.copytree(finished, tmp_path / "run")
    file = tmp_path / "run" / "ledger.sqlite"
    content = bytearray(file.read_bytes())
    content[4096 : 4096 * 3] = b"\xff" * 8192
    file.write_bytes(content)
    said = matloop("status", "--dir", tmp_path / "run")
    assert said.code == 1
    assert "ledger.sqlite" in said.err
    assert file.read_bytes() == content


def test_the_report_is_written_where_it_is_wanted(matloop, finished: Path, tmp_path: Path) -> None:
    """One HTML file, named or beside the ledger."""
    path = tmp_path / "my.html"
    assert matloop("report", "--dir", finished, "-o", path).code == 0
    assert "<html" in path.read_text()[:2000].lower()
