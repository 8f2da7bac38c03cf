"""A campaign that ends in real density-functional theory: a potential first, GPAW last."""

from __future__ import annotations

import sqlite3
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.campaign import Campaign
from matloop.documents.phase import PhaseSet
from matloop.engines.gpaw import Gpaw
from matloop.jobs.calculate import OUTPUTS, outputs
from matloop.launch import local
from matloop.ledger.accounts import accounts
from matloop.ledger.interface import Ledger
from matloop.ledger.opening import read_ledger
from matloop.ledger.past import read_packed
from matloop.reports.html import render_report
from matloop.reports.summary import summarize

pytestmark = [
    pytest.mark.dft,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gpaw") is None, reason="GPAW is not installed: make gpaw"),
]

NAME = "al-li"
ENGINE: dict[str, Any] = {"cutoff": 260, "kpoint_density": 4, "fmax": 0.1}


def campaign(folder: Path) -> Campaign:
    """Return a campaign that is given LiAl as in NaTl, LiAl3 as in AuCu3, and too large a cell."""
    folder.mkdir()
    zintl = Structure.from_spacegroup(
        "Fd-3m", Lattice.cubic(6.37), ["Li", "Al"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()
    ordered = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(4.01), ["Li", "Al"], [[0, 0, 0], [0.5, 0.5, 0]]
    )
    for name, crystal in (("LiAl", zintl), ("LiAl3", ordered), ("large", ordered * (2, 1, 1))):
        crystal.to(filename=str(folder / f"{name}.cif"))
    return Campaign.model_validate(
        {
            "name": NAME,
            "space": {"system": "Al-Li", "min_elements": 2, "max_atoms": 8},
            "objective": {
                "minimize": "e_above_hull",
                "discovery": "e_above_hull <= 0.02 eV/atom",
            },
            "references": {"max_elements": 1, "templates": False},
            "generators": [{"use": "files", "with": {"paths": [str(folder)]}}],
            "stages": [
                {
                    "name": "relaxation",
                    "evaluate": [{"use": "relaxation", "with": {"fmax": 0.1}}, "hull_distance"],
                    "workers": "auto",
                    "chunk": 2,
                },
                {
                    "name": "dft",
                    "calculate": {"use": "gpaw", "with": {**ENGINE, "max_atoms": 4}},
                    "evaluate": ["hull_distance"],
                    "workers": "auto",
                    "core_hours": 1,
                },
            ],
            "feedback": {"learn": ["fidelity_correction"]},
            "budget": {"iterations": 1, "candidates": 3},
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Campaign, Path]:
    """Return a campaign and its folder after it ran, with a cache of prototypes of its own."""
    folder = tmp_path_factory.mktemp("gpaw")
    declared, directory = campaign(folder / "crystals"), folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert local.run(declared, directory).status == "finished"
    return declared, directory


@pytest.fixture
def ledger(finished: tuple[Campaign, Path]) -> Any:
    found = read_ledger(finished[1])
    yield found
    found.close()


def calculated(ledger: Ledger) -> dict[str, Any]:
    """Return the decisions of the last stage by formula and number of atoms."""
    crystals = {
        record.candidate.candidate_id: record.candidate.structure
        for record in ledger.candidates(NAME)
    }
    return {
        f"{crystals[d.candidate_id].composition.reduced_formula} {len(crystals[d.candidate_id])}": d
        for d in ledger.decisions(NAME, 0, "dft")
    }


def test_a_hull_of_one_theory(ledger: Ledger) -> None:
    """Elements and compounds lie on a hull whose every energy is GPAW's, with these settings."""
    theory = Gpaw(**ENGINE).level()
    phases = read_packed(ledger, ledger.states(NAME)[-1].resources["phases.dft"], PhaseSet)
    assert {phase.theory.key for phase in phases.phases} == {theory.key}
    assert (theory.kind, theory.code) == ("dft", "gpaw")
    assert theory.dft is not None
    assert theory.dft.cutoff == 260
    found = {phase.structure.composition.reduced_formula for phase in phases.phases}
    assert {"Al", "Li", "LiAl"} <= found


def test_the_compound_is_bound_as_pbe_says(ledger: Ledger) -> None:
    """LiAl in its own structure is on the hull and forms with about -0.18 eV/atom."""
    decision = calculated(ledger)["LiAl 4"]
    assert decision.outcome == "passed"
    energy, hull = (ledger.evaluations([k])[k].evaluation for k in decision.evaluations)
    assert energy.quantities["energy_per_atom"].theory == Gpaw(**ENGINE).level().key
    assert energy.cost.calls > 1
    assert hull.quantities["formation_energy"].value == pytest.approx(-0.18, abs=0.02)
    assert hull.quantities["e_above_hull"].value <= 1e-9


def test_the_funnel_adds_up_and_what_was_refused_says_why(ledger: Ledger) -> None:
    """Three enter; the large cell fails before anything is calculated, others are judged."""
    summary = summarize(ledger, NAME)
    assert [row.entered for row in summary.funnel] == [3, 3]
    for row in summary.funnel:
        assert row.entered == row.passed + row.rejected + row.failed + row.held
    decided = calculated(ledger)
    assert decided["LiAl3 8"].outcome == "failed"
    assert "8 atoms are more than the 4 allowed" in decided["LiAl3 8"].reason
    account = accounts(ledger, NAME)["dft"]
    assert account.running == 0
    assert account.calculations == 5  # two elements among them
    assert 0 < account.core_hours.spent < 1


def test_task_documents_are_kept_as_atomate2s(finished: tuple[Campaign, Path]) -> None:
    """Every calculation's document is in the run's own store, and maggma reads it."""
    from atomate2.ase.schemas import AseStructureTaskDoc

    store = outputs(finished[1])
    store.connect()
    found = [item["output"] for item in store.query({}, load=True)]
    assert len(found) == 5
    good = [d for d in found if not d["gpaw"]["failure"]]
    plain = [
        {k: v for k, v in d.items() if k not in ("gpaw", "@module", "@class", "@version")}
        for d in good
    ]
    formulas = {AseStructureTaskDoc(**document).formula_pretty for document in plain}
    assert formulas == {"Al", "Li", "LiAl", "LiAl3"}
    assert all(d["gpaw"]["cutoff_check"]["pairs"] for d in good)
    store.close()
    with sqlite3.connect(finished[1] / OUTPUTS) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


def test_the_report_speaks_of_both_levels(ledger: Ledger) -> None:
    """The page names GPAW's level of theory, and compares it with the potential's."""
    summary = summarize(ledger, NAME)
    assert summary.fidelity is not None
    assert len(summary.fidelity.pairs) == 2
    page = render_report(summary)
    assert "gpaw" in page
    assert "PBE" in page
    assert 'id="levels"' in page


def test_nothing_is_calculated_twice(finished: tuple[Campaign, Path]) -> None:
    """Another campaign in the same ledger finds every energy, and its verdicts are the same."""
    declared, directory = finished
    folders = sorted(directory.glob("calculations/*/*"))
    again = declared.model_copy(update={"name": "again", "seed": 5})
    local.run(again, directory)
    assert sorted(directory.glob("calculations/*/*")) == folders
    ledger = read_ledger(directory)
    outcomes = [
        sorted(
            (d.candidate_id.rsplit("-", 1)[0], d.outcome, d.reason)
            for d in ledger.decisions(name, 0, "dft")
        )
        for name in (NAME, "again")
    ]
    assert outcomes[0] == outcomes[1]
    assert accounts(ledger, "again")["dft"].core_hours.spent == 0
    ledger.close()
