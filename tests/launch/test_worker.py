"""The supervisor of rocket processes, without a cluster."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from matloop.errors import ConfigurationError
from matloop.launch.worker import Orders, Worker, cards, usual_margin, worker_name


@pytest.mark.parametrize(
    ("gpus", "environment", "expected"),
    [
        (0, {}, []),
        (2, {}, ["0", "1"]),
        (2, {"CUDA_VISIBLE_DEVICES": "3,1"}, ["3", "1"]),
        (2, {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_GPUS": "2,3"}, ["0", "1"]),
        (4, {"SLURM_JOB_GPUS": "0-2,5"}, ["0", "1", "2", "5"]),
        (1, {"CUDA_VISIBLE_DEVICES": "4,5"}, ["4"]),
        (2, {"CUDA_VISIBLE_DEVICES": "GPU-8932f937,MIG-1-2"}, ["GPU-8932f937", "MIG-1-2"]),
    ],
)
def test_every_process_has_a_card_of_its_own(
    gpus: int, environment: dict[str, str], expected: list[str]
) -> None:
    """What the job may see comes first, then what SLURM gave it, then the first of the node."""
    assert cards(gpus, environment) == expected


@pytest.mark.parametrize("told", ["", "0", "0,0", "NoDevFiles"])
def test_too_few_cards_are_refused(told: str) -> None:
    """Two processes on one card, or on none, is a mistake of the site file and said so."""
    with pytest.raises(ConfigurationError, match="2 GPUs, but its job was given"):
        cards(2, {"CUDA_VISIBLE_DEVICES": told})


def test_the_name_of_a_worker_finds_its_job() -> None:
    """Launches carry kind and SLURM job; outside of SLURM, host and process."""
    assert worker_name("gpu", {"SLURM_JOB_ID": "12"}) == "gpu@12"
    assert worker_name("gpu", {}) == f"gpu@{socket.gethostname()}:{os.getpid()}"


def test_margin_grows_with_walltime_between_limits() -> None:
    """A tenth of the walltime is kept free, at least half a minute and at most five."""
    assert [usual_margin(seconds) for seconds in (60, 600, 86400)] == [30, 60, 300]


def test_processes_that_cannot_live_are_not_replaced_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that dies at once is replaced as often as ordered; then the worker fails."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    absent = tmp_path / "no-site.yaml"
    orders = Orders(absent, "cpu", tmp_path, restarts=1)

    class NoLaunchPadError(Exception):
        pass

    def launchpad() -> None:
        raise NoLaunchPadError

    worker = Worker(orders, launchpad, lambda *_: pytest.fail("nothing ran"), name="cpu@1")
    assert worker.run() == 1
    assert "rocket processes died 2 times" in caplog.text
    assert "left for `matloop heal`: NoLaunchPadError" in caplog.text
