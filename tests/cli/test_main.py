"""Exit codes and error lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from matloop.cli import campaigns, main

COMMANDS = {"run", "status", "report", "export", "show", "validate", "plugins", "new"}


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    """`matloop --help` lists all commands, and is quick because nothing heavy is imported."""
    done = subprocess.run(
        [sys.executable, "-m", "matloop", "--help"], capture_output=True, text=True, check=True
    )
    assert {word for word in done.stdout.split() if word in COMMANDS} >= COMMANDS
    heavy = "{'torch', 'pymatgen', 'numpy', 'pydantic'}"
    code = f"import sys, matloop.cli; print(sorted({heavy} & sys.modules.keys()))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


def test_version(matloop) -> None:
    """`--version` prints name and version."""
    said = matloop("--version")
    assert said.code == 0
    assert said.out.startswith("matloop 0.")


def test_an_unknown_option_is_a_mistake(matloop) -> None:
    """Wrong usage exits with 2."""
    assert matloop("run", "--nonsense").code == 2
    assert matloop("nonsense").code == 2


def test_mistakes_are_lines_without_a_traceback(matloop, tmp_path: Path) -> None:
    """A wrong campaign file exits with 2 and one line per mistake, as compilers write them."""
    file = tmp_path / "wrong.yaml"
    file.write_text("name: x\nseed: -1\n")
    said = matloop("validate", file)
    assert said.code == 2
    assert said.out == ""
    assert f"{file}:2: seed: must be at least 0, got -1" in said.err
    assert "Traceback" not in said.err


def test_a_bug_is_one_line_and_a_log(
    matloop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception exits with 1, one line, and a log that holds the traceback."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("matloop.campaign_file.load", _broken)
    monkeypatch.delenv("MATLOOP_DEBUG", raising=False)
    said = matloop("validate", "any.yaml")
    assert said.code == 1
    assert "RuntimeError: first line" in said.err
    assert "Traceback" not in said.err
    (log,) = tmp_path.glob("matloop-*.log")
    assert str(log) in said.err
    assert "Traceback" in log.read_text()
    monkeypatch.setenv("MATLOOP_DEBUG", "1")
    assert "Traceback" in matloop("validate", "any.yaml").err


def _broken(path: Path) -> None:
    raise RuntimeError("first line\nsecond line")


def test_new_writes_a_file_that_validates_and_never_overwrites(
    matloop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`matloop new` writes once; its file passes `matloop validate`."""
    monkeypatch.chdir(tmp_path)
    assert matloop("new", "--system", "Al-Ni").code == 0
    file = tmp_path / "al-ni-search.yaml"
    written = file.read_text()
    assert matloop("validate", file).code == 0
    again = matloop("new", "--system", "Al-Ni")
    assert again.code == 2
    assert "is there already" in again.err
    assert file.read_text() == written
    assert matloop("new", "--system", "Al-Qq").code == 2


def test_the_entry_point_is_the_same_function() -> None:
    """`matloop.cli:main`, as pyproject.toml names it, is the command line."""
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="console_scripts", name="matloop")
    assert entry.load() is main
    assert callable(campaigns.new)
