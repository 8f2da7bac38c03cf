"""`matloop plugins`."""

from __future__ import annotations

import json


def test_every_plugin_says_where_it_is_from_and_what_it_takes(matloop) -> None:
    """JSON holds kind, name, distribution, version, summary and documented parameters."""
    entries = json.loads(matloop("plugins", "--json").out)
    kinds = {entry["kind"] for entry in entries}
    assert {"generators", "evaluators", "selectors", "learners", "allocators", "models"} <= kinds
    own = [entry for entry in entries if entry["distribution"] == "matloop"]
    assert all("error" not in entry for entry in own), [e for e in own if "error" in e]
    for entry in own:
        assert entry["version"]
        assert entry["summary"]
        for parameter in entry["parameters"]:
            assert parameter["doc"], (entry["name"], parameter["name"])
    relaxation = next(entry for entry in own if entry["name"] == "relaxation")
    assert relaxation["produces"]["energy_per_atom"] == "eV/atom"


def test_one_kind_or_name_is_shown_alone(matloop) -> None:
    """A name narrows the list; an unknown one is a mistake."""
    said = matloop("plugins", "relaxation")
    assert "fmax" in said.out
    assert "random_symmetric" not in said.out
    assert matloop("plugins", "nonsense").code == 2
