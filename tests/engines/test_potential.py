"""A second potential verifies what the first has chosen, on a hull of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.campaign import Campaign
from matloop.documents.phase import PhaseSet
from matloop.engines.potential import Potential, relaxed
from matloop.launch import local
from matloop.ledger.opening import read_ledger
from matloop.ledger.past import read_packed
from matloop.reports.summary import summarize
from matloop.testing.conformance import check_engine

ALNI = Structure(Lattice.cubic(2.88), ["Al", "Ni"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CUAU = Structure.from_spacegroup(
    "P4/mmm", Lattice.tetragonal(2.8, 3.7), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)


def test_it_is_an_engine() -> None:
    """Two potentials, and two versions of one, are different levels of theory."""
    others = [Potential("chgnet"), Potential("chgnet", {"version": "r2scan"})]
    check_engine(Potential("ase"), [CUAU], others)


def test_failures_are_verdicts() -> None:
    """Elements that the potential does not know, and relaxations that do not converge."""
    engine = Potential("ase")
    salt = Structure(Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    found = engine.evaluation("a", relaxed(engine, salt))
    assert (found.candidate_id, found.verdict) == ("a", "fail")
    assert "Cl" in found.reason or "Na" in found.reason
    hasty = Potential("ase", max_steps=1, fmax=1e-4)
    found = hasty.evaluation("b", relaxed(hasty, CUAU * (2, 1, 1)))
    assert found.verdict == "fail"
    assert "did not reach" in found.reason
    assert not found.quantities
    with pytest.raises(ValueError, match="fmax must be positive"):
        Potential(fmax=0)


def test_a_campaign_reports_the_distance_of_the_second_potential(tmp_path: Path) -> None:
    """Chosen with effective medium theory, verified with CHGNet: two hulls, never one."""
    crystals = tmp_path / "crystals"
    crystals.mkdir()
    ALNI.to(filename=str(crystals / "AlNi.cif"))
    bad = Structure(Lattice.cubic(3.3), ["Al", "Al", "Al", "Ni"], [[0, 0, 0], [0.5, 0.5, 0],
                    [0.5, 0, 0.5], [0, 0.5, 0.5]])  # fmt: skip
    bad.to(filename=str(crystals / "Al3Ni.cif"))
    campaign = Campaign.model_validate(
        {
            "name": "verified",
            "space": {"system": "Al-Ni", "min_elements": 2, "max_atoms": 4},
            "objective": {
                "minimize": "e_above_hull",
                "discovery": "e_above_hull <= 0.05 eV/atom",
            },
            "references": {"max_elements": 1, "templates": False},
            "generators": [{"use": "files", "with": {"paths": [str(crystals)]}}],
            "stages": [
                {
                    "name": "relaxation",
                    "evaluate": [{"use": "relaxation", "with": {"model": "ase"}}, "hull_distance"],
                },
                {
                    "name": "verification",
                    "calculate": {"use": "potential", "with": {"model": "chgnet"}},
                    "evaluate": ["hull_distance"],
                },
            ],
            "budget": {"iterations": 1, "candidates": 2},
        }
    )
    assert local.run(campaign, tmp_path / "run").status == "finished"
    ledger = read_ledger(tmp_path / "run")
    state = ledger.states("verified")[-1]
    keys = []
    for name in ("phases", "phases.verification"):
        phases = read_packed(ledger, state.resources[name], PhaseSet)
        found = {phase.theory.key for phase in phases.phases}
        assert len(found) == 1
        keys += found
    assert keys[0] != keys[1]
    assert keys[1] == Potential("chgnet").theory(ALNI).key
    passed = {
        decision.candidate_id
        for decision in ledger.decisions("verified", 0, "verification")
        if decision.outcome == "passed"
    }
    summary = summarize(ledger, "verified")
    assert [row.entered for row in summary.funnel] == [2, 2]
    assert passed
    ledger.close()
