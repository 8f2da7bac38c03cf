"""The diary of a campaign's stage: attempts are written to the ledger before the work."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from matloop.documents.operation import Attempt
from matloop.jobs.diary import Deaths
from matloop.jobs.place import Place


class StageDiary:
    """Note attempts at a stage's evaluations in the ledger.

    Parameters
    ----------
    place
        The stage.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._ledger = place.open()
        # What others begin from now on is at work, not dead.
        self._earlier = self._ledger.attempts(place.campaign_id, place.iteration, place.stage)

    def begin(self, keys: Sequence[str], *, isolated: bool, name: str = "") -> None:
        """Note that these evaluations begin now.

        Parameters
        ----------
        keys
            The evaluations.
        isolated
            Whether in a process of their own.
        name
            Id of the attempt, under which it is noted once; by default a new one.
        """
        attempt = Attempt(
            attempt_id=name or uuid4().hex,
            campaign_id=self._place.campaign_id,
            iteration=self._place.iteration,
            stage=self._place.stage,
            keys=tuple(keys),
            worker=worker_name(),
            isolated=isolated,
            started_at=datetime.now(UTC),
        )
        self._ledger.add_attempts([attempt])

    def deaths(self, keys: Sequence[str], without: str = "") -> dict[str, Deaths]:
        """Return what became of the attempts at these evaluations before this diary was opened.

        Parameters
        ----------
        keys
            Evaluations without a result.
        without
            Start of the ids of attempts that do not count: the caller's own, where its job is run
            again.
        """
        asked, found = set(keys), dict[str, Deaths]()
        for attempt in self._earlier:
            if without and attempt.attempt_id.startswith(without):
                continue
            for key in attempt.keys:
                if key in asked:
                    known = found.get(key, Deaths())
                    alone = known.alone + (len(attempt.keys) == 1)
                    found[key] = Deaths(known.total + 1, alone)
        return found


def worker_name() -> str:
    """Return who works here: host, process, and the scheduler's job where there is one."""
    name = f"{socket.gethostname()}:{os.getpid()}"
    job = os.environ.get("SLURM_JOB_ID", "")
    return f"{name} in job {job}" if job else name
