"""GPAW as an engine: real calculations of small crystals, and what becomes of bad ones."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from jobflow import run_locally
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Structure

from matloop import registry
from matloop.documents.evaluation import Evaluation
from matloop.engines.gpaw import Gpaw
from matloop.engines.gpaw.cost import irreducible, kpoint_mesh
from matloop.engines.gpaw.cutoff import check_pair, prototype
from matloop.engines.gpaw.datasets import valence
from matloop.errors import ConfigurationError
from matloop.testing.conformance import check_engine

pytestmark = [
    pytest.mark.dft,
    pytest.mark.skipif(find_spec("gpaw") is None, reason="GPAW is not installed: make gpaw"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of its own, with a cache of prototypes that all tests share."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.chdir(tmp_path)


def diamond(a: float) -> Structure:
    crystal = Structure.from_spacegroup("Fd-3m", Lattice.cubic(a), ["Si"], [[0, 0, 0]])
    return crystal.get_primitive_structure()


def rocksalt(cation: str, anion: str, a: float) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    cubic = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, anion], sites)
    return cubic.get_primitive_structure()


def metal(symbol: str, group: str, a: float) -> Structure:
    cubic = Structure.from_spacegroup(group, Lattice.cubic(a), [symbol], [[0, 0, 0]])
    return cubic.get_primitive_structure()


def calculate(engine: Gpaw, structure: Structure) -> tuple[Evaluation, dict]:
    """Run the engine's job as any user of jobflow would; return verdict and stored document."""
    job = engine.calculation(structure, "test")
    document = run_locally(job, log=False)[job.uuid][1].output
    stored = json.loads(json.dumps(document, cls=MontyEncoder))
    return engine.evaluation("c", stored), stored


def conventional(structure: Structure) -> float:
    """Cubic lattice parameter of a two-atom face-centred cell (Å)."""
    return float(4 * structure.volume) ** (1 / 3)


def energy(evaluation: Evaluation) -> float:
    assert evaluation.verdict == "pass", evaluation.reason
    return evaluation.quantities["energy_per_atom"].value


def test_fulfils_the_contract_of_engines() -> None:
    """Theory, jobs, price and honest ends hold, as for any engine, and settings change theory."""
    others = [
        Gpaw(cutoff=500), Gpaw(functional="PBEsol"), Gpaw(kpoint_density=3), Gpaw(spin="off"),
        Gpaw(width=0.2), Gpaw(moments={"O": 1.0}),
    ]  # fmt: skip
    check_engine(Gpaw(), [diamond(5.43), rocksalt("Li", "F", 4.06)], others)


def test_theory_leaves_out_what_changes_no_energy() -> None:
    """Threads, limits and thresholds of the relaxation do not split a hull."""
    crystal = diamond(5.43)
    same = Gpaw(threads=4, max_steps=5, max_atoms=9, walltime=1.0, check_cutoff=None, relax="none")
    assert same.theory(crystal) == Gpaw().theory(crystal)
    assert Gpaw().theory(crystal) == Gpaw().theory(rocksalt("Li", "F", 4.06))


def test_silicon_relaxes_to_the_lattice_of_pbe() -> None:
    """From 5.35 Å the cell relaxes to PBE's 5.47 Å, and the energy is that of the relaxed cell."""
    engine = Gpaw(cutoff=300, kpoint_density=2.5)
    evaluation, document = calculate(engine, diamond(5.35))
    assert evaluation.verdict == "pass", evaluation.reason
    assert evaluation.structure is not None
    assert conventional(evaluation.structure) == pytest.approx(5.47, abs=0.02)
    assert evaluation.quantities["max_force"].value < engine.fmax
    assert evaluation.theory == engine.theory(diamond(5.35))
    assert evaluation.quantities["energy_per_atom"].theory == evaluation.theory.key
    assert evaluation.cost.calls > 1
    assert evaluation.cost.seconds > 0
    assert document["gpaw"]["cutoff_check"]["pairs"][0]["elements"] == ["Si", "Si"]
    static = Gpaw(cutoff=300, kpoint_density=2.5, relax="none")
    again, _ = calculate(static, evaluation.structure)
    assert again.structure is None
    assert energy(again) == pytest.approx(energy(evaluation), abs=5e-4)


