"""Locks for processes on many machines: leases in MongoDB that run out when nobody renews them."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from matloop.errors import LedgerError, LedgerLockedError
from matloop.ledger.server import DURABLE, Json, Server, release

COLLECTION = "leases"
_logger = logging.getLogger(__name__)


class LeaseLocks:
    """Locks as documents: who holds it, and until when.

    A lease is taken by one ``find_one_and_update`` with an upsert: it finds the lease only if it
    has run out, and inserting a second one with the same ``_id`` is refused. It is renewed in a
    thread, so that it ends within its time to live after its owner does.

    Time is the server's (``localTime`` of ``hello``): clocks of workers do not matter. Within a
    replica set, the clocks of its members must agree to a few seconds, as MongoDB itself demands.

    Parameters
    ----------
    server
        The server and its database.
    seconds
        Time to live of a lease (s); it is renewed four times as often.
    """

    def __init__(self, server: Server, seconds: float = 60.0) -> None:
        self._server = server
        self._seconds = seconds

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold the lock of a campaign, or of any other name.

        Should the server be away for so long that the lease runs out, another may take it over: a
        warning is logged, and both go on. All writes of a ledger allow for that.

        Raises
        ------
        LedgerLockedError
            If it is held already, in this process or another; the message names the holder.
        LedgerError
            If the server stays away.
        """
        database = self._server.connect().with_options(write_concern=DURABLE)
        try:
            lease = _Lease(self._server, database[COLLECTION], name, self._seconds)
            lease.take()
            owner = os.getpid()
            try:
                yield
            finally:
                if os.getpid() == owner:  # a forked child leaves it alone
                    lease.release()
        finally:
            release(database)


class _Lease:
    def __init__(self, server: Server, collection: Any, name: str, seconds: float) -> None:
        self._server = server
        self._brief = replace(server, patience_seconds=0.0)  # what can wait for the next turn
        self._collection = collection
        self._name = name
        self._seconds = seconds
        self._token = uuid4().hex
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew_regularly, daemon=True)

    def take(self) -> None:
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }

        def take() -> Json | None:
            now = self._now()
            content = {"token": self._token, "owner": owner, "ends": self._end(now)}
            try:
                self._collection.find_one_and_update(
                    {"_id": self._name, "ends": {"$lt": now}}, {"$set": content}, upsert=True
                )
            except DuplicateKeyError:
                found: Json | None = self._collection.find_one({"_id": self._name})
                if found is None:
                    return take()  # released this moment
                return found
            return None

        holder = self._server.patiently(take)
        if holder is not None and holder.get("token") != self._token:  # ours: the answer was lost
            raise LedgerLockedError(self._refusal(holder))
        self._thread.start()

    def release(self) -> None:
        self._over.set()
        self._thread.join()
        with suppress(LedgerError):  # it runs out by itself
            self._brief.patiently(
                lambda: self._collection.delete_one({"_id": self._name, "token": self._token})
            )

    def _renew_regularly(self) -> None:
        while not self._over.wait(self._seconds / 4):
            try:
                renewed = self._brief.patiently(self._renew)
            except LedgerError:
                continue  # the server is away; the next turn may find it
            if renewed is None:
                _logger.warning("the lock %r ran out and was taken by another", self._name)
                return

    def _renew(self) -> Json | None:
        found: Json | None = self._collection.find_one_and_update(
            {"_id": self._name, "token": self._token},
            {"$set": {"ends": self._end(self._now())}},
            return_document=ReturnDocument.AFTER,
        )
        return found

    def _now(self) -> datetime:
        now: datetime = self._collection.database.command("hello")["localTime"]
        return now

    def _end(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._seconds)

    def _refusal(self, holder: Json) -> str:
        owner = holder.get("owner", {})
        return (
            f"process {owner.get('pid')} on {owner.get('host')} (since {owner.get('since')}) is "
            f"running campaign {self._name!r}; wait until it ends, or stop it (its lock ends "
            f"{self._seconds:g} s after its death)"
        )
