"""What the fireworks of these tests do; importable by a worker as `chores`."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from pymongo.errors import AutoReconnect

from matloop.jobs.walltime import seconds_left
from matloop.jobs.workers import usable_cores


def note(log: str, what: str, name: str) -> None:
    """Append a line about this process; short lines of several writers do not mix."""
    line = {
        "what": what,
        "name": name,
        "time": time.time(),
        "pid": os.getpid(),
        "card": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "cores": usable_cores(),
        "left": seconds_left(),
    }
    with Path(log).open("a") as file:
        file.write(json.dumps(line) + "\n")


def work(log: str, name: str, seconds: float) -> None:
    """Work for a while, and stop early if the time is up, as a shard does after its chunk."""
    note(log, "begin", name)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        left = seconds_left()
        if left is not None and left <= 0:
            note(log, "stopped early", name)
            return
    note(log, "end", name)


def stubborn(log: str, name: str, seconds: float) -> None:
    """Work for a while, whatever the time."""
    note(log, "begin", name)
    time.sleep(seconds)
    note(log, "end", name)


def slow_at_first(log: str, name: str) -> None:
    """Work for ever at the first attempt, whatever the time."""
    first = not Path(log).exists()
    note(log, "begin", name)
    if first:
        time.sleep(300)
    note(log, "end", name)


def deadly(log: str, name: str) -> None:
    """Kill this process at the first attempt, as running out of memory does."""
    first = not Path(log).exists()
    note(log, "begin", name)
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    note(log, "end", name)


def unlucky(log: str, name: str) -> None:
    """Lose the connection to the database at the first attempt, as a restart of it does."""
    first = not Path(log).exists()
    note(log, "begin", name)
    if first:
        raise AutoReconnect("connection closed")
    note(log, "end", name)
