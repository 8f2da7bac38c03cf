"""What a candidate costs besides its evaluation does not grow with their number (P8)."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.orchestration import MEGABYTE, Commands, measure
from pymongo import monitoring

pytestmark = [pytest.mark.mongo, pytest.mark.slow]


def test_commands_per_candidate_do_not_grow(mongodb_uri: str, tmp_path: Path) -> None:
    """Of 1,000, 3,000 and 10,000 candidates each costs no more commands than before.

    Seconds are printed, not asserted; every document stays below one megabyte.
    """
    commands = Commands()
    monitoring.register(commands)
    each = []
    for count in (1000, 3000, 10_000):
        row = measure(count, mongodb_uri, tmp_path, commands)
        each.append(float(row["commands"]) / count)
        print(
            f"{count} candidates: {row['jobs']} jobs, {each[-1]:.3f} commands and "
            f"{1e3 * float(row['seconds']) / count:.1f} ms each, largest document "
            f"{float(row['largest']) / 1e3:.0f} kB in {row['largest_in']}"
        )
        assert float(row["largest"]) < MEGABYTE
    assert each[0] >= each[1] >= each[2]
