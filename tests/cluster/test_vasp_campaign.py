"""The campaign of replayed VASP runs on SLURM. Nothing here runs VASP."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("atomate2")

from ..engines.vasp_campaign import ALLOWED, NAME, by_cell, campaign, check, unpacked_runs

if TYPE_CHECKING:
    from .conftest import Place


@pytest.mark.slow
@pytest.mark.mongo
@pytest.mark.slurm
@pytest.mark.dft
@pytest.mark.timeout(1200)
def test_calculations_in_jobs_of_their_own(place: Place, tmp_path: Path) -> None:
    """The same in SLURM jobs, with custodian and a command that replays."""
    recorded = unpacked_runs(tmp_path / "recorded")
    command = f"{sys.executable} -m matloop.testing.vasp_replay {recorded}"
    allowed = ",".join(ALLOWED)
    lines = [
        "  dft:",
        "    cores: 1",
        '    walltime: "00:10:00"',
        "    idle_seconds: 2",
        f"    setup: [\"export ATOMATE2_VASP_CMD='{command} --allow {allowed}'\"]",
    ]
    text = place.site.file.read_text().replace('"00:05:00"', '"00:10:00"')
    place.site.file.write_text("\n".join([text.rstrip(), *lines, ""]))
    file = tmp_path / "campaign.json"
    declared = campaign(recorded, tmp_path / "crystals", doomed=True)
    file.write_text(declared.model_dump_json(by_alias=True))
    submitted = place.matloop("submit", str(file))
    assert submitted.returncode == 0, submitted.stderr
    started = time.monotonic()
    while (status := place.status(NAME))["status"] != "finished":
        assert time.monotonic() - started < 900, status
        ticked = place.matloop("tick", "--all", "--workers")
        assert ticked.returncode == 0, ticked.stdout + ticked.stderr
        time.sleep(2)
    ledger = place.site.ledger().open()
    check(ledger, recorded)
    lost = by_cell(ledger, "dft")[1]
    assert lost.outcome == "failed"
    assert "left no complete vasprun.xml (incomplete): replay refused" in lost.reason
    kinds = {
        firework["spec"]["_category"]
        for firework in place.launchpad.fireworks.find({"name": {"$regex": "MP GGA"}})
    }
    assert kinds == {"dft"}
