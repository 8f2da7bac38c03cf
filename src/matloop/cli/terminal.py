"""How the command line speaks: consoles, numbers and times as people read them."""

from __future__ import annotations

import sys
from functools import cache

from rich.console import Console

OUTCOME_STYLES = {"passed": "green", "rejected": "yellow", "failed": "red", "held": "blue"}


@cache
def stdout() -> Console:
    """Return the console for results."""
    return Console(highlight=False)


@cache
def stderr() -> Console:
    """Return the console for progress and complaints."""
    return Console(stderr=True, highlight=False)


def outcomes(counts: dict[str, int]) -> str:
    """Return counts by outcome with their colours, such as ``163 passed · 37 rejected``."""
    parts = [
        f"[{OUTCOME_STYLES.get(outcome, 'default')}]{count} {outcome}[/]"
        for outcome, count in counts.items()
        if count
    ]
    return " · ".join(parts) or "nothing"


def duration(seconds: float) -> str:
    """Return a time as people say it: ``20 ms``, ``0.4 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def is_terminal() -> bool:
    """Whether a person watches the output."""
    return sys.stdout.isatty()
