"""`matloop evaluate`: its table, its JSON, its file, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from .conftest import Matloop

FACES = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
ALWAYS = [
    "n", "structural_validity", "smact_validity", "smact_validity_legacy", "unique", "novel", "p1",
    "template_duplicates", "space_group_counts", "wdist_density", "wdist_elements", "reference",
    "reference_sha256", "reference_count", "matcher_ltol", "matcher_stol", "matcher_angle_tol",
]  # fmt: skip
RELAXED = [
    "relaxed", "stable", "metastable", "sun", "msun", "sun_mattergen", "energy_drop_median",
    "rmsd_mean", "e_above_hull_median", "hull_phases", "hull_theory", "model", "fmax",
]  # fmt: skip


def alloy(elements: str, length: float) -> Structure:
    """Return an ordered alloy or a metal on the faces of a cube."""
    return Structure(Lattice.cubic(length), elements.split(), FACES)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Return a folder of samples: a known alloy, a new one, and a file that cannot be read."""
    folder = tmp_path / "samples"
    folder.mkdir()
    alloy("Au Cu Cu Cu", 3.8).to(str(folder / "known.cif"), fmt="cif")
    alloy("Cu Au Au Au", 3.95).to(str(folder / "new.cif"), fmt="cif")
    (folder / "broken.cif").write_text("data_broken\n_cell_length_a nonsense\n")
    return folder


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """Return a JSON file of reference crystals; silver is not among them."""
    crystals = [alloy("Cu Cu Cu Cu", 3.61), alloy("Au Au Au Au", 4.08), alloy("Au Cu Cu Cu", 3.75)]
    file = tmp_path / "known.json"
    file.write_text(json.dumps([crystal.as_dict() for crystal in crystals]))
    return file


def test_json_is_flat_and_whole(
    matloop: Matloop, samples: Path, reference: Path, tmp_path: Path
) -> None:
    """Every share has its count and denominator; what was not asked for is null."""
    said = matloop("evaluate", samples, "-r", reference, "--cache", tmp_path / "cache", "--json")
    assert said.code == 0
    figures = json.loads(said.out)
    assert all(not isinstance(value, dict | list) for value in figures.values())
    for key in ALWAYS:
        assert figures[key] is not None, key
    for key in RELAXED:
        assert figures[key] is None, key
    assert figures["n"] == 3
    assert figures["structural_validity"] == pytest.approx(2 / 3)
    assert figures["structural_validity_count"] == 2
    assert figures["structural_validity_denominator"] == 3
    assert figures["novel_count"] == 1


def test_a_second_call_computes_nothing(
    matloop: Matloop,
    samples: Path,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Relaxed with a potential: a table, a file of verdicts, and the same again from the cache."""
    common = ["--relax", "ase", "--cache", tmp_path / "cache", "--seconds", "6"]
    verdicts = tmp_path / "verdicts.csv"
    said = matloop("evaluate", samples, "-r", reference, *common, "-o", verdicts)
    assert said.code == 0
    assert "M.S.U.N." in said.out
    assert "hull of 3 reference phases" in said.out
    rows = list(csv.DictReader(verdicts.open()))
    assert [row["name"] for row in rows] == ["broken", "known", "new"]
    assert rows[0]["problem"]
    assert rows[0]["relaxed"] == "False"
    assert float(rows[1]["e_above_hull"]) == pytest.approx(0, abs=2e-3)
    assert rows[1]["matches"].startswith("known")

    def refuse(*arguments: object, **settings: object) -> None:
        raise AssertionError("relaxed again")

    monkeypatch.setattr("matloop.evaluators.mlip.relaxation.minimise", refuse)
    monkeypatch.setattr("matloop.metrics.distributions.single_points", refuse)
    said = matloop("evaluate", samples, "-r", reference, *common, "--json")
    assert said.code == 0
    figures = json.loads(said.out)
    for key in RELAXED:
        assert figures[key] is not None, key
    assert figures["relaxed_count"] == 2
    assert figures["sun_denominator"] == figures["msun_denominator"] == 3
    assert figures["hull_filled_elements"] == ""
    assert figures["wdist_energy_reference"] == 3


def test_targets(matloop: Matloop, reference: Path, tmp_path: Path) -> None:
    """Structure prediction: three predictions for three targets, of which two are met."""
    predictions = [
        alloy("Cu Cu Cu Cu", 3.7),
        alloy("Au Au Au Au", 4.0),
        Structure(Lattice.cubic(3.0), ["Au", "Cu"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    ]
    file = tmp_path / "predicted.json"
    file.write_text(json.dumps([crystal.as_dict() for crystal in predictions]))
    said = matloop(
        "evaluate", file, "-r", reference, "--targets", reference, "--json",
        "--cache", tmp_path / "cache",
    )  # fmt: skip
    figures = json.loads(said.out)
    assert figures["match_rate"] == pytest.approx(2 / 3)
    assert figures["match_rate_denominator"] == 3
    assert figures["rmse_denominator"] == 2
    assert figures["samples_per_target"] == 1


def test_coverage_of_a_test_set(
    matloop: Matloop, samples: Path, reference: Path, tmp_path: Path
) -> None:
    """With wide cut-offs all is near but what cannot be read; the composition is one of them."""
    said = matloop(
        "evaluate", samples, "-r", "embedded", "--held-out", reference, "--coverage", "5,1000",
        "--cache", tmp_path / "cache", "--json",
    )  # fmt: skip
    figures = json.loads(said.out)
    assert figures["cov_recall"] == 1.0
    assert figures["cov_recall_denominator"] == figures["held_out_count"] == 3
    assert figures["cov_precision"] == pytest.approx(2 / 3)
    assert figures["cov_precision_denominator"] == 3
    assert figures["cov_composition_cutoff"] == 1000
    assert figures["reference"] == "embedded"


def test_an_interrupted_call_says_how_to_go_on(
    matloop: Matloop,
    samples: Path,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C is exit code 130 and one line, no traceback."""

    def interrupt(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("matloop.evaluators.mlip.relaxation.minimise", interrupt)
    said = matloop(
        "evaluate", samples, "-r", reference, "--relax", "ase", "--cache", tmp_path / "cache"
    )
    assert said.code == 130
    assert "give the same command" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing", "-r", "embedded"], "missing does not exist"),
        (["{samples}", "-r", "missing"], "or the word embedded"),
        (["{samples}", "-r", "{reference}", "--coverage", "mp-21"], "mp-20, perov-5, carbon-24"),
        (["{samples}", "-r", "{reference}", "--relax", "magic"], "'magic' is no model"),
        (["{samples}", "-r", "{reference}", "--relax", "ase", "--model-option", "x"], "KEY=VALUE"),
        (["{samples}", "-r", "{reference}", "--model-option", "a=1"], "needs --relax"),
        (["{samples}", "-r", "{reference}", "--ltol", "0"], "--ltol must be positive"),
        (["{samples}", "-r", "{reference}", "-o", "table.xlsx"], "written as .csv"),
        (["{samples}/broken.cif", "-r", "{reference}"], "nothing can be read"),
        (["{samples}", "-r", "{reference}", "--targets", "{samples}/broken.cif"], "nothing can"),
        (["{samples}", "-r", "{reference}", "--cache", "{reference}"], "cannot be made"),
    ],
)
def test_bad_input_is_one_line(
    matloop: Matloop,
    samples: Path,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    """What is wrong, and what would be right, on one line; exit code 2."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    named = [text.format(samples=samples, reference=reference) for text in arguments]
    said = matloop("evaluate", *named)
    assert said.code == 2
    assert words in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.out == ""
