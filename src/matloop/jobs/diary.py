"""A diary of attempts: what is about to be evaluated is noted, so that a death leaves a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

DEATHS_TO_QUARANTINE = 2
"""Deaths alone after which a candidate is not tried again: once may be the machine's fault."""


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
