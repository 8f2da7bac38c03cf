"""A worker: the process inside a batch job that starts rocket processes and outlives them.

This process imports little and does little, so that it is there when a rocket process is not.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from matloop.errors import ConfigurationError
from matloop.jobs.walltime import DEADLINE, seconds_left
from matloop.launch.rocket import AWAY, DONE, LostRun

if TYPE_CHECKING:
    from fireworks import LaunchPad

VISIBLE = "CUDA_VISIBLE_DEVICES"
RESTARTS = 5
"""How often a worker replaces rocket processes that died, in all."""

_LONGEST_MARGIN, _SHORTEST_MARGIN, _MARGIN_SHARE = 300.0, 30.0, 0.1
_POLL = 0.2
_KILL_WAIT = 30.0  # SLURM's own default, for workers that run outside of it

_log = logging.getLogger("matloop.worker")


@dataclass(frozen=True)
class Orders:
    """What a worker is to do.

    Attributes
    ----------
    site
        The site file.
    kind
        Kind of worker.
    directory
        Where the rocket processes work.
    gpus
        Rocket processes, one GPU each; 0 for one without.
    cores
        Cores all of them share.
    idle_seconds
        Time without work after which a rocket process ends (s).
    margin
        Walltime below which no firework is begun (s).
    restarts
        How often rocket processes that died are replaced, in all.
    """

    site: Path
    kind: str
    directory: Path
    gpus: int = 0
    cores: int = 1
    idle_seconds: float = 60.0
    margin: float = 30.0
    restarts: int = RESTARTS


def usual_margin(walltime: float) -> float:
    """Return the walltime below which nothing is begun: a tenth, but 30 to 300 s."""
    return min(_LONGEST_MARGIN, max(_SHORTEST_MARGIN, _MARGIN_SHARE * walltime))


def worker_name(kind: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the name under which launches are recorded: ``KIND@JOB``, or ``KIND@HOST:PID``."""
    job_id = environment.get("SLURM_JOB_ID")
    return f"{kind}@{job_id or f'{socket.gethostname()}:{os.getpid()}'}"


