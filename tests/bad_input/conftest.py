"""What every test of bad input needs: the command, a sound campaign, and one that has ended."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from matloop.cli import main

SOUND = """\
name: copper-gold
seed: 3
space: {system: Cu-Au, max_atoms: 4}
objective:
  minimize: e_above_hull
generators:
  - random_symmetric
stages:
  - name: validity
    evaluate: [minimum_distance, cell]
  - name: relaxation
    evaluate:
      - use: relaxation
        with: {model: ase, max_steps: 60}
  - name: stability
    evaluate: [symmetry, hull_distance]
feedback: off
budget: {iterations: 1, candidates: 6}
"""


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    def refuses(self, *lines: str) -> None:
        """Check that it ended as a user's mistake, with these lines and nothing else."""
        assert self.err.splitlines() == list(lines)
        assert (self.code, self.out) == (2, "")


Matloop = Callable[..., Said]


def matloop_here(*arguments: object) -> Said:
    """Run `matloop` in this process."""
    logger = logging.getLogger("matloop")
    level, handlers = logger.level, list(logger.handlers)
    out, err = StringIO(), StringIO()
    code = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["matloop", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    logger.level, logger.handlers = level, handlers
    assert "Traceback" not in out.getvalue() + err.getvalue()
    assert "unexpected error" not in err.getvalue()
    return Said(code, out.getvalue(), err.getvalue())


@pytest.fixture
def matloop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Matloop:
    """Return the command, working in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return matloop_here


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """Return the file of a sound campaign."""
    file = tmp_path / "campaign.yaml"
    file.write_text(SOUND)
    return file


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the sound campaign, run to its end; not to be changed."""
    directory = tmp_path_factory.mktemp("bad_input")
    file = directory / "campaign.yaml"
    file.write_text(SOUND)
    assert matloop_here("run", file, "--dir", directory / "run").code == 0
    return directory / "run"


@contextmanager
def untouched(directory: Path) -> Iterator[None]:
    """Check that no file below a folder appears, changes or goes."""
    before = contents(directory)
    yield
    assert contents(directory) == before


def contents(directory: Path) -> dict[str, bytes | None]:
    """Return everything below a folder; folders hold nothing themselves.

    SQLite's shared memory is left out, and its log where it is empty: readers make them.
    """
    found = {}
    for path in sorted(directory.rglob("*")):
        content = path.read_bytes() if path.is_file() else None
        if path.name.endswith("-shm") or (path.name.endswith("-wal") and not content):
            continue
        found[str(path.relative_to(directory))] = content
    return found