def test_a_crystal_a_little_off_is_put_right_and_costs_less() -> None:
    """With symprec, four rattled atoms are calculated as silicon's two, with all its symmetry."""
    shaken = (diamond(5.46) * (1, 1, 2)).perturb(0.01, seed=2)
    plain = Gpaw(cutoff=300, kpoint_density=1.5, relax="none", check_cutoff=None, max_atoms=2)
    engine = Gpaw(
        cutoff=300, kpoint_density=1.5, relax="none", check_cutoff=None, max_atoms=2, symprec=0.1
    )
    assert engine.core_hours(shaken) < plain.core_hours(shaken)
    assert engine.theory(shaken) == plain.theory(shaken)
    refused, _ = calculate(plain, shaken)
    assert "4 atoms are more than the 2 allowed" in refused.reason
    right, document = calculate(engine, shaken)
    ideal, _ = calculate(plain, diamond(5.46))
    assert energy(right) == pytest.approx(energy(ideal), abs=2e-3)
    assert len(Structure.from_dict(document["structure"])) == 2


def test_document_is_atomate2s() -> None:
    """Users of atomate2's ASE documents read the result as one of theirs."""
    from atomate2.ase.schemas import AseStructureTaskDoc

    crystal = diamond(5.46)
    engine = Gpaw(cutoff=300, kpoint_density=1.5, relax="none", check_cutoff=None)
    job = engine.calculation(crystal, "static")
    document = run_locally(job, log=False)[job.uuid][1].output
    assert isinstance(document, AseStructureTaskDoc)
    assert document.entry.energy == pytest.approx(2 * document.output.energy_per_atom)
    assert document.formula_pretty == "Si"
    stored = json.loads(json.dumps(document, cls=MontyEncoder))
    assert isinstance(MontyDecoder().process_decoded(stored), AseStructureTaskDoc)


@pytest.mark.slow
def test_magnesium_oxide_has_the_lattice_of_pbe() -> None:
    """MgO relaxes to PBE's 4.25 Å, although its total energy is not converged at 500 eV.

    Without the Pulay stress it would shrink to 4.10 Å.
    """
    engine = Gpaw(cutoff=500, kpoint_density=2, check_cutoff=None)
    evaluation, document = calculate(engine, rocksalt("Mg", "O", 4.2))
    assert evaluation.structure is not None, evaluation.reason
    assert conventional(evaluation.structure) == pytest.approx(4.25, abs=0.02)
    assert document["gpaw"]["cutoff_slope"] < -1e-3


@pytest.mark.slow
def test_lithium_fluoride_has_the_lattice_of_its_data_sets() -> None:
    """LiF relaxes at 600 eV to the 4.103 Å of a static scan at 1300 eV, and passes the check.

    All-electron PBE has 4.06 Å: the lithium of gpaw-data freezes its 1s shell.
    """
    crystal = rocksalt("Li", "F", 4.03)
    evaluation, _ = calculate(Gpaw(cutoff=600, kpoint_density=2.5), crystal)
    assert evaluation.structure is not None, evaluation.reason
    assert conventional(evaluation.structure) == pytest.approx(4.103, abs=0.015)
    assert conventional(evaluation.structure) == pytest.approx(4.06, rel=0.015)


