"""The quickstart on a cluster: the same candidates, verdicts and decisions as on a laptop (P6)."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..launch.contents import contents

if TYPE_CHECKING:
    from .conftest import Place

QUICKSTART = Path(__file__).parents[2] / "workflows" / "quickstart.yaml"
NAME = "quickstart"
LIMIT = 1800.0  # s


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.mongo
@pytest.mark.timeout(3600)
def test_the_quickstart_is_the_same_on_slurm(place: Place, tmp_path: Path) -> None:
    """Submitted and worked on in SLURM jobs, the quickstart equals what `matloop run` makes.

    ``MATLOOP_QUICKSTART`` may name a folder in which it has been run already; then the whole of it
    is compared, else the first three iterations.
    """
    here = Path(os.environ.get("MATLOOP_QUICKSTART", tmp_path / "here"))
    declared = QUICKSTART.read_text()
    if not here.exists():
        assert "iterations: 8" in declared
        declared = declared.replace("iterations: 8", "iterations: 3")
    file = tmp_path / "quickstart.yaml"
    file.write_text(declared)
    text = place.site.file.read_text()
    for wanted, given in (
        ('walltime: "00:05:00"', 'walltime: "00:20:00"'),
        ("cores: 1", "cores: 2"),
    ):
        text = text.replace(wanted, given)
    place.site.file.write_text(text)
    submitted = place.matloop("submit", str(file))
    assert submitted.returncode == 0, submitted.stderr
    started = time.monotonic()
    while (status := place.status(NAME))["status"] != "finished":
        assert time.monotonic() - started < LIMIT, status
        ticked = place.matloop("tick", "--all", "--workers")
        assert ticked.returncode == 0, ticked.stdout + ticked.stderr
        time.sleep(20)
    print(f"quickstart on SLURM: {time.monotonic() - started:.0f} s")
    if not here.exists():
        command = ["matloop", "run", str(file), "--dir", str(here)]
        subprocess.run(command, env=place.stack.environment, check=True, capture_output=True)
    expected, found = contents(here, NAME), contents(place.site.ledger(), NAME)
    for part in ("candidates", "decisions", "verdicts", "states", "artifacts"):
        assert found[part] == expected[part], f"{part} differ"
