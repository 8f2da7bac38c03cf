"""Submission: the campaign of a laptop through a real LaunchPad, each workflow exactly once."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from pymongo import MongoClient

from matloop.documents.campaign import Campaign, CampaignRecord, GeneratorEntry
from matloop.documents.operation import Control, Receipt
from matloop.errors import ConfigurationError
from matloop.jobs.place import close_ledgers
from matloop.launch import local
from matloop.launch.site import Site, parse_site
from matloop.testing.toys import toys_registered

from .contents import contents

if TYPE_CHECKING:
    from fireworks import LaunchPad

pytestmark = pytest.mark.mongo

CAMPAIGN = Campaign.model_validate(
    {
        "name": "toys",
        "space": {"system": "Al-Ni-Ti", "max_atoms": 4},
        "objective": {"minimize": "e_above_hull", "discovery": "e_above_hull <= 0.1 eV/atom"},
        "references": {"max_elements": 1, "templates": False},
        "generators": ["toy_generator", "evolution"],
        "stages": [
            {"name": "validity", "evaluate": ["minimum_distance", "uniqueness"]},
            {
                "name": "relaxation",
                "evaluate": ["toy_relaxation"],
                "worker_kind": "gpu",
                "chunk": 5,
            },
            {"name": "stability", "evaluate": ["hull_distance"]},
        ],
        "budget": {"iterations": 2, "candidates": 40},
    }
)


@pytest.fixture
def site(mongodb_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return a site with a database of its own, and let campaigns name toys."""
    database = f"matloop_test_{uuid4().hex[:12]}"
    secret = tmp_path / "uri"
    secret.touch(mode=0o600)
    secret.write_text(mongodb_uri)
    file = tmp_path / "site.yaml"
    text = json.dumps(
        {
            "name": "test",
            "database": {"name": database, "uri_file": str(secret)},
            "directory": str(tmp_path / "shared"),
            "kinds": {"cpu": {}, "gpu": {"max_jobs": 3}},
        }
    )
    file.write_text(text)
    monkeypatch.chdir(tmp_path)
    logging.disable(logging.INFO)
    with toys_registered():
        yield parse_site(text, file)
    logging.disable(logging.NOTSET)
    close_ledgers()
    with MongoClient(mongodb_uri) as client:
        client.drop_database(database)


def work(site: Site, most: int = 1000) -> int:
    """Run fireworks of all kinds here until none is ready, and return how many."""
    from fireworks import FWorker
    from fireworks.core.rocket_launcher import launch_rocket

    launchpad, done = site.launchpad(), 0
    workers = [FWorker(name=kind, category=kind) for kind in site.kinds]
    here = Path.cwd()
    while done < most and any(launch_rocket(launchpad, w, strm_lvl="ERROR") for w in workers):
        done += 1
        os.chdir(here)
    return done


def workflows(launchpad: LaunchPad) -> list[int]:
    found = launchpad.workflows.find({}, {"metadata": 1})
    return sorted(item["metadata"]["matloop"]["iteration"] for item in found)


def test_submitted_and_run_are_the_same_campaign(site: Site, tmp_path: Path) -> None:
    """Candidates, verdicts, decisions, states and artifacts do not depend on the launcher (P6)."""
    from matloop.launch.submission import submit

    local.run(CAMPAIGN, tmp_path / "here", base=tmp_path)
    submit(site, CAMPAIGN, tmp_path)
    work(site)
    expected, found = contents(tmp_path / "here", "toys"), contents(site.ledger(), "toys")
    for part in expected:
        assert found[part] == expected[part], part
    names = [item["name"] for item in site.launchpad().fireworks.find({}, {"name": 1})]
    assert sum(name.startswith("evaluate relaxation 0.") for name in names) >= 4
    assert workflows(site.launchpad()) == [-1, 0, 1]


def test_a_workflow_is_submitted_once_by_many(site: Site) -> None:
    """Eight at once, and again after every job, add each workflow exactly once."""
    from matloop.launch.submission import ensure, submit

    submit(site, CAMPAIGN)
    launchpad = site.launchpad()
    launchpad.workflows.delete_many({})
    launchpad.fireworks.delete_many({})
    launchpad.db["matloop_submissions"].delete_many({})
    ledger = site.ledger().open()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(ensure, site, "toys", ledger, site.launchpad()) for _ in range(8)]
        outcomes = [call.result() for call in calls]
    assert sum(outcome.submitted for outcome in outcomes) == 1
    assert workflows(launchpad) == [-1]
    while work(site, 1):
        ensure(site, "toys", ledger, launchpad)
    assert workflows(launchpad) == [-1, 0, 1]
    outcome = ensure(site, "toys", ledger, launchpad)
    assert not outcome.submitted
    assert outcome.reason == "finished: all 2 iterations are done"


