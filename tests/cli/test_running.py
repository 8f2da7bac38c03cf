"""`matloop run`: starting, refusing, resuming, interrupting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CAMPAIGN = Path(__file__).parent / "campaign.yaml"


def test_a_finished_campaign_is_not_started_again(matloop, finished: Path) -> None:
    """Without --resume it is refused with a hint; with it, the results are shown."""
    said = matloop("run", CAMPAIGN, "--dir", finished)
    assert said.code == 2
    assert "has finished" in said.err
    again = matloop("run", CAMPAIGN, "--dir", finished, "--resume")
    assert again.code == 0
    assert "matloop report --dir" in again.out


def test_a_changed_file_is_not_resumed(matloop, finished: Path, tmp_path: Path) -> None:
    """The fields that differ are named with both values."""
    file = tmp_path / "campaign.yaml"
    file.write_text(CAMPAIGN.read_text().replace("max_atoms: 4", "max_atoms: 6"))
    said = matloop("run", file, "--dir", finished, "--resume", "--seed", 4)
    assert said.code == 2
    assert "space.max_atoms: was 4 when this campaign was started, is 6 now" in said.err
    assert "seed: was 3" in said.err


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(matloop, tmp_path: Path) -> None:
    """Ctrl-C exits with 130 and the command that resumes; that command finishes the campaign."""
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "matloop", "run", str(CAMPAIGN), "--dir", str(directory)]
    process = subprocess.Popen(
        [*command, "--iterations", "8"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
        # Shells let what they start in the background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stderr is not None
    seen = ""
    while "validity" not in seen:
        seen = process.stderr.readline()
        assert seen, "the run ended before its first stage"
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - started < 60
    assert "Traceback" not in rest
    line = next(line for line in rest.splitlines() if "--resume" in line)
    assert line.split()[:2] == ["matloop", "run"]
    assert line.split()[2:] == [
        str(CAMPAIGN), "--dir", str(directory), "--iterations", "8", "--resume",
    ]  # fmt: skip
    again = ["run", CAMPAIGN, "--dir", directory, "--iterations", 8]
    refused = matloop(*again)
    assert refused.code == 2
    assert "--resume" in refused.err
    assert matloop(*again, "--resume").code == 0
    state = json.loads(matloop("status", "--dir", directory, "--json").out)
    assert state["status"] == "finished"
    assert len(state["iterations"]) == 8


def test_a_wrong_folder_is_a_mistake(matloop, tmp_path: Path) -> None:
    """A path that is a file cannot hold a run."""
    (tmp_path / "file").write_text("")
    assert matloop("run", CAMPAIGN, "--dir", tmp_path / "file" / "run").code == 2
