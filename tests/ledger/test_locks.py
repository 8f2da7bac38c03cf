"""A campaign has one owner, and a dead owner holds nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys

import pytest

from matloop.errors import LedgerLockedError
from matloop.ledger.locks import CampaignLocks

OWNER = """
import sys, time, pathlib, os
from matloop.ledger.locks import CampaignLocks
with CampaignLocks(pathlib.Path(sys.argv[1])).hold("mgo"):
    if sys.argv[2] == "fork" and os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(60)
        os._exit(0)
    os.write(1, b"held\\n")
    time.sleep(60)
"""


def test_the_second_owner_is_refused_and_told_who_has_it(tmp_path):
    """Another process is named with its id and host; when it is killed, the lock is free."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), "alone"], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout.readline() == "held\n"
    locks = CampaignLocks(tmp_path)
    with (
        pytest.raises(LedgerLockedError, match=f"process {owner.pid} on {socket.gethostname()}"),
        locks.hold("mgo"),
    ):
        pytest.fail("two owners")
    with locks.hold("other/campaign"):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with locks.hold("mgo"):
        pass


def test_one_process_cannot_hold_it_twice(tmp_path):
    """A second hold in the same process is refused, and does not break the first."""
    locks = CampaignLocks(tmp_path)
    with locks.hold("mgo"):
        for _ in range(2):
            with pytest.raises(LedgerLockedError, match=str(os.getpid())), locks.hold("mgo"):
                pytest.fail("two owners")
    with locks.hold("mgo"):
        pass


def test_children_do_not_keep_a_dead_owners_lock(tmp_path):
    """A forked worker that outlives its killed parent does not block the next run."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), "fork"], stdout=subprocess.PIPE, text=True
    )
    lines = sorted(owner.stdout.readline().strip() for _ in range(2))
    child = int(lines[0])
    try:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        os.kill(child, 0)  # it lives
        with CampaignLocks(tmp_path).hold("mgo"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def _do_nothing():
    pass


def test_a_child_that_ends_does_not_free_the_lock(tmp_path):
    """The owner keeps the lock when a forked worker comes and goes."""
    locks = CampaignLocks(tmp_path)
    with locks.hold("mgo"):
        child = multiprocessing.get_context("fork").Process(target=_do_nothing)
        child.start()
        child.join()
        with pytest.raises(LedgerLockedError), locks.hold("mgo"):
            pytest.fail("two owners")
