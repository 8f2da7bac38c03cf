"""Documents: exact round trips, honest hulls, spaces that are not empty."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from pymatgen.core import Composition, Lattice, Structure

from matloop.documents.candidate import Candidate, Origin, Quantity, structure_digest
from matloop.documents.phase import Archive, Known, Phase, PhaseSet
from matloop.documents.space import ChemicalSpace
from matloop.documents.theory import LevelOfTheory
from matloop.errors import TheoryMismatchError

CRYSTAL = Structure(
    Lattice.from_parameters(3.1, 4.2, 5.3, 80, 95, 101), ["Sr", "O"], [[0, 0, 1 / 3], [0.1, 0.7, 1]]
)
TOY = LevelOfTheory(kind="empirical", code="toy", version="1", model="toy")


def test_a_candidate_survives_json_bit_by_bit() -> None:
    """Coordinates and lattice come back from JSON exactly, not nearly."""
    candidate = Candidate(candidate_id="a", structure=CRYSTAL, origin=Origin(generator="g"))
    again = Candidate.model_validate_json(candidate.model_dump_json())
    assert (again.structure.frac_coords == CRYSTAL.frac_coords).all()
    assert (again.structure.lattice.matrix == CRYSTAL.lattice.matrix).all()
    assert again == candidate


def test_the_digest_names_a_description() -> None:
    """Translation by a lattice vector keeps the digest; moving an atom by 1e-4 changes it."""
    shifted = CRYSTAL.copy()
    shifted.translate_sites([0], [1, 0, -2], to_unit_cell=False)
    moved = CRYSTAL.copy()
    moved.translate_sites([0], [1e-4, 0, 0])
    assert structure_digest(shifted) == structure_digest(CRYSTAL)
    assert structure_digest(moved) != structure_digest(CRYSTAL)


def test_energies_of_two_levels_never_meet() -> None:
    """A phase of another level of theory is refused, whatever its code or settings are (P5)."""
    other = TOY.model_copy(update={"settings": {"cutoff": 6.0}})
    phase = Phase(phase_id="x", structure=CRYSTAL, energy=-1.0, theory=other)
    with pytest.raises(TheoryMismatchError, match="recompute the phase"):
        PhaseSet(theory=TOY, phases=(phase,))


def test_equal_artifacts_have_equal_bytes() -> None:
    """Packing twice gives the same bytes, so that the same content has the same name."""
    archive = Archive(crystals=(Known(known_id="a", structure=CRYSTAL),))
    assert archive.to_bytes() == archive.to_bytes()
    assert Archive.from_bytes(archive.to_bytes()) == archive


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"system": "Sr-Xx"}, "'Xx' is not a chemical element"),
        ({"system": "Sr-O", "deny": ("Sr", "O")}, "chemical space is empty"),
        ({}, "chemical space is empty"),
        ({"system": "Sr-O", "min_elements": 3}, "only 2 elements are allowed"),
        ({"system": "Sr-O", "elements": ("Sr",)}, "either system or elements"),
        ({"system": "Sr-O", "min_atoms": 9, "max_atoms": 8}, "max_atoms is below min_atoms"),
        ({"system": "Sr-Sr"}, "named twice"),
    ],
)
def test_an_empty_space_is_refused(fields: dict, complaint: str) -> None:
    """A space that holds no crystal is refused with what is wrong with it."""
    with pytest.raises(ValidationError, match=complaint):
        ChemicalSpace(**fields)


def test_objections_say_why() -> None:
    """Strangers, too many elements and too many atoms are each named."""
    space = ChemicalSpace(system="Sr-Ti-O", max_elements=2, max_atoms=8)
    assert space.objection(Composition("Sr1O1")) is None
    assert "holds Ba" in str(space.objection(Composition("Ba1O1")))
    assert "3 elements" in str(space.objection(Composition("SrTiO3")))
    assert "12 atoms" in str(space.objection(Composition("Sr6O6")))


def found(name: str, energy: float, distance: float | None, theory: str) -> Candidate:
    """Return a candidate as the ladder left it."""
    quantities = {"energy_per_atom": Quantity(value=energy, unit="eV/atom", theory=theory)}
    if distance is not None:
        quantities["e_above_hull"] = Quantity(value=distance, unit="eV/atom", theory=theory)
    return Candidate(
        candidate_id=name, structure=CRYSTAL, origin=Origin(generator="g"), quantities=quantities
    )


def test_a_hull_grows_by_what_lies_on_or_below_it() -> None:
    """Only crystals on or below the hull, at its level of theory, join it, each once."""
    start = Phase(phase_id="SrO", structure=CRYSTAL, energy=-2.0, theory=TOY)
    grown = PhaseSet(theory=TOY, phases=(start,)).grown(
        [
            found("below", -2.1, -0.1, TOY.key),
            found("on", -2.0, 0.0, TOY.key),
            found("above", -1.9, 0.1, TOY.key),
            found("elsewhere", -9.0, -7.0, "another method"),
            found("unplaced", -2.2, None, TOY.key),
            found("SrO", -2.3, -0.3, TOY.key),
        ]
    )
    assert [(phase.phase_id, phase.source) for phase in grown.phases] == [
        ("SrO", "reference"),
        ("below", "found"),
        ("on", "found"),
    ]
    assert grown.phases[1].energy == -2.1
