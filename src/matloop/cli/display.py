"""Live progress of a run: a moving line on a terminal, a quiet log anywhere else."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.rule import Rule

from matloop.cli.terminal import duration, outcomes, stderr
from matloop.errors import ConfigurationError, LedgerLockedError, MissingReferenceError
from matloop.events import Progress as Step

# What a run is refused with: said in full on the terminal, and nothing that happened in a run.
_TOLD = (ConfigurationError, MissingReferenceError, LedgerLockedError)
_HEARTBEAT = 60.0
_WIDTH = 16


class Display(logging.Handler):
    """Shows what the loggers of matloop say while a campaign runs.

    Every finished stage leaves one line. On a terminal the stage at work moves below them, with
    its rate and the time left; elsewhere it says a line a minute.

    Parameters
    ----------
    log
        File that also gets every record, for when something goes wrong.
    console
        Where to show it; by default standard error.
    """

    def __init__(self, log: Path, console: Console | None = None) -> None:
        super().__init__(logging.INFO)
        self._console = console or stderr()
        self._log = _LogFile(log)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._step: Step | None = None
        self._iteration = -1
        self._first = 0
        self._started = self._spoke = time.monotonic()
        self._discoveries = 0

    def __enter__(self) -> Display:
        """Start listening."""
        logger = logging.getLogger("matloop")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        logger.addHandler(self._log)
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").addHandler(self._log)
        if self._console.is_terminal:
            self._bar = _bar(self._console)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening; what went wrong goes to the log file."""
        self._finish()
        if self._bar is not None:
            self._bar.stop()
        logger = logging.getLogger("matloop")
        if isinstance(error, Exception) and not isinstance(error, _TOLD):
            self._log.write("the run failed", (type(error), error, trace))
        logger.removeHandler(self)
        logger.removeHandler(self._log)
        logging.getLogger("py.warnings").removeHandler(self._log)
        logging.captureWarnings(False)
        self._log.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        step = getattr(record, "progress", None)
        try:
            if isinstance(step, Step):
                self._advance(step)
            elif record.levelno >= logging.WARNING:
                self._say(f"[yellow]![/] {escape(record.getMessage())}")
        except Exception:
            self.handleError(record)

    def _advance(self, step: Step) -> None:
        if self._step is None or (step.iteration, step.stage) != (
            self._step.iteration,
            self._step.stage,
        ):
            self._finish()
            self._begin(step)
        self._step = step
        if step.stage == "learn" and step.done:
            self._discoveries = step.discoveries  # may shrink: a new phase lowers the hull
        if step.outcomes:
            self._finish()
        elif self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=step.done, total=step.total or None, pace=self._pace(step)
            )
        elif time.monotonic() - self._spoke > _HEARTBEAT:
            self._say(f"{self._label(step)} {step.done}/{step.total}{self._pace(step)}")

    def _begin(self, step: Step) -> None:
        if step.iteration != self._iteration and step.stage != "references":
            self._iteration = step.iteration
            if self._bar is not None:
                title = f"[bold]iteration {step.iteration + 1} of {step.iterations}[/]"
                self._bar.console.print(Rule(title, align="left", style="dim"))
        self._first, self._started = step.done, time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(
                step.stage, completed=step.done, total=step.total or None, pace=""
            )

    def _finish(self) -> None:
        """Leave one line of the stage that ends."""
        step, self._step = self._step, None
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        if step is None:
            return
        took = duration(time.monotonic() - self._started)
        said = outcomes(dict(step.outcomes)) if step.outcomes else _done(step)
        if step.stage == "learn":
            said = _discovered(self._discoveries)
        if self._bar is not None:
            mark = "[green]✓[/]" if step.outcomes or step.done >= step.total else "[dim]·[/]"
            self._say(f"{mark} {step.stage:<{_WIDTH}} [dim]{took:>12}[/]   {said}")
        else:
            self._say(f"{self._label(step)}: {said} ({took})")

    def _label(self, step: Step) -> str:
        if step.stage == "references":
            return step.stage
        return f"iteration {step.iteration + 1}/{step.iterations} {step.stage}"

    def _pace(self, step: Step) -> str:
        """Return rate and time left, from what this process did itself."""
        done, passed = step.done - self._first, time.monotonic() - self._started
        if done <= 0 or passed < 1.0:
            return ""
        rate = done / passed
        shown = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
        left = duration((step.total - step.done) / rate)
        return f"  {shown}, {left} left"

    def _say(self, markup: str) -> None:
        self._spoke = time.monotonic()
        if self._bar is not None:
            self._bar.console.print("  " + markup, soft_wrap=True)
        else:
            clock = time.strftime("%H:%M:%S")
            self._console.print(f"{clock} {markup}", soft_wrap=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn(" "),
        SpinnerColumn("dots", style="cyan"),
        TextColumn(f"{{task.description:<{_WIDTH}}}"),
        BarColumn(bar_width=24, complete_style="cyan", finished_style="cyan"),
        TextColumn("{task.completed:>4.0f}/{task.total:.0f}[dim]{task.fields[pace]}"),
        console=console,
        transient=True,
        refresh_per_second=8,
    )


def _done(step: Step) -> str:
    if step.stage == "references":
        return f"{step.done} phases computed"
    if step.stage == "propose":
        return f"{step.done} candidates"
    return f"{step.done} of {step.total}"


def _discovered(count: int) -> str:
    if not count:
        return "done"
    return f"[bold green]{count} discover{'y' if count == 1 else 'ies'} so far[/]"


class _LogFile(logging.FileHandler):
    """A log file that never disturbs the run, not even on a full disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self.setLevel(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record if the file can be opened."""
        with suppress(OSError):
            super().emit(record)

    def close(self) -> None:
        """Close the file; what a full disk does not take is lost."""
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Give up on the record."""

    def write(
        self, message: str, error: tuple[type[Exception], Exception, TracebackType | None]
    ) -> None:
        """Record an exception with its traceback."""
        self.handle(
            logging.LogRecord("matloop", logging.ERROR, "", 0, message, None, exc_info=error)
        )
