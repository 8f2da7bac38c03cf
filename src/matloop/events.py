"""Progress as log records: the library speaks, whoever listens decides how to show it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

logger = logging.getLogger("matloop.progress")


@dataclass(frozen=True)
class Progress:
    """How far one stage of one iteration is.

    Attributes
    ----------
    iteration
        Counted from 0.
    iterations
        Iterations the budget allows.
    stage
        Stage name, or the verb at work: ``references``, ``propose``, ``learn``.
    done, total
        Candidates.
    outcomes
        Candidates by outcome, once the stage has decided.
    discoveries
        Discoveries of the campaign so far.
    """

    iteration: int
    iterations: int
    stage: str
    done: int
    total: int
    outcomes: tuple[tuple[str, int], ...] = ()
    discoveries: int = 0

    def __str__(self) -> str:
        turn = f"iteration {self.iteration + 1}/{self.iterations}"
        text = f"{turn} {self.stage} {self.done}/{self.total}"
        if self.outcomes:
            text += ": " + ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes)
        return text


def report(progress: Progress) -> None:
    """Log progress; listeners find the object in the record's ``progress`` attribute."""
    logger.info("%s", progress, extra={"progress": progress})
