"""Campaigns whose last stage is a replay of recorded VASP runs. Nothing here runs VASP."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

pytest.importorskip("atomate2")
pytest.importorskip("fireworks")

from emmet.core.tasks import TaskDoc
from pymatgen.core import Structure
from pymongo import MongoClient

from matloop.documents.campaign import Campaign
from matloop.documents.phase import PhaseSet
from matloop.engines.vasp.engine import Vasp
from matloop.jobs.calculate import outputs
from matloop.jobs.place import close_ledgers
from matloop.launch import local
from matloop.ledger.interface import Ledger
from matloop.ledger.opening import read_ledger
from matloop.ledger.past import read_packed
from matloop.reports.html import render_report
from matloop.reports.summary import summarize
from matloop.testing.vasp_replay import in_process

from .vasp_data import unpacked

if TYPE_CHECKING:
    from matloop.launch.site import Site

    from ..cluster.conftest import Place
    from ..cluster.stack import Stack

pytestmark = pytest.mark.dft

NAME = "vasp-replay"
ENERGY = -5.4203046  # eV/atom, of the recorded static run
ALLOWED = ("ISMEAR", "SIGMA", "POSCAR")  # the crystal is relaxed before, so it is not as recorded
ENGINE: dict[str, Any] = {
    "potcar_spec": True,
    "user_kpoints_settings": {"reciprocal_density": 64},
    "max_atoms": 2,
    "walltime_margin": 0,
    "custodian": {"polling_time_step": 1, "monitor_freq": 1},
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = unpacked("vasp_recorded.tar.xz", tmp_path_factory.mktemp("recorded"))
    return next(path.parent for path in folder.rglob("GGA_Relax_1"))


def campaign(recorded: Path, folder: Path, *, doomed: bool = False) -> Campaign:
    """Return a campaign on silicon: a potential first, then the replay, with a hull of each.

    It proposes silicon in its own structure, and in a cell of four atoms, which the engine is told
    not to take. The doomed one is a cell of one atom, of which there is no recorded run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    silicon = Structure.from_file(recorded / "GGA_Relax_1" / "inputs" / "POSCAR")
    silicon.copy().apply_strain(0.004).to(filename=str(folder / "diamond.cif"))
    (silicon * (1, 1, 2)).perturb(0.05, seed=1).to(filename=str(folder / "four.cif"))
    paths = [str(folder / "diamond.cif"), str(folder / "four.cif")]
    if doomed:
        cubic = Structure([[2.6, 0, 0], [0, 2.6, 0], [0, 0, 2.6]], ["Si"], [[0, 0, 0]])
        cubic.to(filename=str(folder / "cubic.cif"))
        paths.append(str(folder / "cubic.cif"))
    return Campaign.model_validate(
        {
            "name": NAME,
            "space": {"system": "Si", "max_atoms": 8},
            "objective": {
                "minimize": "e_above_hull",
                "discovery": "e_above_hull <= 0.01 eV/atom",
            },
            "references": {"templates": False},
            "generators": [{"use": "files", "with": {"paths": paths}}],
            "stages": [
                {
                    "name": "potential",
                    "evaluate": [
                        {"use": "relaxation", "with": {"model": "chgnet", "fmax": 0.1}},
                        "hull_distance",
                    ],
                },
                {
                    "name": "dft",
                    "calculate": {"use": "vasp", "with": ENGINE},
                    "evaluate": ["hull_distance"],
                    "core_hours": 10,
                },
            ],
            "feedback": "off",
            "budget": {"iterations": 1, "candidates": len(paths)},
        }
    )


def by_cell(ledger: Ledger, stage: str) -> dict[int, Any]:
    """Return the decisions of a stage by the number of atoms of their crystals."""
    sizes = {c.candidate_id: len(c.structure) for c in ledger.candidates(NAME)}
    return {sizes[d.candidate_id]: d for d in ledger.decisions(NAME, 0, stage)}


def check(ledger: Ledger, recorded: Path) -> None:
    """Hold what is the same wherever the campaign ran."""
    engine = Vasp(**ENGINE)
    silicon = Structure.from_file(recorded / "GGA_Relax_1" / "inputs" / "POSCAR")
    resources = ledger.states(NAME)[-1].resources
    low = read_packed(ledger, resources["phases"], PhaseSet)
    high = read_packed(ledger, resources["phases.dft"], PhaseSet)
    assert low.theory.kind == "mlip"
    assert {phase.theory.key for phase in high.phases} == {engine.theory(silicon).key}
    reference = next(phase for phase in high.phases if phase.phase_id == "Si-diamond")
    assert reference.energy == pytest.approx(ENERGY, abs=1e-6)
    decided = by_cell(ledger, "dft")
    assert decided[2].outcome == "passed"
    assert decided[4].outcome == "failed"
    assert "it has 4 atoms, at most 2 are allowed" in decided[4].reason
    (calculated, distance) = (
        ledger.evaluations([key])[key].evaluation for key in decided[2].evaluations
    )
    assert calculated.theory == engine.theory(silicon)
    assert calculated.quantities["energy_per_atom"].value == pytest.approx(ENERGY, abs=1e-6)
    assert calculated.cost.threads == 16
    assert distance.quantities["e_above_hull"].value == pytest.approx(0.0, abs=1e-6)
    summary = summarize(ledger, NAME)
    assert summary.fidelity is not None
    assert len(summary.fidelity.pairs) == 1
    assert summary.spent.calculations == 2 + (1 in decided)
    for row in summary.funnel:
        assert row.entered == row.passed + row.rejected + row.failed + row.held
    page = render_report(summary)
    assert "mp2020" in page.lower()


def test_in_one_process(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CHGNet, then the replay: a hull of each, verdicts from task documents that stay atomate2's,
    and a second campaign in the same ledger replays nothing."""
    import atomate2

    command = f"{sys.executable} -m matloop.testing.vasp_replay {recorded}"
    monkeypatch.setattr(atomate2.SETTINGS, "VASP_CMD", command)
    declared = campaign(recorded, tmp_path / "crystals")
    directory = tmp_path / "run"
    with in_process(recorded, ALLOWED) as taken:
        state = local.run(declared, directory)
        assert state.status == "finished"
        assert [path.name for path in taken] == 2 * ["GGA_Relax_1", "GGA_Relax_2", "GGA_Static"]
        local.run(declared.model_copy(update={"name": "again"}), directory)
        assert len(taken) == 6
    ledger = read_ledger(directory)
    check(ledger, recorded)
    ledger.close()
    store = outputs(directory)
    store.connect()
    found = [item["output"] for item in store.query({}, load=True)]
    labels = [TaskDoc(**document).task_label for document in found]
    assert sorted(labels) == 4 * ["MP GGA relax"] + 2 * ["MP GGA static"] + [None]
    store.close()
