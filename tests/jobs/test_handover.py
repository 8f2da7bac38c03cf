"""What a stage hands on within a process is what the ledger holds."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.jobs.handover import hand_over, handed_over
from matloop.jobs.place import Place
from matloop.ledger.opening import LedgerConfig


def test_candidates_come_back_to_the_last_bit_and_only_to_their_stage() -> None:
    """Crystal, origin and quantities are equal; another stage or iteration finds nobody."""
    rng = np.random.default_rng(3)
    candidates = [
        Candidate(
            candidate_id=f"c{number}",
            structure=Structure(
                Lattice(rng.normal(scale=4.0, size=(3, 3))), ["Al", "Ni"], rng.random((2, 3))
            ),
            origin=Origin(generator="toy", parameters={"sites": 2, "share": rng.random()}),
            quantities={"density": Quantity(value=rng.random(), unit="g/cm^3")},
        )
        for number in range(20)
    ]
    place = Place(LedgerConfig(directory="."), "mgo", 1, "rules")
    hand_over(place, candidates)
    hand_over(place, [])
    next_stage = Place(LedgerConfig(directory="."), "mgo", 1, "relaxation")
    names = ["c3", "c19", "nobody"]
    found = handed_over(next_stage, "rules", names)
    assert list(found) == ["c3", "c19"]
    for name, candidate in found.items():
        expected = candidates[int(name[1:])]
        assert candidate.model_dump() == expected.model_dump()
        assert np.array_equal(candidate.structure.frac_coords, expected.structure.frac_coords)
    assert handed_over(next_stage, "validity", names) == {}
    other = Place(LedgerConfig(directory="."), "mgo", 2, "relaxation")
    assert handed_over(other, "rules", names) == {}