def test_a_claim_does_not_outlive_its_owner(site: Site) -> None:
    """Who dies between claiming a workflow and adding it is replaced after a minute."""
    from matloop.launch.submission import CLAIMS, ensure, submit

    submit(site, CAMPAIGN)
    launchpad, ledger = site.launchpad(), site.ledger().open()
    launchpad.workflows.delete_many({})
    launchpad.fireworks.delete_many({})
    outcome = ensure(site, "toys", ledger, launchpad)
    assert outcome.reason == "another process is submitting it"
    long_ago = {"$set": {"claimed_at": datetime.now(UTC) - timedelta(minutes=2)}}
    launchpad.db[CLAIMS].update_many({}, long_ago)
    assert ensure(site, "toys", ledger, launchpad).submitted


def test_nothing_is_submitted_against_orders_or_budgets(site: Site) -> None:
    """A paused campaign, and one that took its core-hours of the day, wait and say so."""
    from matloop.launch.submission import ensure, submit

    budget = CAMPAIGN.budget.model_copy(update={"core_hours_per_day": 2.0})
    submit(site, CAMPAIGN.model_copy(update={"budget": budget}))
    launchpad, ledger, now = site.launchpad(), site.ledger().open(), datetime.now(UTC)
    work(site, 1)  # the preparation; its successor has not been submitted yet
    for number, order in enumerate(("pause", "resume")):
        ledger.add_control(Control(campaign_id="toys", number=number, order=order, given_at=now))
        reason = ensure(site, "toys", ledger, launchpad).reason
        assert reason == ("paused" if order == "pause" else "")
    launchpad.workflows.delete_many({"metadata.matloop.iteration": 0})
    ledger.add_receipt(
        Receipt(
            receipt_id="1",
            campaign_id="toys",
            iteration=0,
            job="evaluate relaxation",
            kind="cpu",
            worker="w",
            started_at=now - timedelta(hours=3),
            seconds=3600,
            cores=2.5,
        )
    )
    reason = ensure(site, "toys", ledger, launchpad).reason
    assert reason == "took 2.5 core-hours in the last 24 hours, 2 are allowed"


def test_no_document_holds_the_address(site: Site, mongodb_uri: str) -> None:
    """The server's address is in none of the documents of a whole campaign."""
    from matloop.launch.submission import submit

    submit(site, CAMPAIGN)
    work(site)
    with MongoClient(mongodb_uri) as client:
        database = client[site.database.name]
        collections = database.list_collection_names()
        assert {"fireworks", "launches", "outputs", "candidates"} <= set(collections)
        for name in collections:
            for document in database[name].find():
                assert "mongodb://" not in str(document), name


def test_a_kind_the_site_lacks_is_named(site: Site) -> None:
    """A stage for workers that do not exist is refused before anything is recorded."""
    from matloop.launch.submission import submit

    stage = CAMPAIGN.stages[1].model_copy(update={"worker_kind": "quantum"})
    stages = (CAMPAIGN.stages[0], stage, CAMPAIGN.stages[2])
    with pytest.raises(ConfigurationError, match=r"stages\[1\].worker_kind.*'quantum', but cpu"):
        submit(site, CAMPAIGN.model_copy(update={"stages": stages}))
    assert site.ledger().open().campaign("toys") is None


def test_generators_that_want_a_gpu_propose_on_one(site: Site) -> None:
    """One such member moves the proposing job there, where the site has the kind, and no other."""
    from matloop.launch.submission import workflow

    record = CampaignRecord(
        campaign_id="toys", campaign=CAMPAIGN, versions={}, machine={}, created_at=datetime.now(UTC)
    )
    entries = (*CAMPAIGN.generators, GeneratorEntry(use="mattergen"))
    wishing = CAMPAIGN.model_copy(update={"generators": entries})

    def kinds(site: Site, campaign: Campaign) -> dict[str, str]:
        flow = workflow(site, record.model_copy(update={"campaign": campaign}), 0)
        return {item.name: item.spec["_category"] for item in flow.fws}

    before, after = kinds(site, CAMPAIGN), kinds(site, wishing)
    assert {name for name in before if before[name] != after[name]} == {"propose"}
    assert (before["propose"], after["propose"]) == ("cpu", "gpu")
    without = site.model_copy(update={"kinds": {"cpu": site.kinds["cpu"]}})
    stages = tuple(s.model_copy(update={"worker_kind": ""}) for s in CAMPAIGN.stages)
    assert kinds(without, wishing.model_copy(update={"stages": stages}))["propose"] == "cpu"
