"""Campaigns whose last stage is a replay of recorded VASP runs. Nothing here runs VASP."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

pytest.importorskip("atomate2")
pytest.importorskip("fireworks")

from emmet.core.tasks import TaskDoc
from pymongo import MongoClient

from matloop.jobs.calculate import outputs
from matloop.jobs.place import close_ledgers
from matloop.launch import local
from matloop.ledger.opening import read_ledger
from matloop.testing.vasp_replay import in_process

from .vasp_campaign import ALLOWED, NAME, by_cell, campaign, check, unpacked_runs

if TYPE_CHECKING:
    from matloop.launch.site import Site

pytestmark = pytest.mark.dft


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked_runs(tmp_path_factory.mktemp("recorded"))


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
