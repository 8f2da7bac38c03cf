"""The VASP engine without VASP and without recorded runs: inputs, theory, guards, restarts."""

from __future__ import annotations

import doctest
import gzip
import json
import os
import stat
import time
from pathlib import Path

import pytest

pytest.importorskip("atomate2")

from emmet.core.tasks import TaskDoc
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure

from matloop import registry
from matloop.engines.vasp import cost
from matloop.engines.vasp.chain import record
from matloop.engines.vasp.continuation import earlier_launches, last_geometry, seconds_left
from matloop.engines.vasp.engine import Vasp
from matloop.engines.vasp.levels import magnetised
from matloop.errors import ConfigurationError
from matloop.structures.mixing import mixed_theory
from matloop.testing.conformance import check_engine

SILICON = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
SILICON = SILICON.get_primitive_structure()
FEO = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(4.3), ["Fe", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
).get_primitive_structure()
IRON = Structure(Lattice.cubic(2.83), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.mark.parametrize("level", ["mp-gga", "mp-r2scan"])
def test_fulfils_the_contract_of_engines(level: str) -> None:
    """Theory, jobs, price and ends are as every engine's; other settings have another theory."""
    engine = registry.build("engines", "vasp", {"level": level, "potcar_spec": True})
    others = [
        Vasp(level=level, potcar_spec=True, user_incar_settings={"ENCUT": 400.0}),  # type: ignore[arg-type]
        Vasp(level=level, potcar_spec=True, magnetism="nonmagnetic"),  # type: ignore[arg-type]
        Vasp(
            level=level,  # type: ignore[arg-type]
            potcar_spec=True,
            user_kpoints_settings={"reciprocal_density": 30},
        ),
    ]
    check_engine(engine, [SILICON, FEO], others)


def test_mp_energies_meet_on_the_scale_of_their_scheme() -> None:
    """Oxides with U, metals without: one key with MP2020, that of references put on its scale."""
    engine = Vasp()
    assert engine.theory(SILICON).key == engine.theory(FEO).key == mixed_theory("mp2020").key
    assert engine.plan(FEO).u_values == {"Fe": 5.3, "O": 0.0}
    assert engine.plan(IRON).u_values == {"Fe": 0.0}
    assert engine.plan(FEO).pseudopotentials == {"Fe": "PBE Fe_pv", "O": "PBE O"}
    assert engine.plan(FEO).theory().key != engine.plan(IRON).theory().key


def test_what_changes_no_energy_changes_no_theory() -> None:
    """Parallel and output tags leave the theory alone, as does a restart limit."""
    plain = Vasp().theory(FEO)
    assert Vasp(user_incar_settings={"NCORE": 4, "KPAR": 2}, max_restarts=0).theory(FEO) == plain
    assert Vasp(user_incar_settings={"ISMEAR": 0}).theory(FEO) != plain


def test_r2scan_has_no_u_and_its_own_potcars() -> None:
    """The r2SCAN level treats iron oxide without U, with POTCARs that know kinetic energies."""
    plan = Vasp(level="mp-r2scan").plan(FEO)
    assert (plan.functional, plan.family, plan.cutoff) == ("r2SCAN", "PBE_54", 680.0)
    assert plan.u_values == {"Fe": 0.0, "O": 0.0}


def _inputs(engine: Vasp, structure: Structure, step: int = 0) -> dict[str, object]:
    maker = engine._steps[step]
    start = magnetised(structure, engine.magnetism)
    return dict(maker.input_set_generator.get_input_set(start, potcar_spec=True)["INCAR"])


def test_magnetic_starts_reach_the_input() -> None:
    """Each choice of starting moments is what VASP would read."""
    mp = _inputs(Vasp(), FEO)
    assert mp["ISPIN"] == 2
    assert sorted(mp["MAGMOM"]) == [0.6, 5]  # type: ignore[call-overload]
    cobalt = FEO.copy()
    cobalt.replace_species({"Fe": "Co"})
    assert sorted(_inputs(Vasp(), cobalt)["MAGMOM"])[-1] < 5  # type: ignore[call-overload]
    strong = _inputs(Vasp(magnetism="ferromagnetic"), cobalt)
    assert sorted(strong["MAGMOM"]) == [0.6, 5.0]  # type: ignore[call-overload]
    opposed = IRON.copy()
    opposed.add_site_property("magmom", [3.0, -3.0])
    assert _inputs(Vasp(magnetism="site"), opposed)["MAGMOM"] == [3.0, -3.0]
    assert _inputs(Vasp(magnetism="mp"), opposed)["MAGMOM"] == [5, 5]
    none = _inputs(Vasp(magnetism="nonmagnetic"), IRON)
    assert none["ISPIN"] == 1
    assert "MAGMOM" not in none


def test_user_settings_reach_every_step() -> None:
    """INCAR and k-point settings of the campaign file are in all three inputs."""
    engine = Vasp(user_incar_settings={"ENCUT": 600}, user_kpoints_settings={"grid_density": 300})
    for step in range(3):
        generator = engine._steps[step].input_set_generator
        inputs = generator.get_input_set(SILICON, potcar_spec=True)
        assert inputs["INCAR"]["ENCUT"] == 600
        assert inputs["KPOINTS"].kpts[0] == (5, 5, 5)


@pytest.mark.parametrize(
    ("engine", "structure", "reason"),
    [
        (Vasp(max_atoms=1), SILICON, "2 atoms, at most 1"),
        (Vasp(max_k_points=100), SILICON, "k-points, at most 100"),
        (Vasp(magnetism="site"), SILICON, "magmom on every site"),
        (
            Vasp(),
            Structure(Lattice.cubic(4), [{"Al": 0.5, "Si": 0.5}], [[0, 0, 0]]),
            "disordered",
        ),
        (Vasp(), Structure(Lattice.cubic(4), ["Og"], [[0, 0, 0]]), "no VASP input"),
    ],
)
def test_a_refused_crystal_ends_as_a_verdict(
    engine: Vasp,
    structure: Structure,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Too large, or not for VASP: the job ends at once, and the verdict says why."""
    assert reason in (engine.objection(structure) or "")
    monkeypatch.chdir(tmp_path)
    job = engine.calculation(structure, "refused")
    store = _store()
    run_locally(job, store=store, create_folders=True, ensure_success=True, log=False)
    evaluation = engine.evaluation("c", store.get_output(job.uuid))
    assert evaluation.verdict == "fail"
    assert reason in evaluation.reason
    assert not list(tmp_path.rglob("INCAR*")), "nothing was written for a refused crystal"


def test_a_missing_command_is_no_verdict_on_the_crystal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without VASP raises, so that nothing is recorded against the candidate."""
    monkeypatch.chdir(tmp_path)
    engine = Vasp(potcar_spec=True, custodian={"polling_time_step": 1})
    job = engine.calculation(SILICON, "si")
    step = job.maker.steps[0]
    step.run_vasp_kwargs = {"vasp_cmd": "no-such-vasp"}
    with pytest.raises(RuntimeError, match="did not finish"):
        run_locally(job, store=_store(), create_folders=True, ensure_success=True, log=False)


def test_the_price_follows_size_and_cutoff() -> None:
    """Twice the cell costs more, symmetry less, and GFLOP/s per core divide it."""
    engine = Vasp()
    small, large = engine.core_hours(SILICON), engine.core_hours(SILICON * (2, 2, 2))
    assert 0 < small < large
    assert Vasp(level="mp-r2scan").core_hours(FEO) > 0
    fast = Vasp(core_gflops=10.0).core_hours(SILICON * (2, 2, 2))
    setup = 3 * cost.SETUP_CORE_SECONDS / 3600
    assert large - setup == pytest.approx(2 * (fast - setup))


@pytest.mark.parametrize(
    ("potential", "electrons"),
    [("Si", 4), ("Fe_pv", 14), ("O", 6), ("Ga_d", 13), ("Ga", 3), ("Hf_pv", 10), ("Er_3", 9),
     ("Yb_2", 8), ("Li_sv", 3), ("Pb", 4), ("H", 1)],
)  # fmt: skip
def test_valence_of_a_potential(potential: str, electrons: int) -> None:
    """Electrons read from a potential's name are those of its POTCAR."""
    assert cost.valence_electrons(potential) == electrons


def test_plane_waves_are_counted_as_vasp_counts_them() -> None:
    """A silicon cell of 40.9 Å^3 at 520 eV has about 1,100 plane waves per k-point."""
    assert cost.plane_waves(40.9, 520.0) == pytest.approx(1102, rel=0.02)


def test_problems_name_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of POTCARs, its functional, and the command are each asked for, one line each."""
    from atomate2 import SETTINGS as ATOMATE2
    from pymatgen.core import SETTINGS as PYMATGEN

    monkeypatch.setitem(PYMATGEN, "PMG_VASP_PSP_DIR", None)
    monkeypatch.delenv("PMG_VASP_PSP_DIR", raising=False)
    monkeypatch.setattr(ATOMATE2, "VASP_CMD", "srun-nowhere -n 16 vasp_nowhere")
    unset = Vasp().problems()
    assert len(unset) == 3
    assert "PMG_VASP_PSP_DIR is not set" in unset[0]
    assert "srun-nowhere" in unset[1]
    assert "vasp_nowhere" in unset[2]

    monkeypatch.setitem(PYMATGEN, "PMG_VASP_PSP_DIR", str(tmp_path))
    assert "no POTCARs of PBE_54" in Vasp(level="mp-r2scan").problems()[0]
    (tmp_path / "POT_GGA_PAW_PBE_54").mkdir()
    program = tmp_path / "vasp_std"
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(ATOMATE2, "VASP_CMD", str(program))
    assert Vasp(level="mp-r2scan").problems() == []


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"level": "pbe"}, "mp-gga"),
        ({"max_restarts": -1}, "must not be negative"),
        ({"user_incar_settings": {"encut": 500}}, "in capitals"),
        ({"magnetism": "random"}, "ferromagnetic"),
    ],
)
def test_wrong_parameters_get_one_clear_line(parameters: dict[str, object], said: str) -> None:
    """A typo in the campaign file names the field and what would be right."""
    with pytest.raises(ConfigurationError, match=said):
        registry.build("engines", "vasp", parameters)


def test_a_document_that_never_came_is_a_fail() -> None:
    """None, an empty document and nonsense each end as a reasoned fail."""
    engine = Vasp()
    for document in (None, {}, {"calcs_reversed": 3}):
        evaluation = engine.evaluation("c", document)
        assert evaluation.verdict == "fail"
        assert evaluation.reason


def test_the_last_geometry_is_trusted_only_if_whole(tmp_path: Path) -> None:
    """CONTCAR is used, plain or compressed; an empty, cut or foreign one is not."""
    contcar = tmp_path / "CONTCAR"
    assert last_geometry(tmp_path, SILICON) is None
    SILICON.to(filename=str(contcar), fmt="poscar")
    found = last_geometry(tmp_path, SILICON)
    assert found is not None
    assert found.matches(SILICON)
    assert last_geometry(tmp_path, FEO) is None
    text = contcar.read_text()
    (tmp_path / "CONTCAR.gz").write_bytes(gzip.compress(text.encode()))
    contcar.unlink()
    assert last_geometry(tmp_path, SILICON) is not None
    (tmp_path / "CONTCAR.gz").unlink()
    for broken in ("", text[:60], text.replace("0.75", "nan")):
        contcar.write_text(broken)
        assert last_geometry(tmp_path, SILICON) is None


def _earlier(folder: Path, geometry: Structure | None) -> Path:
    folder.mkdir()
    (folder / "OUTCAR").write_text("began\n")
    if geometry is not None:
        geometry.to(filename=str(folder / "CONTCAR"), fmt="poscar")
    return folder


def test_a_killed_launch_is_found_again(tmp_path: Path) -> None:
    """Folders of earlier launches come from FireWorks' own record, if VASP had begun there."""
    here = tmp_path / "here"
    here.mkdir()
    first = _earlier(tmp_path / "first", SILICON)
    (tmp_path / "never").mkdir()
    launches = [{"launch_dir": str(p)} for p in (first, tmp_path / "never", here)]
    (here / "FW.json").write_text(json.dumps({"archived_launches": launches}))
    assert earlier_launches(here) == [first]
    (here / "FW.json").write_text("{cut")
    assert earlier_launches(here) == []


def test_lost_launches_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crystal whose runs are killed over and over ends as a verdict, not as an endless rerun."""
    here = tmp_path / "here"
    here.mkdir()
    lost = [_earlier(tmp_path / f"lost{i}", SILICON) for i in range(2)]
    (here / "FW.json").write_text(
        json.dumps({"archived_launches": [{"launch_dir": str(p)} for p in lost]})
    )
    monkeypatch.chdir(here)
    engine = Vasp(potcar_spec=True, max_restarts=1)
    job, store = engine.calculation(SILICON, "si"), _store()
    job.run(store)
    evaluation = engine.evaluation("c", store.get_output(job.uuid))
    assert evaluation.verdict == "fail"
    assert "2 earlier launches lost" in evaluation.reason


def test_time_left_is_read_from_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the SLURM job bounds a run: from its variable, or by asking squeue."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert seconds_left() is None
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 500))
    assert 490 <= (seconds_left() or 0) <= 500
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    squeue = tmp_path / "squeue"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for answer, seconds in (("1-02:03:04", 93784), ("59:01", 3541), ("UNLIMITED", None)):
        squeue.write_text(f"#!/bin/sh\necho {answer}\n")
        squeue.chmod(0o755)
        assert seconds_left() == seconds


def test_a_failure_document_stays_a_task_document() -> None:
    """What a failed chain stores is emmet's TaskDoc, and its verdict survives the job store."""
    note = {
        "progress": {"restarts": 2, "seconds": 10.0, "core_seconds": 40.0, "calls": 3},
        "failure": {"kind": "brmix", "reason": "the charge mixing broke down (brmix)"},
    }
    document = TaskDoc(
        dir_name="/x", task_label="MP GGA relax", state="failed", additional_json={"matloop": note}
    )
    again = json.loads(document.model_dump_json())
    assert record(again)["failure"]["kind"] == "brmix"
    evaluation = Vasp().evaluation("c", again)
    assert evaluation.reason == (
        "MP GGA relax: the charge mixing broke down (brmix), after 2 restarts"
    )
    assert (evaluation.cost.seconds, evaluation.cost.threads) == (10.0, 4)


def _store() -> JobStore:
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    store.connect()
    return store


def test_the_page_says_what_the_engine_does() -> None:
    """The examples on the documentation page give the output printed there."""
    page = Path(__file__).resolve().parents[2] / "docs" / "dft-vasp.md"
    results = doctest.testfile(str(page), module_relative=False)
    assert results.attempted > 5
    assert results.failed == 0
