"""`matloop train`, `sample` and `card`: from a table of crystals to files of new ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner, Result

from matloop.cli.main import app
from matloop.errors import ConfigurationError
from matloop.structures.reading import read_structures

CONFIG = """\
architecture: {width: 32, depth: 1, heads: 4, dropout: 0.0, components: 4}
training: {batch_size: 8, learning_rate: 0.005, warmup: 5}
"""
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a table of rock salts, and a model trained on it."""
    folder = tmp_path_factory.mktemp("learning")
    rows = []
    for cation, anion, edge in [("Mg", "O", 4.2), ("Ca", "O", 4.8), ("Na", "Cl", 5.6)] * 8:
        places = [[0, 0, 0], [0.5, 0.5, 0.5]]
        edge_ = edge * (1 + 0.001 * len(rows))
        crystal = Structure.from_spacegroup(225, Lattice.cubic(edge_), [cation, anion], places)
        rows.append({"name": f"c{len(rows)}", "cif": crystal.to(fmt="cif"), "gap": float(edge)})
    pd.DataFrame(rows).to_csv(folder / "crystals.csv", index=False)
    (folder / "config.yaml").write_text(CONFIG)
    command = ["train", "wyckoff_transformer", "--data", str(folder / "crystals.csv"), "-p", "gap"]
    command += ["-c", str(folder / "config.yaml"), "-o", str(folder / "m.safetensors")]
    result = CliRunner().invoke(app, [*command, "--epochs", "12", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize("name", ["out.zip", "out.json", "out.csv", "out.extxyz", "out"])
def test_a_sample_in_any_format_is_read_again(folder: Path, name: str) -> None:
    """Crystals of the asked system come out, in every format that `matloop` itself reads."""
    target = folder / name
    command = ["sample", str(folder / "m.safetensors"), "-n", "4", "--system", "Mg-O"]
    result = CliRunner().invoke(app, [*command, "--condition", "gap=4.2", "-o", str(target)])
    assert result.exit_code == 0, result.output
    found = read_structures([target])
    assert not found.set_aside
    assert found.crystals
    assert all(set(one.structure.symbol_set) == {"Mg", "O"} for one in found.crystals)


def test_a_card_says_what_was_trained(folder: Path) -> None:
    """Data, its hash, sizes and losses with denominators stand in the model file itself."""
    result = CliRunner().invoke(app, ["card", str(folder / "m.safetensors"), "--json"])
    card = json.loads(result.output)
    assert card["data"] == "crystals.csv"
    assert card["n_train"] + card["n_validation"] == 24
    assert card["properties"] == ["gap"]
    assert card["metrics"]["validation_loss"]["denominator"] == card["n_validation"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nonsense", "--data", "{table}"], "registered are"),
        (["train", "wyckoff_transformer", "--data", "missing.csv"], "does not exist"),
        (["train", "wyckoff_transformer", "--data", "{table}", "-p", "foo"], "no property 'foo'"),
        (["train", "wyckoff_transformer", "--data", "{table}", "-o", "m.pt"], "safetensors"),
        (["train", "wyckoff_transformer", "--data", "{table}", "--device", "tpu0"], "none of"),
        (["sample", "missing.safetensors"], "no model file"),
        (["sample", "{table}"], "no model that"),
        (["sample", "{model}", "--formula", "Qq2"], "Qq"),
        (["sample", "{model}", "--penalty", "density"], "write NAME=VALUE, as in density=5.2"),
        (["sample", "{model}", "--penalty", "mass=2"], "no penalty is called 'mass'"),
        (["sample", "{model}", "--system", "Mg-O", "--formula", "MgO"], "give one of"),
        (["sample", "{model}", "--system", "Mg-Xe"], "never seen Xe"),
        (["sample", "{model}", "--condition", "foo=1"], "no property 'foo'"),
        (["sample", "{model}", "--condition", "gap"], "NAME=VALUE"),
        (["sample", "{model}", "-o", "out.pdb"], "samples are written as"),
    ],
)
def test_mistakes_are_one_line(folder: Path, arguments: list[str], message: str) -> None:
    """What is wrong and what would be right, and no file is left behind."""
    names = {"table": folder / "crystals.csv", "model": folder / "m.safetensors"}
    result = CliRunner().invoke(app, [one.format(**names) for one in arguments])
    assert isinstance(result.exception, ConfigurationError)
    assert message in str(result.exception)
    assert len(str(result.exception).splitlines()) == 1


def test_a_damaged_model_is_refused(folder: Path, tmp_path: Path) -> None:
    """Half a file is no model."""
    damaged = tmp_path / "half.safetensors"
    content = (folder / "m.safetensors").read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    result = CliRunner().invoke(app, ["sample", str(damaged)])
    assert isinstance(result.exception, ConfigurationError)
