"""How long the batch job around this process may still run."""

from __future__ import annotations

import os
import subprocess
import time

from matloop.errors import ConfigurationError

DEADLINE = "MATLOOP_DEADLINE"
"""Environment variable that holds the end of this job in seconds since 1970."""

_TIMEOUT = 30.0
_PAUSE = 60.0  # between questions to a scheduler that did not answer
_WITHOUT_LIMIT = {"", "UNLIMITED", "INVALID", "NOT_SET", "Partition_Limit", "N/A"}

_ends: dict[str, float | None] = {}  # monotonic time at which a SLURM job ends, by its id
_asked: dict[str, float] = {}


def seconds_left() -> float | None:
    """Return the seconds until this process is ended by its batch job; None if nothing ends it.

    The environment variable ``MATLOOP_DEADLINE`` is obeyed first and read each time, so that a
    worker can bring the end forward. Otherwise SLURM is asked, once, and the answer counted down.
    A scheduler that does not answer is asked again after a minute.

    Raises
    ------
    ConfigurationError
        If ``MATLOOP_DEADLINE`` is not a number.
    """
    if deadline := os.environ.get(DEADLINE):
        try:
            return float(deadline) - time.time()
        except ValueError:
            raise ConfigurationError(
                f"{DEADLINE} is {deadline!r}; it must be seconds since 1970, such as 1767225600"
            ) from None
    job_id = os.environ.get("SLURM_JOB_ID")
    if not job_id:
        return None
    now = time.monotonic()
    if job_id not in _ends:
        if now - _asked.get(job_id, -_PAUSE) < _PAUSE:
            return None
        _asked[job_id] = now
        answer = _ask(job_id)
        if answer is None:
            return None
        left = parse_duration(answer)
        _ends[job_id] = None if left is None else now + left
    end = _ends[job_id]
    return None if end is None else end - now


def parse_duration(text: str) -> float | None:
    """Return a time as SLURM writes it in seconds; None for no limit.

    Parameters
    ----------
    text
        ``D-HH:MM:SS``, ``D-HH:MM``, ``D-HH``, ``HH:MM:SS``, ``MM:SS``, or ``UNLIMITED``; a
        job over its time has a minus sign. One bare number is minutes, as in ``sbatch --time``.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    text = text.strip()
    if text in _WITHOUT_LIMIT:
        return None
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if len(parts) > 3 or (dash and not days.isdigit()):
        raise ValueError(f"{text!r} is not a time as SLURM writes it")
    if dash:  # counted from the hours
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 1:
        hours, minutes, seconds = 0, parts[0], 0
    else:  # counted from the seconds
        hours, minutes, seconds = [0, *parts][-3:]
    return float(sign * (86400 * int(days or 0) + 3600 * hours + 60 * minutes + seconds))


def _ask(job_id: str) -> str | None:
    command = ["squeue", "--noheader", f"--jobs={job_id}", "--format=%L"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
