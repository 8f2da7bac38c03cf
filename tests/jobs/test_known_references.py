"""Libraries of known crystals that a campaign names."""

from datetime import UTC, datetime

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.campaign import Campaign, GeneratorEntry, IterationState, Stage
from matloop.documents.candidate import Candidate, Origin
from matloop.documents.objective import Objective
from matloop.documents.phase import Known
from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError
from matloop.evaluators.novelty import Novelty
from matloop.jobs.place import stage_resources
from matloop.jobs.prepare import known_crystals
from matloop.ledger.opening import open_ledger
from matloop.references.library import Library

SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)


@pytest.fixture
def ledger(tmp_path):
    """Return an empty ledger."""
    ledger = open_ledger(tmp_path / "ledger", create=True)
    yield ledger
    ledger.close()


def test_novelty_is_judged_against_what_the_ledger_keeps_of_them(ledger, tmp_path):
    """The library may be moved or grow afterwards: the campaign's own copy counts."""
    folder = tmp_path / "library"
    Library(folder).add([Known(known_id="periclase", structure=SALT)])
    artifact = known_crystals(ledger, [str(folder)])
    folder.rename(tmp_path / "moved")
    state = IterationState(
        campaign_id="x",
        iteration=0,
        status="running",
        resources={"known": artifact},
        shares={},
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    campaign = Campaign(
        name="x",
        space=ChemicalSpace(system="Mg-O"),
        objective=Objective(minimize="e_above_hull"),
        generators=(GeneratorEntry(use="random_symmetric"),),
        stages=(Stage(name="rules"),),
    )
    resources = stage_resources(ledger, campaign, state, "rules")
    batch = [
        Candidate(candidate_id=name, structure=structure, origin=Origin(generator="toy"))
        for name, structure in (
            ("salt", SALT.get_primitive_structure()),
            ("other", Structure(Lattice.cubic(2.6), ["Mg", "O"], [[0, 0, 0], [0.5] * 3])),
        )
    ]
    found = Novelty().evaluate(batch, resources)
    assert [evaluation.verdict for evaluation in found] == ["reject", "pass"]
    assert "matches known crystal periclase" in found[0].reason
    assert np.isclose(found[1].quantities["novel"].value, 1.0)


def test_a_folder_without_a_library_is_named(ledger, tmp_path):
    """A slip in the path is no empty library."""
    with pytest.raises(ConfigurationError, match=r"holds no library.*matloop known"):
        known_crystals(ledger, [str(tmp_path)])
