"""The flat object of numbers: every share with its count and its denominator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scipy.stats import binomtest

from matloop.documents.base import Scalar


def interval(count: int, denominator: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share, by Wilson's score."""
    found = binomtest(count, denominator).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


@dataclass
class Figures:
    """Numbers under stable keys, in the order they were put.

    Attributes
    ----------
    values
        JSON scalars by key. A share stands with its ``<key>_count`` and ``<key>_denominator``, any
        other statistic with its ``<key>_denominator``; null is what was not computed.
    """

    values: dict[str, Scalar] = field(default_factory=dict)

    def put(self, entries: Mapping[str, Scalar]) -> None:
        """Add facts that need no denominator."""
        self.values.update(entries)

    def share(self, key: str, flags: Iterable[bool | None] | None, denominator: int) -> None:
        """Add the fraction of true flags among all; without flags it was not computed."""
        count = None if flags is None else sum(map(bool, flags))
        self.values[key] = count / denominator if count is not None and denominator else None
        self.values[f"{key}_count"] = count
        self.values[f"{key}_denominator"] = None if count is None else denominator

    def statistic(self, key: str, value: float | None, denominator: int) -> None:
        """Add a number that was made from so many structures."""
        known = value is not None and math.isfinite(value)
        self.values[key] = value if known else None
        self.values[f"{key}_denominator"] = denominator if known else None
