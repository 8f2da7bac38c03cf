"""Run one program, and let nothing of it outlive whoever asked: a script of the standard library.

It is the leader of a session of its own. Its standard input is a pipe that the asking process
holds: when that process ends, by whatever cause, the pipe closes, and the whole group is killed.
When the program ends, the group is killed too, so that nothing is left working in the background.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

STDOUT, STDERR = "stdout.txt", "stderr.txt"


def main(command: list[str]) -> None:
    """Run a command and write its exit status, or why it could not be started, on stdout."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # the program ends by it, and we tell how
    threading.Thread(target=_watch, daemon=True).start()
    try:
        with open(STDOUT, "wb") as out, open(STDERR, "wb") as err:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    except OSError as error:
        _tell(f"not started: {error.strerror}")
    else:
        _tell(str(child.wait()))
    os.killpg(0, signal.SIGKILL)


def _watch() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _tell(text: str) -> None:
    os.write(1, text.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
