"""Levels of theory: read from entries, compared element by element, refused with a reason."""

import pytest
from pymatgen.core import Composition

from matloop.errors import TheoryMismatchError
from matloop.structures.theories import UNSTATED, one_theory, short, theory_of


def theory(formula, run_type="GGA", hubbards=None, potentials=None, **more):
    """Return the theory of an entry with such parameters."""
    parameters = {"run_type": run_type, "hubbards": hubbards or {}}
    if potentials:
        parameters["potcar_spec"] = [{"titel": f"PAW_PBE {p}"} for p in potentials]
    return theory_of(Composition(formula), parameters, **more)


def test_a_difference_in_u_alone_is_refused():
    """Two oxides that differ only in the U of iron cannot share a hull; no scheme is offered."""
    first = theory("Fe2O3", "GGA+U", {"Fe": 5.3}, ["Fe_pv 06Sep2000", "O 08Apr2002"])
    second = theory("FeO", "GGA+U", {"Fe": 4.0}, ["Fe_pv 06Sep2000", "O 08Apr2002"])
    with pytest.raises(TheoryMismatchError) as refused:
        one_theory([("mp-1 (Fe2O3)", first), ("mine (FeO)", second)])
    message = str(refused.value)
    assert "\n" not in message
    assert "mp-1 (Fe2O3) is vasp GGA, U Fe 5.3 eV" in message
    assert "mine (FeO) is vasp GGA, U Fe 4 eV" in message
    assert "the U of Fe (5.3 eV and 4.0 eV)" in message
    assert "No published scheme" in message


def test_gga_and_gga_u_name_their_scheme():
    """Iron without U beside an oxide with the Materials Project's U: mp2020 is the way."""
    with pytest.raises(TheoryMismatchError, match="--mixing mp2020"):
        one_theory(
            [("oxide", theory("Fe2O3", "GGA+U", {"Fe": 5.3})), ("metal", theory("Fe", "GGA"))]
        )


def test_two_functionals_name_their_scheme():
    """GGA beside r2SCAN is refused and the other scheme named; PBEsol has none."""
    gga = theory("Fe2O3", "GGA")
    with pytest.raises(TheoryMismatchError, match="--mixing mp-gga-r2scan"):
        one_theory([("a", gga), ("b", theory("Fe2O3", "r2SCAN"))])
    with pytest.raises(TheoryMismatchError, match="No published scheme"):
        one_theory([("a", gga), ("b", theory("Fe2O3", "PBEsol"))])


def test_u_is_compared_only_where_both_speak():
    """Oxides of iron and of cobalt, each with its U, and one of lithium are one level of theory."""
    shared = one_theory(
        [
            ("a", theory("Fe2O3", "GGA+U", {"Fe": 5.3})),
            ("b", theory("Co3O4", "GGA+U", {"Co": 3.32})),
            ("c", theory("Li2O", "GGA")),
        ]
    )
    assert shared.dft is not None
    assert shared.dft.u_values == {"Co": 3.32, "Fe": 5.3, "Li": 0, "O": 0}
    assert short(shared) == "vasp GGA, U Co 3.32 eV, Fe 5.3 eV"


def test_a_theory_does_not_depend_on_the_order_of_entries():
    """The key of the shared theory is the same whichever entry comes first."""
    named = [
        ("a", theory("Fe2O3", "GGA+U", {"Fe": 5.3}, version="6.3.2")),
        ("b", theory("Li2O", "GGA", version="5.4.4")),
        ("c", theory("O2", "GGA", version="6.3.2")),
    ]
    keys = {one_theory(order).key for order in (named, named[::-1], named[1:] + named[:1])}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (["Fe_pv 06Sep2000"], ["Fe 06Sep2000"], "pseudopotential of Fe"),
        (["Fe_pv 06Sep2000"], ["Fe_pv 02Aug2007"], "pseudopotential of Fe"),
        (["Fe_pv 06Sep2000"], None, "pseudopotentials, which one leaves open"),
    ],
)
def test_pseudopotentials_must_agree(first, second, what):
    """Another data set, another edition, or silence on one side is a difference."""
    with pytest.raises(TheoryMismatchError, match=what):
        one_theory([("a", theory("Fe", potentials=first)), ("b", theory("Fe", potentials=second))])


