"""What was read lately: documents never change, so that one read is as good as the next."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The values used last, by key; threads may share it.

    It may forget anything at any time, and whoever uses it reads again. Only what can never change
    may be kept here.

    Parameters
    ----------
    most
        Weight of all values at most; the one used longest ago goes first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._weight = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    def found(self, keys: Iterable[K]) -> dict[K, V]:
        """Return those of the values that are here."""
        result: dict[K, V] = {}
        with self._lock:
            for key in keys:
                if key in self._values:
                    self._values.move_to_end(key)
                    result[key] = self._values[key][0]
        return result

    def keep(self, values: Mapping[K, V], weights: Mapping[K, int] = {}) -> None:
        """Keep values for a while.

        Parameters
        ----------
        values
            The values, by key.
        weights
            What each weighs; 1 where nothing is said.
        """
        with self._lock:
            for key, value in values.items():
                if key in self._values:
                    self._weight -= self._values.pop(key)[1]
                weight = weights.get(key, 1)
                self._values[key] = value, weight
                self._weight += weight
            while self._weight > self._most and self._values:
                self._weight -= self._values.popitem(last=False)[1][1]
