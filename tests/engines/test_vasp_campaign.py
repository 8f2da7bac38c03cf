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
    assert sorted(labels) == 5 * ["MP GGA relax"] + 2 * ["MP GGA static"]  # one is the refusal
    store.close()


@pytest.fixture
def site(mongodb_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return a site with a database of its own, and workers for calculations."""
    from matloop.launch.site import parse_site

    database = f"matloop_vasp_{uuid4().hex[:12]}"
    secret = tmp_path / "uri"
    secret.touch(mode=0o600)
    secret.write_text(mongodb_uri)
    text = json.dumps(
        {
            "name": "test",
            "database": {"name": database, "uri_file": str(secret)},
            "directory": str(tmp_path / "shared"),
            "kinds": {"cpu": {}, "dft": {}},
        }
    )
    (tmp_path / "site.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    logging.disable(logging.INFO)
    yield parse_site(text, tmp_path / "site.yaml")
    logging.disable(logging.NOTSET)
    close_ledgers()
    with MongoClient(mongodb_uri) as client:
        client.drop_database(database)


def work(site: Site, folder: Path) -> list[tuple[str, str]]:
    """Run fireworks until none is ready, each in a folder of its own; return kinds and names."""
    from fireworks import FWorker
    from fireworks.core.rocket_launcher import launch_rocket

    launchpad, done = site.launchpad(), 0
    while True:
        for kind in site.kinds:
            here = folder / f"launch-{done}"
            here.mkdir(parents=True, exist_ok=True)
            os.chdir(here)
            if launch_rocket(launchpad, FWorker(name=kind, category=kind), strm_lvl="CRITICAL"):
                done += 1
                break
        else:
            break
    found = []
    for launch in launchpad.launches.find({}, {"fw_id": 1, "fworker.category": 1}):
        firework = launchpad.fireworks.find_one({"fw_id": launch["fw_id"]}, {"name": 1})
        found.append((launch["fworker"]["category"], firework["name"]))
    return sorted(found)


@pytest.mark.mongo
def test_through_fireworks(recorded: Path, tmp_path: Path, site: Site) -> None:
    """The same campaign as jobs: calculations on workers of kind dft, verdicts on others; one that
    no run was recorded of is tried twice and ends as a verdict that says so."""
    from matloop.launch.submission import submit

    submit(site, campaign(recorded, tmp_path / "crystals", doomed=True), tmp_path)
    with in_process(recorded, ALLOWED) as taken:
        ran = work(site, tmp_path / "launches")
    assert [path.name for path in taken] == 2 * ["GGA_Relax_1", "GGA_Relax_2", "GGA_Static"]
    ledger = site.ledger().open()
    assert ledger.states(NAME)[-1].status == "finished"
    check(ledger, recorded)
    lost = by_cell(ledger, "dft")[1]
    assert lost.outcome == "failed"
    assert "died 2 times without a word" in lost.reason
    calculated = [name for kind, name in ran if kind == "dft"]
    doomed = [name for name in calculated if name.startswith(lost.candidate_id)]
    assert doomed == 2 * [f"{lost.candidate_id} MP GGA relax"]
    assert sum(name.endswith("MP GGA static") for name in calculated) == 2
    assert sum(name.startswith("conclude ") for kind, name in ran if kind == "cpu") == 5
    assert not any(name.startswith("conclude ") for name in calculated)


@pytest.mark.slow
@pytest.mark.mongo
@pytest.mark.slurm
@pytest.mark.timeout(1200)
def test_on_slurm(recorded: Path, tmp_path: Path, on_cluster: Stack, place: Place) -> None:
    """The same in SLURM jobs, with custodian and a command that replays."""
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
    assert "VASP" in lost.reason
    kinds = {
        firework["spec"]["_category"]
        for firework in place.launchpad.fireworks.find({"name": {"$regex": "MP GGA"}})
    }
    assert kinds == {"dft"}
