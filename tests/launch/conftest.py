"""A campaign that takes seconds, run once to its end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from matloop.testing.mongodb.process import ServerProcess

if TYPE_CHECKING:
    from .lab import Lab

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


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run a test database for all labs."""
    with ServerProcess(tmp_path_factory.mktemp("database") / "journal") as server:
        yield server


@pytest.fixture
def lab(database: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Return a site with an empty database, and a SLURM that says what the test tells it."""
    pytest.importorskip("fireworks")
    from matloop.jobs.place import close_ledgers
    from matloop.launch import slurm, transitions, wreckage

    from .lab import make_lab

    lab = make_lab(database.uri, f"lab_{uuid4().hex[:12]}", tmp_path)

    def job_states(job_ids: set[str]) -> dict[str, slurm.JobState]:
        unknown = {name: slurm.JobState(name, slurm.GONE, alive=False) for name in job_ids}
        return {name: lab.slurm.get(name, state) for name, state in unknown.items()}

    monkeypatch.setattr(slurm, "job_states", job_states)
    monkeypatch.setattr(slurm, "cluster", lambda: "")
    # Nothing else lives in this database, so that what stands still for a second is left behind.
    monkeypatch.setattr(wreckage.wrecks, "__defaults__", (1.0,))
    monkeypatch.setattr(transitions, "LOCK_SECONDS", 1.0)
    yield lab
    close_ledgers()
    lab.ledger.close()
