"""Gathering: which crystals a campaign may know, and what it must be told when some are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matloop.documents.campaign import References
from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError, MissingReferenceError
from matloop.references.embedded import entries
from matloop.references.gathering import ReferenceSet, gather

TITANATES = ChemicalSpace(system="Sr-Ti-O")


def ids(known: tuple[object, ...]) -> set[str]:
    """Return the names of crystals."""
    return {crystal.known_id for crystal in known}  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def binaries() -> ReferenceSet:
    """Sr-Ti-O with elements and binaries only."""
    return gather(References(max_elements=2), TITANATES, Path())


def test_phases_lie_inside_the_space(binaries: ReferenceSet) -> None:
    """The hull is spanned by elements and binaries of the system, and by no other element."""
    assert {"O-alpha-oxygen", "Ti-hcp", "Sr-fcc"} <= ids(binaries.phases)
    assert {"SrO-rocksalt", "TiO2-rutile", "TiO2-anatase", "Ti2O3-corundum"} <= ids(binaries.phases)
    for phase in binaries.phases:
        assert {str(e) for e in phase.structure.composition.elements} <= {"Sr", "Ti", "O"}
    sizes = [len(phase.structure.composition) for phase in binaries.phases]
    assert sizes == sorted(sizes)


def test_ternaries_are_withheld(binaries: ReferenceSet) -> None:
    """With max_elements 2 every known ternary of the system is for the report alone."""
    assert {"SrTiO3-perovskite-cubic", "Sr2TiO4-ruddlesden-popper-1"} <= ids(binaries.withheld)
    assert all(len(crystal.structure.composition) == 3 for crystal in binaries.withheld)


def test_templates_never_hold_a_withheld_crystal(binaries: ReferenceSet) -> None:
    """No template is, or relaxes from, a withheld composition: rediscovery would be copying."""
    hidden = {crystal.structure.composition.reduced_formula for crystal in binaries.withheld}
    shown = {crystal.structure.composition.reduced_formula for crystal in binaries.templates}
    assert hidden & shown == set()
    assert not ids(binaries.templates) & (ids(binaries.phases) | ids(binaries.withheld))
    assert "BaTiO3-perovskite-cubic" in ids(binaries.templates)
    assert len(binaries.templates) > 500


def test_templates_fit_the_space() -> None:
    """Elements and crystals of more atoms or elements than the space allows are no parents."""
    space = ChemicalSpace(system="Cu-Au", max_atoms=8)
    found = gather(References(), space, Path())
    assert found.templates
    assert all(len(crystal.structure) <= 8 for crystal in found.templates)
    assert {len(crystal.structure.composition) for crystal in found.templates} == {2}


def test_formulas_are_withheld_in_any_notation() -> None:
    """A formula withholds all its polymorphs, however it is written; the rest stays."""
    found = gather(References(withhold=("Ti2O4", "O3TiSr")), TITANATES, Path())
    assert ids(found.withheld) == {"TiO2-rutile", "TiO2-anatase", "SrTiO3-perovskite-cubic"}
    assert "Sr2TiO4-ruddlesden-popper-1" in ids(found.phases)


def test_templates_can_be_turned_off() -> None:
    """Without templates substitution has the system's own phases only."""
    assert gather(References(templates=False), TITANATES, Path()).templates == ()


def test_every_polymorph_of_the_embedded_set_is_kept() -> None:
    """Barium titanate keeps its cubic, tetragonal and rhombohedral form, close as they are."""
    found = gather(References(), ChemicalSpace(system="Ba-Ti-O"), Path())
    kept = {name for name in ids(found.phases) if name.startswith("BaTiO3")}
    assert kept == {f"BaTiO3-perovskite-{form}" for form in ("cubic", "tetragonal", "rhombohedral")}


def test_missing_elements_are_named_with_what_to_do() -> None:
    """Elements without a crystal are all named, with the reason and three ways out."""
    space = ChemicalSpace(elements=("Rn", "Cs", "Fr"))
    with pytest.raises(MissingReferenceError) as error:
        gather(References(), space, Path())
    message = str(error.value)
    assert "Fr (no crystal" in message
    assert "Rn (no crystal" in message
    assert "Cs" not in message.split(":", maxsplit=1)[0]
    assert "references.files" in message
    assert "space.deny" in message
    assert "embedded" not in message


def test_the_embedded_set_is_offered_when_it_is_off() -> None:
    """Without the embedded set and without files, turning it on is the advice."""
    with pytest.raises(MissingReferenceError, match=r"references\.embedded to true"):
        gather(References(embedded=False), TITANATES, Path())


def test_denied_elements_need_no_reference() -> None:
    """An element that may not occur does not span the hull."""
    space = ChemicalSpace(elements=("Cs", "Cl", "Rn"), deny=("Rn",))
    assert "CsCl-cscl" in ids(gather(References(), space, Path()).phases)


