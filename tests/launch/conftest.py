"""A campaign that takes seconds, run once to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parent / "emt.yaml"


@pytest.fixture(scope="session")
def undisturbed(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Return the folder of a campaign that ran to its end, and the log of what it paid for."""
    directory = tmp_path_factory.mktemp("undisturbed")
    log = directory / "paid"
    command = [sys.executable, "-m", "matloop", "run", str(CAMPAIGN), "--dir", str(directory)]
    subprocess.run(command, env={**environment, "COUNTED_RELAXATION_LOG": str(log)}, check=True)
    return directory, log
