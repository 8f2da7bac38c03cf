"""A LaunchPad that waits for its database to come back instead of failing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from fireworks import FWAction, LaunchPad
from fireworks.core.fworker import FWorker
from pymongo.errors import AutoReconnect, ConnectionFailure, NotPrimaryError

from matloop.jobs.placement import TAG

PATIENCE = 1800.0
"""Seconds for which the database may be away before a worker gives up."""

HELD = "matloop_held"
"""Collection of the LaunchPad's database that names the campaigns of which nothing is begun."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 15.0
_AWAY = (AutoReconnect, ConnectionFailure, NotPrimaryError)
_NAMES = ("AutoReconnect", "ServerSelectionTimeoutError", "NetworkTimeout", "ConnectionFailure")
_COLLECTIONS = ("fireworks", "launches", "offline_runs", "fw_id_assigner", "workflows")

_Result = TypeVar("_Result")
_log = logging.getLogger("matloop.worker")


class PatientLaunchPad(LaunchPad):
    """FireWorks' LaunchPad for a process that must outlive a restart of the database.

    FireWorks takes a lost connection in the middle of an update for a failure of the job, and
    throws its result away. Here each operation on a collection is tried again, with growing
    pauses. Updates of FireWorks may be repeated: they set fields, or replace whole documents.

    Parameters
    ----------
    settings
        Arguments of `LaunchPad`.
    patience
        Seconds for which one operation waits for the database.

    Attributes
    ----------
    running
        Firework and launch this process has taken last; None before the first.
    failed_by_database
        Whether the job taken last failed because it lost the database itself.
    """

    def __init__(self, settings: dict[str, Any], patience: float = PATIENCE) -> None:
        options = {
            "socketTimeoutMS": 300_000,
            **settings.get("mongoclient_kwargs", {}),
            # Cursors are read within the driver, which tries a read again once a server answers.
            "serverSelectionTimeoutMS": int(1000 * patience),
        }
        super().__init__(**{**settings, "mongoclient_kwargs": options})
        for name in _COLLECTIONS:
            setattr(self, name, _PatientCollection(getattr(self, name), patience))
        self._patience = patience
        self.running: tuple[int, int] | None = None
        self.failed_by_database = False

    def _get_a_fw_to_run(
        self, query: dict[str, Any] | None = None, fw_id: int | None = None, checkout: bool = True
    ) -> Any:
        """Find a firework as `LaunchPad` does, but none of a campaign that is held.

        What a held campaign has not begun is paused; this is for what it adds meanwhile.
        """
        held = waiting(
            lambda: [item["_id"] for item in self.db[HELD].find({}, {"_id": 1})], self._patience
        )
        if held:
            query = {**(query or {}), f"spec.{TAG}.campaign": {"$nin": held}}
        return super()._get_a_fw_to_run(query, fw_id, checkout)

    def checkout_fw(self, fworker: FWorker, *args: Any, **kwargs: Any) -> Any:
        """Take a firework as `LaunchPad` does, and remember which."""
        firework, launch_id = super().checkout_fw(fworker, *args, **kwargs)
        self.failed_by_database = False
        self.running = (firework.fw_id, launch_id) if firework else None
        return firework, launch_id

    def complete_launch(
        self, launch_id: int, action: FWAction | None = None, state: str = "COMPLETED"
    ) -> Any:
        """End a launch as `LaunchPad` does, and remember whether the database is to blame."""
        if state == "FIZZLED" and action is not None:
            self.failed_by_database = _names_the_database(action)
        return super().complete_launch(launch_id, action, state)

    def ping_launch(self, launch_id: int, *args: Any, **kwargs: Any) -> None:
        """Show that a launch is alive; a heartbeat that cannot be sent is left out."""
        with suppress(*_AWAY):
            super().ping_launch(launch_id, *args, **kwargs)


class _PatientCollection:
    """A collection whose every operation waits for the server."""

    def __init__(self, collection: Any, patience: float) -> None:
        self._collection = collection
        self._patience = patience

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._collection, name)
        if not callable(attribute):
            return attribute

        def patient(*args: Any, **kwargs: Any) -> Any:
            return waiting(lambda: attribute(*args, **kwargs), self._patience)

        return patient


def waiting(operation: Callable[[], _Result], patience: float = PATIENCE) -> _Result:
    """Return what an operation returns, trying again for as long as the database is away.

    Raises
    ------
    pymongo.errors.ConnectionFailure
        If the database stays away for longer than `patience` (s).
    """
    end = time.monotonic() + patience
    pause = _FIRST_PAUSE
    while True:
        try:
            return operation()
        except _AWAY as error:
            if time.monotonic() + pause > end:
                raise
            _log.warning("the database is away (%s); trying again", type(error).__name__)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _names_the_database(action: FWAction) -> bool:
    exception = (action.stored_data or {}).get("_exception") or {}
    lines = str(exception.get("_stacktrace") or "").strip().splitlines()
    raised = lines[-1].split(":")[0] if lines else ""
    return raised.startswith("pymongo.errors.") and raised.endswith(_NAMES)
