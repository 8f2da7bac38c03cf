"""Jobs carry places: small documents, without secrets, the same for every launcher (P6, P8)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monty.json import MontyDecoder, MontyEncoder

from matloop.documents.campaign import Campaign
from matloop.flows.iteration import IterationMaker
from matloop.jobs.place import Place, derived_seed
from matloop.ledger.opening import LedgerConfig

CAMPAIGN = Campaign.model_validate(
    {
        "name": "small",
        "space": {"system": "Sr-Ti-O"},
        "objective": {"minimize": "e_above_hull"},
        "generators": [{"use": "random_symmetric"}],
        "stages": [
            {"name": "validity", "evaluate": ["minimum_distance"]},
            {"name": "relaxation", "evaluate": [{"use": "relaxation"}, "hull_distance"]},
        ],
        "budget": {"candidates": 100_000},
    }
)


def test_job_documents_do_not_grow_with_the_batch(tmp_path: Path) -> None:
    """An iteration of 100,000 candidates is a workflow of a few kilobytes per job."""
    pytest.importorskip("fireworks")
    from jobflow.managers.fireworks import flow_to_workflow

    place = Place(LedgerConfig(directory=str(tmp_path)), "small", 3)
    flow = IterationMaker().make(place, CAMPAIGN)
    workflow = flow_to_workflow(flow)
    sizes = [len(json.dumps(firework.to_dict(), default=str)) for firework in workflow.fws]
    assert len(sizes) == 1 + 2 * 2 + 2
    assert max(sizes) < 20_000


def test_a_place_travels_and_holds_no_secret(tmp_path: Path) -> None:
    """A place survives JSON, and a database address is named, never written."""
    config = LedgerConfig(directory=str(tmp_path), kind="mongodb", uri_variable="OUR_DATABASE")
    place = Place(config, "small", 3, "relaxation")
    text = json.dumps(place, cls=MontyEncoder)
    assert MontyDecoder().process_decoded(json.loads(text)) == place
    assert "mongodb://" not in text


def test_seeds_of_different_parts_differ() -> None:
    """Parts of a campaign have seeds of their own, equal in every process."""
    seeds = {
        derived_seed(seed, iteration, part)
        for seed in range(3)
        for iteration in range(3)
        for part in ("random_symmetric", "substitution", "stage relaxation")
    }
    assert len(seeds) == 27
    assert derived_seed(7, 0, "random_symmetric") == 4278562657
