"""A rocket process: runs the fireworks of one kind one after another, and so keeps models warm.

Started by the supervisor in `matloop.launch.worker`, one per GPU.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from matloop.jobs.walltime import DEADLINE, seconds_left

if TYPE_CHECKING:
    from fireworks import LaunchPad
    from fireworks.core.fworker import FWorker

    from matloop.launch.patience import PatientLaunchPad

DONE, AWAY = 0, 75
"""Exit codes: nothing more to do; the database stayed away (``EX_TEMPFAIL``)."""

_SHORTEST_POLL, _LONGEST_POLL = 0.5, 5.0

_log = logging.getLogger("matloop.worker")


class LostRun(Protocol):
    """What is done with a firework whose process died; `matloop.launch.recovery.lost` does it."""

    def __call__(self, launchpad: LaunchPad, fw_id: int, launch_id: int, reason: str, /) -> object:
        """End the launch and let the firework run again, unless it has done so too often."""
        ...


@dataclass(frozen=True)
class Rocket:
    """One rocket process.

    Attributes
    ----------
    name
        Name of the worker, ``KIND@JOB``: what launches are found by.
    kind
        Category of the fireworks it takes.
    slot
        Which of the worker's rocket processes this is, from 0.
    directory
        Folder in which every firework gets a folder of its own.
    idle_seconds
        Time without work after which it ends (s).
    margin
        Walltime below which no work is begun (s).
    """

    name: str
    kind: str
    slot: int
    directory: Path
    idle_seconds: float = 60.0
    margin: float = 30.0

    def fworker(self) -> FWorker:
        """Return how FireWorks knows this process; job, slot and cluster tell it from others."""
        from fireworks.core.fworker import FWorker

        cluster = os.environ.get("SLURM_CLUSTER_NAME", "")
        env = {"slot": self.slot, "cluster": cluster}
        return FWorker(name=self.name, category=self.kind, env=env)

    def run(self, launchpad: PatientLaunchPad, lost: LostRun) -> str:
        """Run fireworks until there are none for a while, or no time for them, or a signal came.

        Returns
        -------
        str
            Why it ended.
        """
        stop = _Stop.listen()
        fworker = self.fworker()
        idle_since, pause = time.monotonic(), _SHORTEST_POLL
        while not stop.asked:
            left = seconds_left()
            if left is not None and left < self.margin:
                return f"{left:.0f} s of walltime are left"
            if launchpad.run_exists(fworker) and not stop.asked:
                if self._launch(launchpad, fworker, lost):
                    idle_since, pause = time.monotonic(), _SHORTEST_POLL
                    continue
            elif time.monotonic() - idle_since > self.idle_seconds and not self._company(launchpad):
                return f"no work for {self.idle_seconds:.0f} s"
            stop.wait(pause)
            pause = min(1.5 * pause, _LONGEST_POLL, max(self.idle_seconds, _SHORTEST_POLL))
        return "asked to stop"

    def _launch(self, launchpad: PatientLaunchPad, fworker: FWorker, lost: LostRun) -> bool:
        from fireworks.core.rocket_launcher import launch_rocket

        folder = self._folder()
        os.chdir(folder)
        ran = bool(launch_rocket(launchpad, fworker, strm_lvl="WARNING"))
        os.chdir(self.directory)
        if not ran:  # another worker was quicker
            folder.rmdir()
        elif launchpad.failed_by_database and launchpad.running:
            lost(launchpad, *launchpad.running, "it lost its connection to the database")
        return ran

    def _folder(self) -> Path:
        """Make and return the next folder; SLURM may have started this job before."""
        number = len(os.listdir(self.directory))
        while True:
            folder = self.directory / f"{number:05d}"
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder

    def _company(self, launchpad: PatientLaunchPad) -> bool:
        """Whether another rocket of this worker is at work: its job is held anyway."""
        query = {
            "state": "RUNNING",
            "fworker.name": self.name,
            "fworker.env.slot": {"$ne": self.slot},
        }
        return launchpad.launches.find_one(query, {"launch_id": 1}) is not None


class _Stop:
    """The wish to stop, which never interrupts a firework but tells it that its time is up."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @classmethod
    def listen(cls) -> _Stop:
        stop = cls()
        signal.signal(signal.SIGTERM, stop._hear)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor hears Ctrl-C
        threading.Thread(target=stop._watch, args=(os.getppid(),), daemon=True).start()
        return stop

    @property
    def asked(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.asked and time.monotonic() < end:
            time.sleep(min(0.1, seconds))  # handlers run between, as they would not in `Event.wait`

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        os.environ[DEADLINE] = str(time.time())  # a shard stops after the chunk in flight
        self._event.set()

    def _watch(self, parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        self._hear(0, None)  # nobody would see this process die


def log_to_stderr(speaker: str) -> None:
    """Let matloop's own messages of this process reach the batch job's log, and no others."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s {speaker}: %(message)s"))
    log = logging.getLogger("matloop")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one rocket process; its arguments are those the supervisor gives."""
    parser = argparse.ArgumentParser(prog="python -m matloop.launch.rocket")
    parser.add_argument("--site", type=Path, required=True)
    for name in ("--name", "--kind"):
        parser.add_argument(name, required=True)
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--directory", type=Path, required=True)
    for name in ("--idle-seconds", "--margin"):
        parser.add_argument(name, type=float, required=True)
    options = parser.parse_args(arguments)
    log_to_stderr(f"rocket {options.slot}")
    return _main(options)


def _main(options: argparse.Namespace) -> int:
    from fireworks.core import rocket as fireworks_rocket
    from pymongo.errors import ConnectionFailure

    from matloop.launch.fireworks_files import PING_SECONDS
    from matloop.launch.patience import PatientLaunchPad
    from matloop.launch.recovery import lost_at
    from matloop.launch.site import load_site

    fireworks_rocket.PING_TIME_SECS = min(fireworks_rocket.PING_TIME_SECS, PING_SECONDS)
    rocket = Rocket(
        options.name,
        options.kind,
        options.slot,
        options.directory,
        options.idle_seconds,
        options.margin,
    )
    site = load_site(options.site)
    launchpad = PatientLaunchPad(site.launchpad_settings())
    try:
        reason = rocket.run(launchpad, lost_at(site))
    except ConnectionFailure:
        _log.error("the database stayed away; what was running is left for `matloop heal`")
        return AWAY
    _log.info("ends: %s", reason)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
