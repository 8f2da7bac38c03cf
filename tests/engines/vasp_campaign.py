"""A campaign whose last stage is a replay of recorded VASP runs, and what must come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Structure

from matloop.documents.campaign import Campaign
from matloop.documents.phase import PhaseSet
from matloop.engines.vasp.engine import Vasp
from matloop.ledger.interface import Ledger
from matloop.ledger.past import read_packed
from matloop.reports.html import render_report
from matloop.reports.summary import summarize

from .vasp_data import unpacked

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


def unpacked_runs(target: Path) -> Path:
    """Return the folder of the three recorded runs of silicon; skip the tests if it is absent."""
    folder = unpacked("vasp_recorded.tar.xz", target)
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
    sizes = {
        record.candidate.candidate_id: len(record.candidate.structure)
        for record in ledger.candidates(NAME)
    }
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
