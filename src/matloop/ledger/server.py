"""A MongoDB server: connections shared in a process, and patience while the server is away."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from gridfs.errors import GridFSError
from monty.json import MSONable
from pymongo import MongoClient, WriteConcern
from pymongo.database import Database
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    CursorNotFound,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)

from matloop.errors import ConfigurationError, LedgerError, Mistake
from matloop.ledger.secrets import check_names, read_uri, source

Json = dict[str, Any]
T = TypeVar("T")

DURABLE = WriteConcern(w="majority", j=True)
"""A write that was acknowledged outlives the server's death, and the loss of its primary."""

_logger = logging.getLogger(__name__)
_OPTIONS: Json = {
    "appname": "matloop",
    "serverSelectionTimeoutMS": 10_000,
    "connectTimeoutMS": 10_000,
    "socketTimeoutMS": 120_000,
}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
# A member of a replica set steps down, shuts down or catches up; a network fails on the way.
_PASSING = {6, 7, 89, 91, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436}
_NOT_ALLOWED = {13, 18, 8000}


@dataclass(frozen=True)
class Server(MSONable):
    """A database on a MongoDB server, as jobs carry it: free of secrets.

    Attributes
    ----------
    uri_variable
        Environment variable that holds the server's URI.
    uri_file
        File that holds it instead, readable by its owner only; empty for none.
    database
        Name of the database.
    patience_seconds
        How long an operation waits for a server that is away (s).

    Raises
    ------
    ConfigurationError
        If a field cannot be right.
    """

    uri_variable: str = "MATLOOP_MONGODB_URI"
    uri_file: str = ""
    database: str = "matloop"
    patience_seconds: float = 300.0

    def __post_init__(self) -> None:
        check_names(self.uri_variable, self.uri_file)
        if not self.database or set(self.database) & set('/\\. "$*<>:|?\0'):
            raise ConfigurationError([Mistake("database", "is no name of a MongoDB database")])
        if not 0 <= self.patience_seconds <= 1e6:
            raise ConfigurationError([Mistake("patience_seconds", "must be between 0 and 1e6")])

    @property
    def source(self) -> str:
        """Where the URI is: what messages call the server."""
        return source(self.uri_variable, self.uri_file)

    def uri(self) -> str:
        """Return the URI, a secret.

        Raises
        ------
        ConfigurationError
            If it cannot be had.
        """
        return read_uri(self.uri_variable, self.uri_file)

    def connect(self) -> Database[Json]:
        """Return the database on a connection that the process shares; `release` it once.

        Nothing is sent yet: a server that is away is noticed by the first operation.
        """
        return _acquire(self.uri(), self.source)[self.database]

    def patiently(self, action: Callable[[], T]) -> T:
        """Return what an operation returns, repeating it while the server is away.

        Parameters
        ----------
        action
            The operation. It must be harmless to repeat one whose answer was lost.

        Raises
        ------
        LedgerError
            If the server stays away longer than the server's patience, or refuses the operation.
        pymongo.errors.DuplicateKeyError, pymongo.errors.BulkWriteError, gridfs.errors.GridFSError
            As they come: they answer who was first, and what is there.
        """
        started = time.monotonic()
        pause = _FIRST_PAUSE
        while True:
            try:
                return action()
            except GridFSError:
                raise  # there is no such file, or it is there already
            except PyMongoError as error:
                # No message of the driver is repeated: it may hold parts of the URI.
                name = type(error).__name__
                if not _is_passing(error):
                    if isinstance(error, DuplicateKeyError | BulkWriteError):
                        raise
                    raise LedgerError(_refused(self.source, error)) from None
                waited = time.monotonic() - started
                if waited + pause > self.patience_seconds:
                    raise LedgerError(
                        f"the MongoDB server named by {self.source} did not answer for "
                        f"{waited:.0f} s ({name})"
                    ) from None
                if pause == _FIRST_PAUSE:
                    _logger.warning(
                        "the MongoDB server named by %s does not answer (%s); trying for %g s",
                        self.source,
                        name,
                        self.patience_seconds,
                    )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def release(database: Database[Json]) -> None:
    """Give a connection back; the last one who does closes it."""
    with _lock:
        for name, shared in list(_clients.items()):
            if shared.client is database.client:
                shared.users -= 1
                if not shared.users:
                    del _clients[name]
                    shared.client.close()


@dataclass
class _Shared:
    client: MongoClient[Json]
    users: int = 0


_lock = threading.Lock()
_clients: dict[tuple[int, str], _Shared] = {}  # by process: connections do not outlive a fork


def _acquire(uri: str, place: str) -> MongoClient[Json]:
    name = (os.getpid(), uri)
    with _lock:
        if name not in _clients:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # an option that is passed over, such as TLS
                    _clients[name] = _Shared(MongoClient(uri, **_options(uri)))
            except (PyMongoError, ValueError, UserWarning) as error:  # may hold the URI
                raise ConfigurationError(
                    f"{place} holds a URI that the driver does not take: {type(error).__name__}"
                ) from None
        _clients[name].users += 1
        return _clients[name].client


def _options(uri: str) -> Json:
    # what the URI says itself goes before
    said = uri.lower()
    return {name: value for name, value in _OPTIONS.items() if f"{name.lower()}=" not in said}


def _forget_lock() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_forget_lock)


def _is_passing(error: PyMongoError) -> bool:
    match error:
        case AutoReconnect() | CursorNotFound():
            return True
        case BulkWriteError():
            failures = [*error.details["writeErrors"], *error.details["writeConcernErrors"]]
            return any(failure["code"] in _PASSING for failure in failures)
        case OperationFailure():
            return error.code in _PASSING
    return False


def _refused(place: str, error: PyMongoError) -> str:
    what = type(error).__name__
    if isinstance(error, OperationFailure):
        if error.code in _NOT_ALLOWED:
            return f"the MongoDB server named by {place} refused user, password or rights"
        said = (error.details or {}).get("errmsg", "")
        what = f"{what} {error.code}: {said}"
    return f"the MongoDB server named by {place} cannot do this ({what})"