def test_a_symbol_without_a_date_is_the_same_potential():
    """Old entries name symbols only; the edition is then taken from the other."""
    old = theory_of(Composition("Fe"), {"run_type": "GGA", "potcar_symbols": ["PBE Fe_pv"]})
    shared = one_theory([("a", old), ("b", theory("Fe", potentials=["Fe_pv 06Sep2000"]))])
    assert shared.dft is not None
    assert shared.dft.pseudopotentials == {"Fe": "PBE Fe_pv 06Sep2000"}


def test_corrections_applied_to_some_are_a_difference():
    """A corrected oxide beside an uncorrected one is refused; an element needs no correction."""
    made_by = {"@class": "MaterialsProject2020Compatibility", "@version": "2026.10.24"}
    applied = [{"name": "MP2020 anion correction (oxide)", "cls": made_by}]
    corrected, plain = theory("Li2O", adjustments=applied), theory("MgO")
    assert corrected.dft is not None
    assert corrected.dft.corrections == {"MaterialsProject2020Compatibility": "pymatgen 2026.10.24"}
    with pytest.raises(TheoryMismatchError, match="corrections already applied"):
        one_theory([("a", corrected), ("b", plain)])
    assert (
        one_theory([("a", theory("Li")), ("b", corrected)]).key
        == one_theory([("b", corrected), ("a", theory("Li"))]).key
    )


def test_input_settings_are_read_where_they_are_known():
    """A cutoff is compared; k-point spacing and smearing, chosen per crystal, are recorded only."""
    metal = theory("Al", incar={"ENCUT": 520, "KSPACING": 0.22, "ISMEAR": 1, "SIGMA": 0.2})
    oxide = theory("O2", incar={"ENCUT": 520, "KSPACING": 0.44, "ISMEAR": -5, "SIGMA": 0.05})
    assert metal.dft is not None
    assert metal.dft.smearing == "ISMEAR 1, SIGMA 0.2 eV"
    shared = one_theory([("metal", metal), ("oxide", oxide)])
    assert shared.dft is not None
    assert (shared.dft.cutoff, shared.dft.k_density, shared.dft.smearing) == (520, None, None)
    with pytest.raises(TheoryMismatchError, match=r"the cutoff \(520.0 and 680.0\)"):
        one_theory([("metal", metal), ("other", theory("O2", incar={"ENCUT": 680}))])


def test_silence_agrees_with_silence_only():
    """Entries without parameters share one level; nothing stated joins them."""
    silent = theory_of(Composition("Fe"), {})
    assert silent == UNSTATED
    assert one_theory([("a", silent), ("b", theory_of(Composition("O2"), {}))]) == UNSTATED
    with pytest.raises(TheoryMismatchError, match="an unstated method"):
        one_theory([("a", silent), ("b", theory("O2"))])


def test_r2scan_has_one_spelling():
    """Archives write R2SCAN, newer entries r2SCAN: one functional."""
    one_theory([("a", theory("Fe", "R2SCAN")), ("b", theory("O2", "r2SCAN"))])
    assert theory("Fe", "R2SCAN").model == "r2SCAN"


def test_a_u_that_is_not_told_is_not_taken_for_zero():
    """GGA+U without its values cannot join entries that state theirs."""
    untold = theory_of(Composition("Fe2O3"), {"run_type": "GGA+U"})
    with pytest.raises(TheoryMismatchError, match="U values, which one leaves open"):
        one_theory([("a", untold), ("b", theory("Li2O"))])