def cards(gpus: int, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the GPUs of this job, as many as the kind has at most; each stands there once.

    Parameters
    ----------
    gpus
        GPUs the kind of worker has on a node.
    environment
        ``CUDA_VISIBLE_DEVICES`` says it, else ``SLURM_JOB_GPUS``, else they are numbered from 0.

    Raises
    ------
    ConfigurationError
        If the job was given fewer.
    """
    told = environment.get(VISIBLE)
    if told is None:
        told = environment.get("SLURM_JOB_GPUS") or ",".join(str(card) for card in range(gpus))
    found: dict[str, None] = {}
    for part in filter(None, told.split(",")):
        span = re.fullmatch(r"(\d+)-(\d+)", part)
        numbers = range(int(span[1]), int(span[2]) + 1) if span else [part.strip()]
        found |= dict.fromkeys(str(number) for number in numbers)
    found.pop("NoDevFiles", None)  # SLURM's word for none
    if len(found) < gpus:
        raise ConfigurationError(
            f"this kind of worker has {gpus} GPUs, but its job was given {len(found)} ({told!r}): "
            "correct `gpus` in the site file, or what the job asks SLURM for"
        )
    return list(found)[:gpus]


@dataclass
class Worker:
    """Rocket processes and their supervisor.

    Attributes
    ----------
    orders
        What to do.
    launchpad
        Opens the LaunchPad; called only when a rocket process has died.
    lost
        Told each firework that died with its process.
    """

    orders: Orders
    launchpad: Callable[[], LaunchPad]
    lost: LostRun
    name: str = ""
    _rockets: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stopping: bool = False
    _kill_at: float = math.inf
    _deadline: float | None = None

    def run(self) -> int:
        """Work until every rocket process has ended, and return the exit code.

        0 if all ended because there was nothing to do or no time; 75 if the database stayed
        away; 1 if rocket processes died too often.
        """
        self.name = self.name or worker_name(self.orders.kind)
        left = seconds_left()
        self._deadline = None if left is None else time.time() + left
        slots: list[str | None] = [*cards(self.orders.gpus)] or [None]
        signal.signal(signal.SIGTERM, self._hear)
        signal.signal(signal.SIGINT, self._hear)
        if int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0:
            self._recover(None, "SLURM started its job again")
        for slot in range(len(slots)):
            self._start(slot, slots)
        code, restarts = DONE, 0
        while self._rockets:
            time.sleep(_POLL)
            if time.monotonic() > self._kill_at:
                self._signal(signal.SIGKILL)
            for slot, returned in self._ended():
                if returned == DONE:
                    continue
                if returned == AWAY:
                    code = AWAY
                    continue
                reason = _how(returned)
                _log.warning("rocket %d of %s %s", slot, self.name, reason)
                self._recover(slot, f"its process {reason}")
                if self._stopping:
                    continue
                if restarts >= self.orders.restarts:
                    _log.error("rocket processes died %d times; none is started", restarts + 1)
                    code = 1
                    continue
                time.sleep(min(2.0**restarts - 1, 30.0))
                restarts += 1
                if not self._stopping:
                    self._start(slot, slots)
        return code

    def _start(self, slot: int, slots: list[str | None]) -> None:
        environment = dict(os.environ)
        if self._deadline is not None:
            environment[DEADLINE] = str(self._deadline)
        if (card := slots[slot]) is not None:
            environment[VISIBLE] = card
        if len(slots) > 1:
            environment["MATLOOP_CORES"] = str(max(1, self.orders.cores // len(slots)))
        directory = self.orders.directory / f"rocket-{slot}"
        directory.mkdir(parents=True, exist_ok=True)
        words: dict[str, object] = {
            "site": self.orders.site,
            "name": self.name,
            "kind": self.orders.kind,
            "slot": slot,
            "directory": directory,
            "idle-seconds": self.orders.idle_seconds,
            "margin": self.orders.margin,
        }
        command = [sys.executable, "-m", "matloop.launch.rocket"]
        command += [f"--{word}={value}" for word, value in words.items()]
        self._rockets[slot] = subprocess.Popen(command, env=environment, cwd=directory)
        _log.info("rocket %d of %s is process %d", slot, self.name, self._rockets[slot].pid)

    def _ended(self) -> list[tuple[int, int]]:
        ended = [(slot, rocket.poll()) for slot, rocket in self._rockets.items()]
        for slot, returned in ended:
            if returned is not None:
                del self._rockets[slot]
        return [(slot, returned) for slot, returned in ended if returned is not None]

    def _recover(self, slot: int | None, reason: str) -> None:
        """Have what ran under this name run again; this must not end the worker."""
        query: dict[str, Any] = {"state": "RUNNING", "fworker.name": self.name}
        if slot is not None:
            query["fworker.env.slot"] = slot
        try:
            launchpad = self.launchpad()
            launches = list(launchpad.launches.find(query, {"launch_id": 1, "fw_id": 1}))
            for launch in launches:
                self.lost(launchpad, launch["fw_id"], launch["launch_id"], reason)
                _log.info("firework %d runs again", launch["fw_id"])
        except Exception as error:
            _log.error("left for `matloop heal`: %s: %s", type(error).__name__, error)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if not os.environ.get("SLURM_JOB_ID") and not self._stopping:
            self._kill_at = time.monotonic() + _KILL_WAIT  # SLURM does so itself
        elif number == signal.SIGINT and self._stopping:  # asked twice: at once
            self._kill_at = time.monotonic()
        self._stopping = True
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for rocket in list(self._rockets.values()):
            if rocket.poll() is None:
                rocket.send_signal(number)


def _how(returned: int) -> str:
    if returned < 0:
        return f"was ended by {signal.Signals(-returned).name}"
    return f"ended with exit status {returned}"
