"""Kill anything, lose nothing (P1): `kill -9` at random instants changes nothing but the time."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import CAMPAIGN
from .contents import contents

KILLS = 10
CHUNK = 4  # of the relaxation stage in emt.yaml


@pytest.mark.slow
def test_ten_kills_change_nothing(
    environment: dict[str, str], undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    """After ten kills the ledger equals the undisturbed one; only chunks in flight cost twice."""
    rng = random.Random(20)
    log = tmp_path / "paid"
    env = {**environment, "COUNTED_RELAXATION_LOG": str(log)}
    command = [sys.executable, "-m", "matloop", "run", str(CAMPAIGN), "--dir", str(tmp_path)]
    command.append("--resume")
    killed = at_work = 0
    while killed < KILLS:
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        before = _paid(log)
        if killed % 2:
            # Every other kill strikes while relaxations are under way, and after a whole chunk: the
            # others may all fall on one chunk, and eight deaths over it would be held against it.
            end = time.monotonic() + 60
            enough = before + CHUNK + 1
            while _paid(log) < enough and process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.5))
        else:
            time.sleep(rng.uniform(0.2, 8.0))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        at_work += _paid(log) > before
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    assert killed >= 5, "the campaign ended before it could be killed"
    assert at_work >= 2
    expected, found = contents(undisturbed[0]), contents(tmp_path)
    for part in expected:
        assert found[part] == expected[part], f"{part} differ after {killed} kills"
    repeated = _paid(log) - _paid(undisturbed[1])
    assert 0 <= repeated <= CHUNK * killed


def _paid(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0
