"""A LaunchPad whose server is killed and comes back: nothing fails, nothing is done twice."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fireworks")

from fireworks import Firework, FWAction, FWorker, PyTask
from pymongo.errors import AutoReconnect, ConnectionFailure

from matloop.launch.patience import PatientLaunchPad, waiting

pytestmark = pytest.mark.mongo


class Server:
    """The test database, which keeps its port and its journal over its deaths."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "matloop.testing.mongodb_server"]
        self._command = [*command, "--port", str(self.port), "--journal", str(folder / "journal")]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart_after(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self.start)
        timer.start()
        return timer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def launchpad(server: Server) -> PatientLaunchPad:
    settings = {"host": f"mongodb://127.0.0.1:{server.port}", "name": "fw", "uri_mode": True}
    patient = PatientLaunchPad({**settings, "strm_lvl": "CRITICAL"}, patience=20)
    patient.reset("", require_password=False)
    patient.add_wf(Firework(PyTask(func="time.time"), spec={"_category": "cpu"}))
    return patient


def test_a_result_survives_the_death_of_the_database(
    server: Server, launchpad: PatientLaunchPad
) -> None:
    """A launch completed while the server is away is COMPLETED, with its data, when it is back."""
    firework, launch_id = launchpad.checkout_fw(FWorker(category="cpu"), "/")
    assert launchpad.running == (firework.fw_id, launch_id)
    server.kill()
    timer = server.restart_after(1.0)
    launchpad.complete_launch(launch_id, FWAction(stored_data={"answer": 42}))
    timer.join()
    assert launchpad.get_fw_by_id(firework.fw_id).state == "COMPLETED"
    assert launchpad.get_launch_by_id(launch_id).action.stored_data == {"answer": 42}


def test_looking_for_work_waits(server: Server, launchpad: PatientLaunchPad) -> None:
    """A worker that looks for work while the server is away finds it afterwards."""
    server.kill()
    timer = server.restart_after(1.0)
    assert launchpad.run_exists(FWorker(category="cpu"))
    timer.join()
    server.kill()
    timer = server.restart_after(1.0)
    firework, _ = launchpad.checkout_fw(FWorker(category="cpu"), "/")
    timer.join()
    assert launchpad.get_fw_by_id(firework.fw_id).state == "RUNNING"
    assert launchpad.launches.count_documents({}) == 1


def test_a_heartbeat_may_be_missed(server: Server) -> None:
    """A heartbeat that cannot be sent does not raise, where it would end all later ones."""
    settings = {"host": f"mongodb://127.0.0.1:{server.port}", "name": "fw", "uri_mode": True}
    hasty = PatientLaunchPad({**settings, "strm_lvl": "CRITICAL"}, patience=0.5)
    server.kill()
    try:
        hasty.ping_launch(1)
    finally:
        server.start()


@pytest.mark.parametrize(
    ("stack", "blamed"),
    [
        ("Traceback ...\npymongo.errors.AutoReconnect: 127.0.0.1:27017: connection closed", True),
        ("Traceback ...\npymongo.errors.ServerSelectionTimeoutError: refused", True),
        ("Traceback ...\npymongo.errors.DuplicateKeyError: E11000", False),
        ("Traceback ...\nValueError: pymongo.errors.AutoReconnect", False),
        ("", False),
    ],
)
def test_who_is_to_blame(launchpad: PatientLaunchPad, stack: str, blamed: bool) -> None:
    """A job that lost the database is told from one that failed by itself."""
    _, launch_id = launchpad.checkout_fw(FWorker(category="cpu"), "/")
    action = FWAction(stored_data={"_exception": {"_stacktrace": stack}}, exit=True)
    launchpad.complete_launch(launch_id, action, "FIZZLED")
    assert launchpad.failed_by_database is blamed


def test_patience_ends() -> None:
    """A database that stays away raises in the end; other errors raise at once."""
    calls = []

    def away() -> None:
        calls.append(time.monotonic())
        raise AutoReconnect("gone")

    with pytest.raises(ConnectionFailure):
        waiting(away, patience=1.0)
    assert len(calls) >= 3
    assert calls[-1] - calls[0] <= 1.0
    with pytest.raises(ZeroDivisionError):
        waiting(lambda: 1 // 0, patience=1.0)
