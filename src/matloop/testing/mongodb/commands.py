"""The commands of the MongoDB protocol that drivers, FireWorks, jobflow and maggma use."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import bson

from matloop.testing.mongodb.administration import Administration
from matloop.testing.mongodb.collection import MAX_DOCUMENT
from matloop.testing.mongodb.cursors import Cursors
from matloop.testing.mongodb.databases import Databases
from matloop.testing.mongodb.errors import CommandError, refusal
from matloop.testing.mongodb.reading import Reading
from matloop.testing.mongodb.requests import Handler, handlers
from matloop.testing.mongodb.writing import Writing

Json = dict[str, Any]
_VERSION = (7, 0, 0)
_WIRE_VERSION = 21  # of MongoDB 7.0


class Commands:
    """Executes commands, one at a time.

    Parameters
    ----------
    databases
        What they work on.
    """

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._started = time.monotonic()
        cursors = Cursors()
        self._handlers: dict[str, Handler] = {
            **handlers(self),
            **Reading(databases, cursors).handlers(),
            **Writing(databases).handlers(),
            **Administration(databases, cursors).handlers(),
        }

    def run(self, command: Json) -> Json:
        """Return the reply to a command; an error is a reply as well."""
        name = next(iter(command)).lower()
        handler = self._handlers.get(name)
        concern = command.get("writeConcern") or {}
        try:
            if handler is None:
                raise CommandError(59, f"no such command: '{next(iter(command))}'")
            if "txnNumber" in command:
                message = "Transaction numbers are only allowed on a replica set member or mongos"
                raise CommandError(20, message)
            with self._databases.lock:
                try:
                    reply = handler(command)
                finally:
                    mark = self._databases.flush()
            self._databases.settle(mark, bool(concern.get("j")))
            return {**reply, "ok": 1.0}
        except OSError:
            raise  # of the journal: the server cannot go on
        except Exception as error:
            return refusal(error).reply()

    def _do_hello(self, command: Json) -> Json:
        return {
            "helloOk": True,
            "ismaster": True,
            "isWritablePrimary": True,
            "maxBsonObjectSize": MAX_DOCUMENT,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "localTime": datetime.now(UTC),
            "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0,
            "maxWireVersion": _WIRE_VERSION,
            "readOnly": False,
        }

    _do_isMaster = _do_hello  # noqa: N815

    def _do_ping(self, command: Json) -> Json:
        return {}

    _do_endSessions = _do_refreshSessions = _do_killSessions = _do_ping  # noqa: N815
    _do_logout = _do_fsync = _do_compact = _do_ping

    def _do_startSession(self, command: Json) -> Json:  # noqa: N802
        return {"id": {"id": bson.Binary.from_uuid(uuid4())}}

    def _do_buildInfo(self, command: Json) -> Json:  # noqa: N802
        return {
            "version": ".".join(map(str, _VERSION)),
            "versionArray": [*_VERSION, 0],
            "gitVersion": "matloop test server",
            "maxBsonObjectSize": MAX_DOCUMENT,
            "bits": 64,
        }

    def _do_serverStatus(self, command: Json) -> Json:  # noqa: N802
        return {
            "process": "matloop test server",
            "version": ".".join(map(str, _VERSION)),
            "uptime": time.monotonic() - self._started,
            "localTime": datetime.now(UTC),
        }

    def _do_connectionStatus(self, command: Json) -> Json:  # noqa: N802
        return {"authInfo": {"authenticatedUsers": [], "authenticatedUserRoles": []}}
