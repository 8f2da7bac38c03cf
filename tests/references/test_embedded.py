"""The embedded set: symmetry, chemistry and density of every crystal, against known values."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from moyopy import MoyoDataset
from moyopy.interface import MoyoAdapter
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element, Structure

from matloop.references import embedded
from matloop.references.embedded import Entry, Prototype, crystals, entries, prototypes

ENTRIES = {entry.name: entry for entry in entries()}
TABLE = Path(os.environ.get("MATLOOP_TEST_DATA", "no folder")) / "mp_structures.csv.gz"


def shortest_ratio(structure: Structure) -> float:
    """Return the shortest distance over the sum of atomic radii (Slater), for all pairs."""
    radii = np.array([float(site.specie.atomic_radius or 1.0) for site in structure])
    distances = structure.distance_matrix + np.diag(np.full(len(structure), np.inf))
    ratio = float((distances / (radii[:, None] + radii[None, :])).min())
    lattice = structure.lattice.get_niggli_reduced_lattice()
    return min(ratio, float(min(lattice.abc)) / (2 * float(radii.max())))


def nearest(structure: Structure, one: str, other: str) -> float:
    """Return the shortest distance between two elements (Å)."""
    found = [
        neighbour.nn_distance
        for site in structure
        if site.species_string == one
        for neighbour in structure.get_neighbors(site, 4.0)
        if neighbour.species_string == other
    ]
    return min(found)


def test_every_entry_has_the_formula_of_its_prototype() -> None:
    """The cell built by symmetry holds whole formula units of what the row declares."""
    wrong = [
        name
        for name, entry in ENTRIES.items()
        if entry.structure.composition.reduced_composition != entry.composition.reduced_composition
    ]
    assert wrong == []


def test_every_entry_has_the_space_group_of_its_prototype() -> None:
    """Symmetry found in the atoms alone is the one declared, in a cell that is primitive."""
    wrong = []
    for name, entry in ENTRIES.items():
        found = MoyoDataset(MoyoAdapter.from_structure(entry.structure), symprec=1e-3)
        if found.number != entry.prototype.space_group:
            wrong.append(f"{name}: {found.number}, declared {entry.prototype.space_group}")
        if len(found.prim_std_cell.numbers) != len(entry.structure):
            wrong.append(f"{name}: {len(entry.structure)} atoms are not primitive")
    assert wrong == []


def test_no_two_atoms_overlap() -> None:
    """No pair is closer than 0.7 of its atomic radii: a wrong coordinate would be."""
    close = {
        name: round(ratio, 2)
        for name, entry in ENTRIES.items()
        if len(entry.structure) > 1 and (ratio := shortest_ratio(entry.structure)) < 0.7
    }
    assert close == {}


def test_names_are_unique_and_readable() -> None:
    """Each name is formula and prototype, and stands for one crystal."""
    assert [name for name, count in Counter(e.name for e in entries()).items() if count > 1] == []
    assert "SrTiO3-perovskite-cubic" in ENTRIES
    assert "O-alpha-oxygen" in ENTRIES


def test_every_prototype_is_used_and_cited() -> None:
    """No prototype is dead weight, and every prototype and row says where it is from."""
    assert {entry.prototype.name for entry in entries()} == set(prototypes())
    assert all(prototype.source and prototype.title for prototype in prototypes().values())
    assert all(len(entry.citation) > 5 for entry in entries())


def test_every_parameter_is_used() -> None:
    """A row gives no parameter its prototype does not ask for, so a typing error cannot hide."""
    for entry in entries():
        triplets = " ".join(t for sites in entry.prototype.sites.values() for t in sites)
        extra = set(entry.parameters) - {"a", "b", "c", "beta"}
        assert all(name in triplets for name in extra), entry.name


def test_every_element_up_to_plutonium_has_a_reference() -> None:
    """An elemental crystal exists for each of the 94 elements but those left out with a reason."""
    have = {entry.formula for entry in entries() if len(entry.composition) == 1}
    wanted = {str(Element.from_Z(number)) for number in range(1, 95)}
    assert wanted - have == set(embedded.LEFT_OUT)


@pytest.mark.parametrize(
    "formulas",
    [
        {"Sr", "Ti", "O", "SrO", "SrO2", "TiO", "Ti2O3", "TiO2", "SrTiO3", "Sr2TiO4", "Sr3Ti2O7"},
        {"Ca", "CaO", "CaO2", "CaTiO3"},
        {"Mg", "Al", "MgO", "Al2O3", "MgAl2O4"},
        {"Ba", "BaO", "BaO2", "BaTiO3"},
        {"Al", "Ni", "Al3Ni", "Al3Ni2", "AlNi", "Al3Ni5", "AlNi3"},
        {"Ti", "Al", "Ti3Al", "TiAl", "TiAl2", "TiAl3"},
        {"Cu", "Au", "Cu3Au", "CuAu", "CuAu3"},
        {"Al", "Cu", "Al2Cu"},
        {"Ti", "C", "N", "TiC", "TiN", "Ti2N", "TiB", "Ti3B4", "TiB2", "B13C2", "Ti2C"},
        {"Mg", "Si", "Mg2Si", "SiO2", "Mg2SiO4", "MgSiO3"},
    ],
)
def test_common_systems_are_covered(formulas: set[str]) -> None:
    """The phases that shape the hulls of common systems are there."""
    assert formulas <= {entry.formula for entry in entries()}


# Handbook densities at room temperature (g/cm^3): CRC Handbook of Chemistry and Physics, and
# Anthony et al., Handbook of Mineralogy. They were measured by weighing, not by diffraction.
DENSITIES = {
    "Al-fcc": 2.70,
    "Cu-fcc": 8.96,
    "Au-fcc": 19.3,
    "Fe-bcc": 7.87,
    "W-bcc": 19.3,
    "Ti-hcp": 4.51,
    "Nd-dhcp": 7.01,
    "Sm-samarium": 7.52,
    "Si-diamond": 2.33,
    "C-diamond": 3.51,
    "C-graphite": 2.26,
    "Sn-white-tin": 7.29,
    "Ga-gallium": 5.91,
    "P-black-phosphorus": 2.69,
    "Bi-arsenic": 9.79,
    "Te-selenium": 6.24,
    "S-alpha-sulfur": 2.07,
    "Mn-alpha-manganese": 7.4,
    "U-alpha-uranium": 19.1,
    "Np-alpha-neptunium": 20.2,
    "Pu-alpha-plutonium": 19.8,
    "NaCl-rocksalt": 2.17,
    "MgO-rocksalt": 3.6,
    "TiC-rocksalt": 4.93,
    "ZnS-zincblende": 4.09,
    "GaAs-zincblende": 5.32,
    "WC-tungsten-carbide": 15.6,
    "CaF2-fluorite": 3.18,
    "TiO2-rutile": 4.23,
    "TiO2-anatase": 3.9,
    "SiO2-quartz": 2.65,
    "SiO2-cristobalite": 2.33,
    "FeS2-pyrite": 5.02,
    "FeS2-marcasite": 4.89,
    "MoS2-molybdenite": 5.06,
    "Cu2O-cuprite": 6.1,
    "CuO-tenorite": 6.5,
    "Al2O3-corundum": 3.99,
    "Y2O3-bixbyite": 5.03,
    "La2O3-lanthana": 6.51,
    "Bi2Te3-tetradymite": 7.74,
    "V2O5-vanadium-oxide": 3.35,
    "MoO3-molybdite": 4.7,
    "LaB6-calcium-hexaboride": 4.76,
    "Fe3C-cementite": 7.69,
    "B2O3-boron-oxide": 2.55,
    "SrTiO3-perovskite-cubic": 5.1,
    "BaTiO3-perovskite-tetragonal": 6.02,
    "CaTiO3-perovskite-orthorhombic": 4.03,
    "TiFeO3-ilmenite": 4.78,
    "LiNbO3-lithium-niobate": 4.64,
    "CaCO3-calcite": 2.71,
    "CaCO3-aragonite": 2.93,
    "CaMg(CO3)2-dolomite": 2.86,
    "MgAl2O4-spinel": 3.58,
    "Mg2SiO4-olivine": 3.22,
    "LiFePO4-triphylite": 3.6,
    "CaWO4-scheelite": 6.06,
    "ZrSiO4-zircon": 4.66,
}


def test_densities_agree_with_handbooks() -> None:
    """Cells and contents give the density that was weighed, within 3 %."""
    wrong = {}
    for name, density in DENSITIES.items():
        found = float(ENTRIES[name].structure.density)
        if abs(found / density - 1) > 0.03:
            wrong[name] = (round(found, 2), density)
    assert wrong == {}


@pytest.mark.parametrize(
    ("name", "one", "other", "length"),
    [
        ("H-alpha-nitrogen", "H", "H", 0.74),
        ("N-alpha-nitrogen", "N", "N", 1.10),
        ("O-alpha-oxygen", "O", "O", 1.21),
        ("F-alpha-fluorine", "F", "F", 1.42),
        ("Cl-iodine", "Cl", "Cl", 1.98),
        ("Br-iodine", "Br", "Br", 2.28),
        ("I-iodine", "I", "I", 2.71),
        ("S-alpha-sulfur", "S", "S", 2.05),
        ("C-graphite", "C", "C", 1.42),
        ("C-diamond", "C", "C", 1.545),
        ("B2O3-boron-oxide", "B", "O", 1.34),
        ("SiO2-quartz", "Si", "O", 1.61),
        ("TiO2-rutile", "Ti", "O", 1.95),
        ("CaCO3-calcite", "C", "O", 1.28),
        ("SrO2-calcium-carbide", "O", "O", 1.48),
        ("KO2-calcium-carbide", "O", "O", 1.28),
        ("LiFePO4-triphylite", "P", "O", 1.53),
        ("CaWO4-scheelite", "W", "O", 1.78),
        ("TaN-tantalum-nitride", "Ta", "N", 2.05),
    ],
)
def test_bonds_have_their_known_length(name: str, one: str, other: str, length: float) -> None:
    """Molecules and polyhedra come out of cell and coordinates with their textbook bond length."""
    assert nearest(ENTRIES[name].structure, one, other) == pytest.approx(length, rel=0.025)


def test_alpha_fluorine_and_oxygen_are_molecular() -> None:
    """Each atom has one neighbour within 2 Å: the crystals are made of diatomic molecules."""
    for name in ("F-alpha-fluorine", "O-alpha-oxygen", "N-alpha-nitrogen", "H-alpha-nitrogen"):
        structure = ENTRIES[name].structure
        assert [len(structure.get_neighbors(site, 2.0)) for site in structure] == [1] * len(
            structure
        )


def test_documents_name_prototype_and_citation() -> None:
    """What a reader of the report sees says which structure type, which group, and who found it."""
    known = {crystal.known_id: crystal for crystal in crystals()}["MgAl2O4-spinel"]
    for part in ("embedded", "spinel", "H1_1", "Fd-3m (227)", "Hill"):
        assert part in known.source
    assert known.structure.composition.reduced_formula == "MgAl2O4"


def test_another_process_builds_the_same_bits() -> None:
    """Cells do not depend on the process: hashes of elements and of a spinel agree."""
    code = (
        "from matloop.documents.candidate import structure_digest as d;"
        "from matloop.references.embedded import entries;"
        "print([d(e.structure) for e in entries()[:90]][::9])"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1
    assert next(iter(runs)).count("'") == 20


def test_coordinates_are_sums_of_fractions_and_parameters() -> None:
    """A tetragonal cell places its free positions where the triplets say."""
    prototype = Prototype(
        name="test",
        title="test",
        space_group=99,
        formula="AX",
        sites={"A": ("0 0 0",), "X": ("1/2 1/2 3/8+2u",)},
        source="none",
    )
    built = prototype.build(["Na", "Cl"], {"a": 4.0, "c": 5.0, "u": 0.05})
    assert built[1].frac_coords == pytest.approx([0.5, 0.5, 0.475])
    assert built.volume == pytest.approx(80.0)


@pytest.mark.parametrize(
    ("triplet", "parameters", "part"),
    [
        ("0 0 z", {"a": 4.0, "c": 5.0}, "free parameter z"),
        ("0 0 0", {"a": 4.0}, "lattice parameter 'c'"),
        ("0 0 1//2", {"a": 4.0, "c": 5.0}, "no coordinate"),
    ],
)
def test_mistakes_in_the_data_are_named(
    triplet: str, parameters: dict[str, float], part: str
) -> None:
    """A missing parameter or an unreadable coordinate is an error, never a zero."""
    prototype = Prototype("test", "test", 99, "A", {"A": (triplet,)}, "none")
    with pytest.raises(ValueError, match=part):
        prototype.build(["Na"], parameters)


def test_centred_cells_are_reduced_by_the_right_factor() -> None:
    """The primitive cell has the volume of the conventional one over its lattice points."""
    for name, volume, points in (
        ("Cu-fcc", 3.6149**3, 4),
        ("Fe-bcc", 2.8665**3, 2),
        ("Bi-arsenic", 4.546**2 * 11.862 * math.sqrt(3) / 2, 3),
        ("Ga-gallium", 4.5192 * 7.6586 * 4.5258, 2),
    ):
        assert ENTRIES[name].structure.volume == pytest.approx(volume / points)


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.exists(), reason="set MATLOOP_TEST_DATA to a folder with a table")
def test_materials_project_holds_the_same_crystals() -> None:
    """Of the crystals with a counterpart of equal formula, space group and size, 95 % match it.

    Volumes then agree within the usual error of PBE (median -2 %). The rest are other crystals that
    happen to agree in all three, such as the two tetragonal forms of Nd2CuO4.
    """
    matched, compared, ratios = 0, 0, []
    for entry, others in _counterparts():
        compared += 1
        matcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)
        same = [other for other in others if matcher.fit(entry.structure, other)]
        if same:
            matched += 1
            volume = entry.structure.volume / len(entry.structure)
            ratios.append(min(volume / (other.volume / len(other)) for other in same))
    assert compared > 300
    assert matched / compared > 0.95
    assert np.median(ratios) == pytest.approx(0.98, abs=0.01)
    assert np.mean((np.array(ratios) > 0.87) & (np.array(ratios) < 1.07)) > 0.98


def _counterparts() -> list[tuple[Entry, list[Structure]]]:
    import pandas as pd
    from pymatgen.core import Composition

    table = pd.read_csv(TABLE)
    sums = table.cif.str.extract(r"_chemical_formula_sum\s+'?([^'\n]+)'?")[0]
    wanted = {entry.formula for entry in entries()}
    by_formula: dict[str, list[Structure]] = {}
    for text, cif in zip(sums, table.cif, strict=True):
        composition = Composition(text.replace(" ", ""))
        formula = composition.reduced_formula
        if len(composition) > 1 and formula in wanted:
            by_formula.setdefault(formula, []).append(Structure.from_str(cif, fmt="cif"))
    groups = {id(s): _group(s) for found in by_formula.values() for s in found}
    pairs = []
    for entry in entries():
        size = (entry.prototype.space_group, len(entry.structure))
        others = [s for s in by_formula.get(entry.formula, []) if groups[id(s)] == size]
        if others:
            pairs.append((entry, others))
    return pairs


def _group(structure: Structure) -> tuple[int, int]:
    found = MoyoDataset(MoyoAdapter.from_structure(structure), symprec=0.05)
    return int(found.number), len(found.prim_std_cell.numbers)
