"""One process per campaign: a lock that dies with its owner, however the owner dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from matloop.errors import LedgerError, LedgerLockedError

_held: set[int] = set()


class Locks(Protocol):
    """Locks by name, each held by one process at most and freed by its death."""

    def hold(self, name: str, /) -> AbstractContextManager[None]:
        """Hold a lock.

        Raises
        ------
        LedgerLockedError
            If it is held already, in this process or another; the message names the holder.
        """
        ...


class CampaignLocks:
    """Locks of the campaigns of one ledger, as files in one folder.

    The operating system holds the lock (``flock``) and frees it when the process ends; the file
    stays and only says who held it last. Forked children do not keep it alive.

    Parameters
    ----------
    directory
        Folder of the lock files; made when first needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def hold(self, campaign_id: str) -> Iterator[None]:
        """Hold the lock of a campaign.

        Raises
        ------
        LedgerLockedError
            If it is held already, in this process or another; the message names the holder.
        LedgerError
            If the lock file cannot be made.
        """
        _release_in_children()
        path = self._directory / f"{quote(campaign_id, safe='')}.lock"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LedgerError(f"cannot make the lock {path}: {error.strerror}") from error
        _held.add(handle)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise LedgerError(f"cannot lock {path}: {error.strerror}") from error
                raise LedgerLockedError(_refusal(campaign_id, handle)) from None
            _sign(handle)
            yield
        finally:
            _held.discard(handle)
            os.close(handle)


def _sign(handle: int) -> None:
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with suppress(OSError):  # a full disk: the lock holds all the same, only without a name
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(owner).encode(), 0)


def _refusal(campaign_id: str, handle: int) -> str:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
        holder = f"process {owner['pid']} on {owner['host']} (since {owner['since']})"
    except (ValueError, KeyError, TypeError):  # it has the lock but did not sign yet
        holder = "another process"
    return f"{holder} is running campaign {campaign_id!r}; wait until it ends, or stop it"


@cache
def _release_in_children() -> None:
    os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()