@pytest.mark.slow
def test_an_intermetallic_forms_from_its_metals() -> None:
    """AlNi is bound by 0.6 to 0.75 eV/atom against fcc Al and ferromagnetic Ni, in one theory.

    Calorimetry finds values in the same range.
    """
    engine = Gpaw(cutoff=350, kpoint_density=2, relax="none", check_cutoff=None)
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    alloy = Structure(Lattice.cubic(2.89), ["Al", "Ni"], sites)
    aluminium, nickel = metal("Al", "Fm-3m", 4.04), metal("Ni", "Fm-3m", 3.52)
    crystals = {"AlNi": alloy, "Al": aluminium, "Ni": nickel}
    found = {name: calculate(engine, crystal) for name, crystal in crystals.items()}
    formed = energy(found["AlNi"][0]) - (energy(found["Al"][0]) + energy(found["Ni"][0])) / 2
    assert -0.75 < formed < -0.6
    assert found["AlNi"][0].theory == found["Al"][0].theory == found["Ni"][0].theory
    assert found["Ni"][1]["gpaw"]["magnetic_moment"] == pytest.approx(0.62, abs=0.08)
    assert found["Al"][1]["gpaw"]["magnetic_moment"] is None


@pytest.mark.slow
def test_an_unconverged_cutoff_is_a_failure_that_names_a_better_one() -> None:
    """LiF at 300 eV fails before anything of it is calculated; the cutoff it names would do."""
    crystal = rocksalt("Li", "F", 4.06)
    evaluation, document = calculate(Gpaw(cutoff=300, relax="none"), crystal)
    assert evaluation.verdict == "fail"
    assert "300 eV is not converged for F-Li" in evaluation.reason
    assert not evaluation.quantities
    assert evaluation.theory is None
    assert document["gpaw"]["attempts"] == []
    enough = document["gpaw"]["cutoff_check"]["pairs"][0]["sufficient"]
    assert f"{enough:g} eV would do" in evaluation.reason
    better = Gpaw(cutoff=enough, kpoint_density=2, relax="none")
    evaluation, document = calculate(better, crystal)
    assert evaluation.verdict == "pass", evaluation.reason
    assert document["gpaw"]["cutoff_check"]["seconds"] < 0.5, "prototypes are computed once"


def test_self_consistency_is_tried_once_more_then_given_up() -> None:
    """Six steps fail, eighteen with cautious mixing succeed, at the same theory; two never do."""
    crystal = diamond(5.46)
    quick = {"cutoff": 300.0, "kpoint_density": 1.5, "relax": "none", "check_cutoff": None}
    usual, _ = calculate(Gpaw(**quick), crystal)
    retried, document = calculate(Gpaw(**quick, max_scf_steps=6), crystal)
    outcomes = [attempt["outcome"] for attempt in document["gpaw"]["attempts"]]
    assert outcomes == ["not self-consistent in 6 steps", "converged"]
    assert "second attempt" in retried.reason
    assert energy(retried) == pytest.approx(energy(usual), abs=1e-3)
    assert retried.theory == usual.theory
    hopeless, document = calculate(Gpaw(**quick, max_scf_steps=2), crystal)
    assert hopeless.verdict == "fail"
    assert "cautious mixing not self-consistent in 6 steps" in hopeless.reason
    assert document["state"] == "failed"


@pytest.mark.parametrize(
    ("structure", "parameters", "words"),
    [
        (diamond(5.43) * (3, 3, 1), {"max_atoms": 10}, "18 atoms are more than the 10 allowed"),
        (diamond(5.43), {"max_kpoints": 30}, "k-points is more than the 30 points allowed"),
        (metal("Pu", "Fm-3m", 4.6), {}, "no PBE data set for Pu"),
        (diamond(5.43), {"walltime": 1e-6, "check_cutoff": None}, "walltime of 1e-06 h is over"),
        (
            diamond(5.2),
            {"max_steps": 2, "cutoff": 250.0, "kpoint_density": 1.0, "check_cutoff": None},
            "did not converge: 0.03 eV/Å was not reached in 2 steps",
        ),
        (
            Structure(Lattice.cubic(3.0), ["Si", "Si"], [[0, 0, 0], [0.001, 0, 0]]),
            {"cutoff": 250.0, "kpoint_density": 1.0, "relax": "none", "check_cutoff": None},
            "",
        ),
    ],
    ids=["atoms", "k-points", "element", "walltime", "steps", "overlap"],
)
def test_every_failure_is_a_verdict_that_names_it(
    structure: Structure, parameters: dict, words: str
) -> None:
    """Nothing raises; the verdict says what went wrong, and there is no energy."""
    evaluation, document = calculate(Gpaw(**parameters), structure)
    assert evaluation.verdict == "fail"
    assert words in evaluation.reason
    assert "energy_per_atom" not in evaluation.quantities
    assert document["gpaw"]["failure"]


