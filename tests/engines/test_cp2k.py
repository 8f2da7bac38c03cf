"""CP2K as an engine: atomate2's inputs made comparable, and one real calculation."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from jobflow import run_locally
from monty.json import MontyEncoder
from pymatgen.core import SETTINGS, Lattice, Structure

from matloop.engines.cp2k import RYDBERG, Cp2k
from matloop.testing.conformance import check_engine

DATA = Path("/usr/share/cp2k")

pytestmark = [
    pytest.mark.dft,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("cp2k") is None or not DATA.exists(),
        reason="CP2K is not installed (Debian: cp2k cp2k-data)",
    ),
]

SILICON = Structure.from_spacegroup(
    "Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]]
).get_primitive_structure()
FLUORIDE = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(4.06), ["Li", "F"], [[0, 0, 0], [0.5, 0.5, 0.5]]
).get_primitive_structure()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Basis sets and potentials as pymatgen reads them."""
    target = tmp_path_factory.mktemp("cp2k") / "data"
    pmg = Path(sys.executable).parent / "pmg"
    command = [str(pmg), "config", "--cp2k", str(DATA), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return target


@pytest.fixture(autouse=True)
def _configured(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "PMG_CP2K_DATA_DIR", str(data))
    monkeypatch.setitem(SETTINGS, "PMG_DEFAULT_CP2K_FUNCTIONAL", "PBE")
    monkeypatch.delenv("CP2K_DATA_DIR", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)


def grid_cutoff(engine: Cp2k, structure: Structure) -> float:
    """Cutoff (Ry) in the input that atomate2 would write."""
    from atomate2.cp2k.sets.core import StaticSetGenerator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generator = StaticSetGenerator(user_input_settings=engine.inputs(structure))
        written = generator.get_input_set(structure).cp2k_input
    return float(written["FORCE_EVAL"]["DFT"]["MGRID"]["CUTOFF"].values[0])


def test_fulfils_the_contract_of_engines() -> None:
    """Theory, jobs, price and honest ends hold, as for any engine, and settings change theory."""
    others = [Cp2k(cutoff=400), Cp2k(basis="DZVP-MOLOPT-SR-GTH"), Cp2k(reciprocal_density=32)]
    check_engine(Cp2k(), [SILICON, FLUORIDE], others)
    assert Cp2k().theory(SILICON) == Cp2k().theory(FLUORIDE)


def test_every_crystal_has_the_same_cutoff() -> None:
    """The engine's cutoff reaches CP2K's input, where atomate2's own differs between crystals."""
    engine = Cp2k(cutoff=350)
    assert grid_cutoff(engine, SILICON) == grid_cutoff(engine, FLUORIDE) == 350
    theory = engine.theory(SILICON)
    assert theory.dft is not None
    assert theory.dft.cutoff == pytest.approx(350 * RYDBERG, abs=0.01)


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        (SILICON * (5, 5, 5), "250 atoms are more than the 100 allowed"),
        (Structure(Lattice.cubic(4.5), ["Pu"], [[0, 0, 0]]), "no CP2K potential and basis for Pu"),
    ],
    ids=["atoms", "element"],
)
def test_what_cannot_be_calculated_is_a_verdict_that_says_why(
    structure: Structure, words: str
) -> None:
    """The job of such a crystal ends well, and its verdict names the obstacle."""
    engine = Cp2k()
    job = engine.calculation(structure, "refused")
    document = run_locally(job, log=False)[job.uuid][1].output
    evaluation = engine.evaluation("c", document)
    assert evaluation.verdict == "fail"
    assert words in evaluation.reason


def test_problems_name_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A complete set-up has none; each missing part is one line."""
    assert Cp2k().problems() == []
    monkeypatch.setitem(SETTINGS, "PMG_CP2K_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CP2K_DATA_DIR", "/usr/share/cp2k")
    monkeypatch.setenv("PATH", str(tmp_path))
    text = "\n".join(Cp2k().problems())
    assert "is not found; set ATOMATE2_CP2K_CMD" in text
    assert "holds no basis sets" in text
    assert "CP2K_DATA_DIR must not be set" in text


QUICK = Cp2k(
    basis="SZV-MOLOPT-SR-GTH",
    cutoff=150,
    relative_cutoff=50,
    reciprocal_density=8,
    relax="none",
)


@pytest.mark.slow
def test_silicon_is_calculated_through_atomate2_and_custodian() -> None:
    """A static calculation gives atomate2's document, and from it energy, forces and theory."""
    from atomate2.cp2k.schemas.task import TaskDocument

    engine = QUICK
    job = engine.calculation(SILICON, "Si")
    document = run_locally(job, log=False, create_folders=True)[job.uuid][1].output
    assert isinstance(document, TaskDocument)
    stored = json.loads(json.dumps(document, cls=MontyEncoder))
    evaluation = engine.evaluation("c", stored)
    assert evaluation.verdict == "pass", evaluation.reason
    assert evaluation == engine.evaluation("c", document)
    assert evaluation.theory == engine.theory(SILICON)
    energy = evaluation.quantities["energy_per_atom"].value
    assert -108 < energy < -105, "a GTH pseudo-atom of silicon has -3.8 to -3.9 hartree"
    assert evaluation.quantities["max_force"].value < 0.02, "diamond's sites bear no force"
    assert evaluation.cost.seconds > 0
    other = dataclasses.replace(engine, cutoff=200)
    assert "not the 200 Ry asked for" in other.evaluation("c", stored).reason


@pytest.mark.slow
def test_a_used_folder_does_not_pass_off_one_crystal_for_another() -> None:
    """Files of an earlier calculation in the folder: the verdict is a failure that says so."""
    for crystal in (SILICON, FLUORIDE):
        job = QUICK.calculation(crystal, "in the same folder")
        document = run_locally(job, log=False)[job.uuid][1].output
        evaluation = QUICK.evaluation("c", document)
        if crystal is SILICON:
            assert evaluation.verdict == "pass", evaluation.reason
    assert evaluation.verdict == "fail"
    assert "calculated another crystal, Si2 for FLi" in evaluation.reason
    assert not evaluation.quantities
