"""Published metrics of two published generators come out as published."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from matloop.metrics.verdicts import judge_alone
from matloop.structures.reading import read_records

FOLDER = Path(os.environ.get("MATLOOP_TEST_DATA", "no folder"))
DIFFCSP = FOLDER / "generated_diffcsp_mp20_first1000.npz"
FLOWMM = FOLDER / "generated_flowmm_mp20_997.csv.gz"


@pytest.mark.skipif(not FLOWMM.exists(), reason="set MATLOOP_TEST_DATA to a folder with samples")
@pytest.mark.parametrize(
    ("file", "n", "structural", "legacy"),
    [(DIFFCSP, 1000, 1000, 825), (FLOWMM, 997, 963, 830)],
    ids=["DiffCSP", "FlowMM"],
)
def test_validity(file: Path, n: int, structural: int, legacy: int) -> None:
    """DiffCSP: 100.0 and 82.5 %. FlowMM: 96.59 and 83.25 %."""
    verdicts = judge_alone(read_records([file]), 0.1)
    assert len(verdicts) == n
    assert sum(verdict.structural_validity for verdict in verdicts) == structural
    assert sum(verdict.smact_validity_legacy for verdict in verdicts) == legacy