def test_cutoff_search_finds_the_first_that_agrees_with_a_higher_one() -> None:
    """Of an error that falls with the cutoff, it returns the lowest rung within tolerance."""

    def falling(symbols: tuple[str, ...], cutoff: float) -> float:
        return -1.0 + (1e4 / cutoff**2 if len(symbols) == 2 else 0.0)

    found = check_pair(("Li", "F"), 300.0, 0.01, falling)
    assert found.shift == pytest.approx(1e4 / 430**2 - 1e4 / 300**2, abs=1e-6)
    assert found.sufficient is not None
    rungs = found.cutoffs
    place = rungs.index(found.sufficient)
    assert abs(found.formation[place + 2] - found.formation[place]) <= 0.01
    assert abs(found.formation[place + 1] - found.formation[place - 1]) > 0.01
    assert check_pair(("Li", "F"), 300.0, 1.0, falling).sufficient == 300.0
    assert check_pair(("Li", "F"), 300.0, 1e-9, falling).sufficient is None


def test_prototypes_have_the_volumes_of_the_elements() -> None:
    """Copper's prototype has copper's volume; a pair is a fifth smaller than its elements."""
    assert prototype(("Cu",)).volume == pytest.approx(11.8, rel=0.02)
    both = prototype(("Cu",)).volume + prototype(("Al",)).volume
    assert prototype(("Al", "Cu")).volume == pytest.approx(0.8 * both)


def test_mesh_follows_the_cell_and_symmetry_reduces_it() -> None:
    """A mesh has the density asked for along each axis; cubic symmetry leaves a fraction of it."""
    slab = Structure(Lattice.tetragonal(3.0, 12.0), ["Al"], [[0, 0, 0]])
    assert kpoint_mesh(slab, 4.0) == (9, 9, 3)
    cube = metal("Al", "Fm-3m", 4.04)
    mesh = kpoint_mesh(cube, 4.0)
    assert irreducible(cube, 4.0) < mesh[0] * mesh[1] * mesh[2] / 10
    assert valence("Si", "PBE") == 4
    assert valence("Ni", "PBE") > 9


def test_spin_is_polarised_where_there_is_magnetism() -> None:
    """Iron is polarised, silicon is not, and moments on sites go before those of elements."""
    iron = metal("Fe", "Im-3m", 2.83)
    assert Gpaw().polarised(iron)
    assert not Gpaw().polarised(diamond(5.43))
    assert Gpaw(spin="on").polarised(diamond(5.43))
    assert not Gpaw(spin="off").polarised(iron)
    assert not Gpaw(moments={"Fe": 0.0}).polarised(iron)
    assert Gpaw().site_moments(iron.copy(site_properties={"magmom": [-1.5]})) == [-1.5]


def test_wrong_parameters_are_refused_with_one_line() -> None:
    """A campaign file learns which parameter is wrong."""
    with pytest.raises(ConfigurationError, match="cutoff must be positive"):
        registry.build("engines", "gpaw", {"cutoff": -1})
    with pytest.raises(ConfigurationError, match="functional"):
        registry.build("engines", "gpaw", {"functional": "B3LYP"})
