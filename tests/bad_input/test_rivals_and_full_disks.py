"""Two processes on one campaign, and a disk that fills up: nothing recorded is lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matloop.ledger.opening import read_ledger

from .conftest import SOUND, Matloop

NAME = "copper-gold"


def test_of_two_processes_at_once_one_is_refused_and_the_other_ends(
    matloop: Matloop, campaign: Path
) -> None:
    """The second is told which process runs the campaign; the first finishes it, undisturbed."""
    campaign.write_text(
        SOUND.replace("iterations: 1, candidates: 6", "iterations: 3, candidates: 16")
    )
    command = [sys.executable, "-m", "matloop", "run", str(campaign), "--dir", "run"]
    rivals = [
        subprocess.Popen(
            command,
            cwd=campaign.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]
    complaints = {rival: rival.communicate()[1] for rival in rivals}
    first, second = sorted(rivals, key=lambda rival: rival.returncode)
    assert (first.returncode, second.returncode) == (0, 1), complaints
    (line,) = complaints[second].splitlines()
    assert re.fullmatch(
        rf"error: process {first.pid} on \S+ \(since \S+\) is running campaign '{NAME}'; "
        r"wait until it ends, or stop it",
        line,
    )
    state = json.loads(matloop("status", "--dir", "run", "--json").out)
    assert (state["status"], len(state["iterations"])) == ("finished", 3)
    for turn in state["iterations"]:
        for stage in turn["stages"]:
            outcomes = ("passed", "rejected", "failed", "held")
            assert stage["entered"] == sum(stage[outcome] for outcome in outcomes)
            assert stage["pending"] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system with room for the beginning of a campaign."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1000k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_ends_a_run_and_freeing_space_continues_it(
    matloop: Matloop, campaign: Path, finished: Path, small_disk: Path
) -> None:
    """The error says what to do; what was recorded stays, and the end is that of a calm run."""
    run = small_disk / "run"
    said = matloop("run", campaign, "--dir", run)
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith(f"error: cannot write to {run}/ledger.sqlite")
    assert said.err.splitlines()[-1].endswith(
        "free space on the disk, or raise the quota, and run again; everything recorded before "
        "is intact"
    )
    recorded = verdicts(run)
    assert recorded, "the disk was full before anything was recorded"
    assert matloop("status", "--dir", run).code == 0

    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert matloop("run", campaign, "--dir", run, "--resume").code == 0
    ended = verdicts(run)
    assert recorded.items() <= ended.items()
    assert ended.keys() == verdicts(finished).keys()


def verdicts(run: Path) -> dict[str, str]:
    """Return what a ledger says of each candidate at each stage."""
    ledger = read_ledger(run)
    try:
        return {
            f"{decision.candidate_id} {decision.stage}": decision.reason
            for decision in ledger.decisions(NAME)
        } | {record.candidate.candidate_id: "proposed" for record in ledger.candidates(NAME)}
    finally:
        ledger.close()
