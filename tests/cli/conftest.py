"""The command line in this process, and a campaign that it ran to its end."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from matloop.cli import main

CAMPAIGN = Path(__file__).parent / "campaign.yaml"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Matloop = Callable[..., Said]


@pytest.fixture
def matloop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Matloop:
    """Return a function that runs `matloop` with arguments."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["matloop", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a campaign that `matloop run` brought to its end."""
    directory = tmp_path_factory.mktemp("finished")
    command = [sys.executable, "-m", "matloop", "run", str(CAMPAIGN), "--dir", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    return directory


@pytest.fixture(autouse=True)
def _restored_loggers() -> Iterator[None]:
    logger = logging.getLogger("matloop")
    before = logger.level, list(logger.handlers)
    yield
    logger.level, logger.handlers = before[0], before[1]
