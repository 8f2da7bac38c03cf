"""A diary of attempts: what is about to be evaluated is noted, so that a death leaves a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

DEATHS_TO_SEPARATE = 4
"""Jobs that died over a chunk, examined apart, after which its candidates are examined one by one.

A candidate that kills its own process is found the first time a chunk is examined apart. Only what
ends the whole job comes here, and that is nearly always the machine: walltime, a kill, a node.
"""

DEATHS_TO_QUARANTINE = 4
"""Jobs that died over one candidate on its own after which it is not tried again."""


@dataclass(frozen=True)
class Deaths:
    """How often an evaluation was begun and ended without a result.

    Attributes
    ----------
    total
        Times in all.
    alone
        Times with nothing else in its process: then it was to blame, or very unlucky.
    """

    total: int = 0
    alone: int = 0


class Diary(Protocol):
    """Where a process notes what it is about to evaluate, so that its death leaves a trace."""

    def begin(self, keys: Sequence[str], *, isolated: bool) -> None:
        """Note that these evaluations begin now, in a process of their own or not."""
        ...

    def deaths(self, keys: Sequence[str]) -> dict[str, Deaths]:
        """Return what became of earlier attempts at these evaluations, where there were any."""
        ...


class NoDiary:
    """Note nothing, as outside of a campaign."""

    def begin(self, keys: Sequence[str], *, isolated: bool) -> None:
        """Note nothing."""

    def deaths(self, keys: Sequence[str]) -> dict[str, Deaths]:
        """Return that nobody has died."""
        return {}
