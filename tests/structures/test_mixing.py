"""Mixing schemes: pymatgen's own results, and a reason for whatever they leave out."""

import copy
from importlib.metadata import version

import pytest
from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility
from pymatgen.analysis.compatibility.mixing_scheme import MaterialsProjectDFTMixingScheme
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.core.entries import ComputedEntry, ComputedStructureEntry

from matloop.errors import ConfigurationError
from matloop.structures.mixing import mix

POTENTIALS = {"Fe": "Fe_pv", "O": "O", "Li": "Li_sv", "Cl": "Cl", "Na": "Na_pv"}


def parameters(formula, run_type="GGA", hubbards=None, potentials=None):
    """Return parameters of an MP-compatible calculation."""
    chosen = potentials or POTENTIALS
    return {
        "run_type": run_type,
        "hubbards": hubbards or {},
        "potcar_symbols": [f"PBE {chosen[e.symbol]}" for e in Composition(formula)],
    }


def entry(name, formula, energy, **more):
    """Return an MP-compatible entry."""
    return ComputedEntry(formula, energy, entry_id=name, parameters=parameters(formula, **more))


ENTRIES = [
    entry("fe", "Fe", -8.3),
    entry("o", "O2", -9.9),
    entry("li", "Li", -1.9),
    entry("hematite", "Fe2O3", -33.5, run_type="GGA+U", hubbards={"Fe": 5.3}),
    entry("lioxide", "Li2O", -14.3),
    entry("peroxide", "Li2O2", -19.1),
    entry("nacl", "NaCl", -6.8),
]


def test_mp2020_is_pymatgens_own_result():
    """Anion and U corrections equal those of MaterialsProject2020Compatibility, entry by entry."""
    theirs = MaterialsProject2020Compatibility().process_entries(copy.deepcopy(ENTRIES))
    mixed = mix(ENTRIES, "mp2020")
    assert mixed.reasons == ("",) * len(ENTRIES)
    assert list(mixed.energies) == [one.energy_per_atom for one in theirs]
    assert mixed.energies[3] < ENTRIES[3].energy_per_atom - 1  # Fe and O corrections
    assert ENTRIES[3].energy_adjustments == []  # the entries themselves are as they were


def test_the_theory_names_scheme_and_version():
    """The common level of theory holds the scheme and the version that applied it."""
    theory = mix(ENTRIES, "mp2020").theory
    assert theory.dft is not None
    assert theory.dft.mixing == "mp2020"
    assert theory.dft.corrections == {
        "MaterialsProject2020Compatibility": f"pymatgen {version('pymatgen')}"
    }


def test_corrections_already_applied_are_not_applied_twice():
    """An entry that comes corrected, by whatever version, ends where an uncorrected one does."""
    corrected = MaterialsProject2020Compatibility().process_entries(copy.deepcopy(ENTRIES))
    corrected[4].energy_adjustments[0].name = "an older scheme"
    assert mix(corrected, "mp2020").energies == mix(ENTRIES, "mp2020").energies


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (entry("x", "Fe2O3", -33.5), "Invalid U value of 0.0 on Fe, expected 5.3"),
        (entry("x", "Fe2O3", -33.5, run_type="r2SCAN"), "invalid run type r2SCAN"),
        (entry("x", "Li2O", -14.3, potentials={"Li": "Li", "O": "O"}), "Incompatible POTCAR"),
        (ComputedEntry("Li2O", -14.3, parameters={"run_type": "GGA"}), "are not stated"),
    ],
)
def test_what_the_scheme_refuses_has_a_reason(wrong, reason):
    """A wrong U, functional or pseudopotential leaves that entry out, and says why in one line."""
    mixed = mix([*ENTRIES, wrong], "mp2020")
    assert mixed.energies[-1] is None
    assert reason in mixed.reasons[-1]
    assert len(mixed.reasons[-1]) <= 300
    assert None not in mixed.energies[:-1]


def structured(name, formula, lattice, sites, energy, run_type, scale=1.0):
    """Return an entry with a crystal."""
    structure = Structure(Lattice.cubic(lattice * scale), *sites)
    return ComputedStructureEntry(
        structure, energy, entry_id=name, parameters=parameters(formula, run_type)
    )


CSCL = (["Li", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
LI = (["Li"], [[0, 0, 0]])
CL = (["Cl"], [[0, 0, 0]])


def test_gga_r2scan_mixing_is_pymatgens_own_result():
    """With r2SCAN energies of every ground state, GGA ones move to that scale or are left out."""
    entries = [
        structured("li-gga", "Li", 2.8, LI, -1.9, "GGA"),
        structured("cl-gga", "Cl", 3.1, CL, -1.7, "GGA"),
        structured("licl-gga", "LiCl", 3.2, CSCL, -7.2, "GGA"),
        structured("li-r2", "Li", 2.8, LI, -2.3, "r2SCAN", 1.01),
        structured("cl-r2", "Cl", 3.1, CL, -2.9, "r2SCAN", 1.01),
        structured("licl-r2", "LiCl", 3.2, CSCL, -9.0, "r2SCAN", 1.01),
        ComputedStructureEntry(
            Structure(
                Lattice.cubic(4.4), ["Li", "Cl", "Cl"], [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]]
            ),
            -8.0,
            entry_id="licl2-gga",
            parameters=parameters("LiCl2"),
        ),
    ]
    theirs = {
        one.entry_id: one.energy_per_atom
        for one in MaterialsProjectDFTMixingScheme().process_entries(copy.deepcopy(entries))
    }
    mixed = mix(entries, "mp-gga-r2scan")
    ours = {e.entry_id: x for e, x in zip(entries, mixed.energies, strict=True) if x is not None}
    assert ours == theirs
    assert set(ours) == {"li-r2", "cl-r2", "licl-r2", "licl2-gga"}
    assert ours["licl2-gga"] != pytest.approx(-8.0 / 3)  # moved to the scale of r2SCAN
    left_out = [bool(reason) for reason in mixed.reasons]
    assert left_out == [x is None for x in mixed.energies]


def test_gga_r2scan_mixing_needs_crystals():
    """Entries without structures cannot be matched: one line says so."""
    with pytest.raises(ConfigurationError, match="needs a structure"):
        mix(ENTRIES, "mp-gga-r2scan")


def test_an_unknown_scheme_names_the_known_ones():
    """A slip in the name lists what there is."""
    with pytest.raises(ConfigurationError, match="mp2020, mp-gga-r2scan"):
        mix(ENTRIES, "mp2021")
