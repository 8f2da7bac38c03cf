"""The test server as a process that a test starts, kills and starts again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

from matloop.testing.mongodb.journal import Policy


class ServerProcess:
    """A test server in a process of its own; a context manager that starts and stops it.

    Parameters
    ----------
    journal
        File of its journal; None keeps everything in memory.
    port
        Port on 127.0.0.1; 0 takes a free one, and keeps it over restarts.
    fsync
        When the journal is forced to the disk.
    """

    def __init__(
        self, journal: Path | None = None, port: int = 0, fsync: Policy = "interval"
    ) -> None:
        self.journal = journal
        self.port = port
        self._fsync = fsync
        self._process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        """URI for clients."""
        return f"mongodb://127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it, and wait until it accepts connections.

        Raises
        ------
        RuntimeError
            If it does not start; it has said why on standard error.
        """
        command = [sys.executable, "-m", "matloop.testing.mongodb_server"]
        command += ["--port", str(self.port), "--fsync", self._fsync]
        if self.journal is not None:
            command += ["--journal", str(self.journal)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("ready on "):
            self._process.wait()
            self._process = None
            raise RuntimeError("the test server did not start")
        self.port = int(line.rpartition(":")[2])

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
        self._reap()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        if self._process is not None:
            self._process.terminate()
        self._reap()

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None
