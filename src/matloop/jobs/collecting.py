"""Python's garbage collector during long jobs: it need not look again at what an import left."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_THRESHOLDS = (50_000, 20, 20)
"""New objects before a collection, and collections before one of the next generation."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Set aside what is in memory now, and look for cycles less often, until the end.

    Documents and crystals are made by the thousand and hold no cycles, and every 700 of them Python
    begins a search for some, now and then through all that libraries have loaded. What was set by
    the caller is restored.
    """
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    if not gc.isenabled() or frozen:
        yield  # somebody has taken care of it
        return
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def collected_seldom(call: Callable[P, T]) -> Callable[P, T]:
    """Return a function that runs under `seldom_collected`."""

    @wraps(call)
    def called(*arguments: P.args, **named: P.kwargs) -> T:
        with seldom_collected():
            return call(*arguments, **named)

    return called
