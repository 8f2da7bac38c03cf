"""Leases: one holder, wherever it runs, and none after its death."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from matloop.errors import LedgerLockedError
from matloop.ledger.leases import COLLECTION, LeaseLocks
from matloop.ledger.server import Server
from matloop.testing.mongodb.process import ServerProcess

pytestmark = pytest.mark.mongo

HOLD = """
import sys, time
from matloop.ledger.leases import LeaseLocks
from matloop.ledger.server import Server
with LeaseLocks(Server(database=sys.argv[1]), seconds=float(sys.argv[2])).hold("mgo"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def server(on_server) -> Server:
    return on_server.server()


def holder(server: Server, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, server.database, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_one_holder_at_a_time(server):
    """Refused while it is held, also in the same process; free afterwards; names are apart."""
    locks = LeaseLocks(server)
    with locks.hold("mgo"):
        refusal = f"process {os.getpid()} on "
        with pytest.raises(LedgerLockedError, match=refusal), locks.hold("mgo"):
            pass
        with locks.hold("tick"):
            pass
    with locks.hold("mgo"):
        pass


def test_a_lease_dies_with_its_owner(server):
    """Held by a living process for longer than its time to live; free soon after kill -9."""
    process = holder(server, 1.0)
    try:
        locks = LeaseLocks(server, seconds=1.0)
        for _ in range(8):  # 2 s: the lease has been renewed meanwhile
            refusal = f"process {process.pid} on "
            with pytest.raises(LedgerLockedError, match=refusal), locks.hold("mgo"):
                pass
            time.sleep(0.25)
        process.send_signal(signal.SIGKILL)
        process.wait()
        died = time.monotonic()
        while True:
            with suppress(LedgerLockedError), locks.hold("mgo"):
                break
            time.sleep(0.05)
        assert time.monotonic() - died < 2.0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_of_many_only_one_gets_it(server):
    """Sixteen at the same instant, over a lease that has run out: one enters at a time."""
    database = server.connect()
    inside: list[int] = []
    most: list[int] = []

    def enter(number: int) -> bool:
        try:
            with LeaseLocks(server).hold("tick"):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.5)
                inside.remove(number)
                return True
        except LedgerLockedError:
            return False

    long_ago = database.command("hello")["localTime"].replace(year=2000)
    database[COLLECTION].insert_one({"_id": "tick", "token": "dead", "ends": long_ago})
    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(enter, range(16))) == 1
    assert most == [1]


def test_who_lost_a_lease_does_not_free_it(server, caplog):
    """A lease that another has taken over stays the other's, and the loser is told."""
    database = server.connect()
    with caplog.at_level(logging.WARNING), LeaseLocks(server, seconds=0.4).hold("mgo"):
        database[COLLECTION].update_one({"_id": "mgo"}, {"$set": {"token": "another"}})
        time.sleep(0.4)
    assert database[COLLECTION].find_one({"_id": "mgo"})["token"] == "another"
    assert "taken by another" in caplog.text


def test_a_lease_outlasts_a_restart_of_the_server(tmp_path, monkeypatch):
    """The server dies and comes back within the time to live: the holder still holds."""
    with ServerProcess(tmp_path / "journal") as process:
        monkeypatch.setenv("MATLOOP_MONGODB_URI", process.uri)
        server = Server(patience_seconds=20)
        locks = LeaseLocks(server, seconds=4.0)
        with locks.hold("mgo"):
            process.kill()
            process.start()
            time.sleep(2.0)
            with pytest.raises(LedgerLockedError), locks.hold("mgo"):
                pass
        with locks.hold("mgo"):
            pass
