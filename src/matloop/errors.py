"""Every error matloop raises on purpose; a user's mistake is always a `ConfigurationError`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class MatloopError(Exception):
    """Base of everything matloop raises on purpose."""


@dataclass(frozen=True)
class Mistake:
    """One thing wrong in a user's input.

    Attributes
    ----------
    field
        Dotted path of the field, such as ``stages[2].select.use``; empty for the whole file.
    message
        What is wrong and what would be right, in one sentence.
    line
        Line in the file, counted from 1; None where the input was no file.
    """

    field: str
    message: str
    line: int | None = None


class ConfigurationError(MatloopError):
    """The user's input is wrong; carries every mistake found, not only the first.

    Parameters
    ----------
    mistakes
        What is wrong, in the order of the file; a plain string stands for one mistake.
    file
        The file that holds the mistakes.
    """

    def __init__(self, mistakes: list[Mistake] | str, file: Path | str | None = None) -> None:
        self.mistakes = [Mistake("", mistakes)] if isinstance(mistakes, str) else mistakes
        self.file = Path(file) if file is not None else None
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Return one readable line per mistake: ``file:line: field: message``."""
        lines = []
        for mistake in self.mistakes:
            place = str(self.file) if self.file else ""
            if place and mistake.line is not None:
                place += f":{mistake.line}"
            parts = [part for part in (place, mistake.field, mistake.message) if part]
            lines.append(": ".join(parts))
        return lines


class MissingDependencyError(MatloopError):
    """An optional package is not installed; the message names the extra that brings it."""


class MissingReferenceError(MatloopError):
    """The reference phases cannot span a chemical system; the message names the element."""


class TheoryMismatchError(MatloopError):
    """Energies of different levels of theory were about to meet."""


class LedgerError(MatloopError):
    """The database cannot do what was asked."""


class LedgerCorruptedError(LedgerError):
    """The database file is damaged; it was left untouched."""


class LedgerLockedError(LedgerError):
    """Another process is running this campaign."""


class LedgerFullError(LedgerError):
    """The disk is full; what had been recorded is intact."""


class SchedulerError(MatloopError):
    """The batch system cannot be asked, or refuses; nothing is known about any of its jobs."""


class ProgramError(MatloopError):
    """A program outside of matloop failed and left nothing usable; says how, and its last words."""
