"""Shares with their denominators, and their intervals."""

from __future__ import annotations

import math

import pytest

from matloop.metrics.figures import Figures, interval


def test_a_share_has_count_and_denominator() -> None:
    """None counts as no; what was not asked is null in all three."""
    figures = Figures()
    figures.share("valid", [True, None, False, True], 4)
    figures.share("stable", None, 4)
    figures.statistic("drop", math.nan, 3)
    assert figures.values == {
        "valid": 0.5, "valid_count": 2, "valid_denominator": 4,
        "stable": None, "stable_count": None, "stable_denominator": None,
        "drop": None, "drop_denominator": None,
    }  # fmt: skip


def test_an_interval_never_vanishes() -> None:
    """None of three is anything up to 56 %; 825 of 1000 is known to within 2.5 %."""
    assert interval(0, 3) == pytest.approx((0, 0.5615), abs=1e-3)
    assert interval(825, 1000) == pytest.approx((0.8003, 0.8473), abs=1e-3)