def test_a_withheld_element_is_missed() -> None:
    """Withholding an elemental phase leaves the hull without a corner, which is said at once."""
    with pytest.raises(MissingReferenceError, match="for Sr:"):
        gather(References(withhold=("Sr",)), TITANATES, Path())


@pytest.mark.parametrize("formula", ["SrTiXy3", "BaO", "", "Sr(Ti"])
def test_wrong_withheld_formulas_are_refused(formula: str) -> None:
    """A formula that is none, or lies outside the space, is a mistake with its field."""
    with pytest.raises(ConfigurationError) as error:
        gather(References(withhold=("SrTiO3", formula)), TITANATES, Path())
    assert error.value.mistakes[0].field == "references.withhold[1]"


def test_a_slip_in_a_withheld_formula_is_found() -> None:
    """SrTi03, written with a zero, reads as SrTi3: hiding nothing must not pass unnoticed."""
    with pytest.raises(ConfigurationError, match=r"no reference phase is SrTi3; .*SrTiO3"):
        gather(References(withhold=("SrTi03",)), TITANATES, Path())


def test_files_come_before_the_embedded_set(tmp_path: Path) -> None:
    """A user's crystal replaces the embedded one; a new one joins; a bad one is named."""
    rutile = next(e.structure for e in entries() if e.name == "TiO2-rutile").copy()
    rutile.scale_lattice(rutile.volume * 1.04)
    rutile.to(str(tmp_path / "mine.cif"))
    novel = Structure(Lattice.cubic(3.2), ["Sr", "Ti"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    novel.to(str(tmp_path / "POSCAR"), fmt="poscar")
    (tmp_path / "bad.cif").write_text("data_bad\n_atom_site_label\n nothing")
    found = gather(References(files=(tmp_path.name,)), TITANATES, tmp_path.parent)
    assert "mine" in ids(found.phases)
    assert "TiO2-rutile" not in ids(found.phases)
    assert "TiO2-anatase" in ids(found.phases)
    assert tmp_path.name in ids(found.phases)  # a POSCAR is named after its folder
    assert [Path(aside.name).name for aside in found.set_aside] == ["bad.cif"]


def test_files_may_withhold_and_serve_as_templates(tmp_path: Path) -> None:
    """The user's crystals obey the same rules: inside and withheld, or outside and a template."""
    known = {entry.name: entry.structure for entry in entries()}
    known["SrTiO3-perovskite-cubic"].to(str(tmp_path / "hidden.cif"))
    Structure(Lattice.cubic(4.2), ["La", "N"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(
        str(tmp_path / "outside.cif")
    )
    files = (str(tmp_path),)
    found = gather(References(files=files, withhold=("SrTiO3",)), TITANATES, Path())
    assert ids(found.withheld) == {"hidden"}
    assert "outside" in ids(found.templates)
    plain = gather(References(files=files, templates=False), TITANATES, Path())
    assert [aside.reason for aside in plain.set_aside] == ["it lies outside the chemical space"]


def test_a_user_can_bring_every_reference(tmp_path: Path) -> None:
    """Files alone are enough for a hull; ids stay unique where files share a name."""
    for folder, element, length in (("one", "Cu", 3.61), ("two", "Au", 4.08)):
        (tmp_path / folder).mkdir()
        faces = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
        crystal = Structure(Lattice.cubic(length), [element] * 4, faces)
        crystal.to(str(tmp_path / folder / "bulk.cif"))
    references = References(embedded=False, files=("one", "two"))
    found = gather(references, ChemicalSpace(system="Cu-Au"), tmp_path)
    assert [phase.known_id for phase in found.phases] == ["bulk-2", "bulk"]
    assert found.templates == ()


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    """A path that does not exist stops the campaign before anything is computed."""
    with pytest.raises(ConfigurationError, match=r"nowhere\.cif does not exist"):
        gather(References(files=("nowhere.cif",)), TITANATES, tmp_path)


def test_gathering_is_repeatable(binaries: ReferenceSet) -> None:
    """The same request gives the same crystals in the same order."""
    again = gather(References(max_elements=2), TITANATES, Path())
    for one, other in (
        (binaries.phases, again.phases),
        (binaries.templates, again.templates),
        (binaries.withheld, again.withheld),
    ):
        assert [crystal.known_id for crystal in one] == [crystal.known_id for crystal in other]


def test_withheld_perovskite_is_the_real_one(binaries: ReferenceSet) -> None:
    """What rediscovery is checked against is strontium titanate, with titanium in octahedra."""
    perovskite = next(c for c in binaries.withheld if c.known_id == "SrTiO3-perovskite-cubic")
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    published = Structure(Lattice.cubic(3.905), ["Sr", "Ti", "O", "O", "O"], places)
    assert StructureMatcher(ltol=0.01, stol=0.01, angle_tol=0.1).fit(
        perovskite.structure, published
    )
