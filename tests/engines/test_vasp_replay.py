"""Recorded VASP runs, replayed through the whole engine. Nothing here runs VASP."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("atomate2")

from emmet.core.tasks import TaskDoc
from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Structure

from matloop.engines.vasp.chain import record
from matloop.engines.vasp.engine import Vasp
from matloop.testing.vasp_replay import ReplayError, find_run, in_process, main, recorded_runs

from .vasp_data import unpacked

SETTINGS: dict[str, Any] = {
    "potcar_spec": True,
    # recorded when the static run still had the relaxations' k-points
    "user_kpoints_settings": {"reciprocal_density": 64},
}
ALLOWED = ("ISMEAR", "SIGMA")  # the first relaxation's smearing was another when it was recorded
STEPS = ["GGA_Relax_1", "GGA_Relax_2", "GGA_Static"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = unpacked("vasp_recorded.tar.xz", tmp_path_factory.mktemp("recorded"))
    return next(path.parent for path in folder.rglob("GGA_Relax_1"))


@pytest.fixture(scope="module")
def silicon(recorded: Path) -> Structure:
    return Structure.from_file(recorded / "GGA_Relax_1" / "inputs" / "POSCAR")


@pytest.fixture
def store() -> JobStore:
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    store.connect()
    return store


@pytest.fixture(scope="module")
def finished(
    recorded: Path, silicon: Structure, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[JobStore, str, list[Path]]]:
    """One replay of all three runs, in this process."""
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    job = Vasp(**SETTINGS).calculation(silicon, "si")
    with in_process(recorded, ALLOWED) as taken:
        run_locally(
            Flow(job), store=store, root_dir=tmp_path_factory.mktemp("runs"),
            create_folders=True, ensure_success=True, log=False,
        )  # fmt: skip
        yield store, job.uuid, list(taken)


def test_the_engine_takes_the_recorded_runs_in_order(
    finished: tuple[JobStore, str, list[Path]],
) -> None:
    """Its inputs are those recorded, each run from the geometry of the last."""
    assert [path.name for path in finished[2]] == STEPS


def test_every_run_is_stored_as_atomate2_stores_it(
    finished: tuple[JobStore, str, list[Path]],
) -> None:
    """Three task documents of emmet's own model, under the names that atomate2 gives its runs."""
    store, uuid, _ = finished
    found = list(store.query({"uuid": uuid}, load=False))
    documents = [TaskDoc(**item["output"]) for item in sorted(found, key=lambda d: d["index"])]
    labels = ["MP GGA relax", "MP GGA relax", "MP GGA static"]
    assert [document.task_label for document in documents] == labels
    assert all(document.state == "successful" for document in documents)


def test_the_energy_is_that_of_vasp_with_the_corrections_of_its_scheme(
    finished: tuple[JobStore, str, list[Path]], silicon: Structure
) -> None:
    """Silicon needs no MP2020 correction: both energies are the last line of OSZICAR per atom."""
    engine, (store, uuid, _) = Vasp(**SETTINGS), finished
    evaluation = engine.evaluation("c", store.get_output(uuid))
    assert evaluation.verdict == "pass", evaluation.reason
    assert "6.3.2" in evaluation.reason
    energy, raw = (evaluation.quantities[k] for k in ("energy_per_atom", "uncorrected_energy"))
    assert energy.value == pytest.approx(-10.840609 / 2, abs=1e-5)
    assert raw.value == pytest.approx(energy.value)
    assert evaluation.theory == engine.theory(silicon)
    assert energy.theory == engine.theory(silicon).key
    assert raw.theory == engine.plan(silicon).theory().key
    assert evaluation.structure is not None
    assert evaluation.structure.volume == pytest.approx(40.917, abs=1e-3)
    assert evaluation.quantities["band_gap"].value == pytest.approx(0.61, abs=0.01)


def test_the_cost_is_that_of_all_three_runs(finished: tuple[JobStore, str, list[Path]]) -> None:
    """Time is VASP's own, of the relaxations too, on 16 cores; work counts ionic steps."""
    store, uuid, _ = finished
    cost = Vasp(**SETTINGS).evaluation("c", store.get_output(uuid)).cost
    assert cost.seconds == pytest.approx(19.5, abs=0.1)
    assert (cost.threads, cost.calls, cost.work) == (16, 5, 10.0)


def test_an_oxide_gets_its_correction(finished: tuple[JobStore, str, list[Path]]) -> None:
    """With an entry of an oxide, the reported energy is lower by what MP2020 says of oxygen."""
    store, uuid, _ = finished
    document = dict(store.get_output(uuid))
    engine = Vasp(**SETTINGS)
    from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility
    from pymatgen.core.entries import ComputedEntry

    from matloop.engines.vasp import verdicts

    entry = ComputedEntry(
        "Si1 O2", -23.0, data={"oxide_type": "oxide"},
        parameters={
            "run_type": "GGA", "hubbards": {}, "is_hubbard": False,
            "potcar_spec": [
                {"titel": "PAW_PBE Si 05Jan2001", "hash": None, "summary_stats": {}},
                {"titel": "PAW_PBE O 08Apr2002", "hash": None, "summary_stats": {}},
            ],
        },
    )  # fmt: skip
    task = verdicts.read(document).model_copy(update={"entry": entry})
    raw = engine.plan(task.structure).theory()
    evaluation = verdicts.passed("c", task, raw, engine.theory(task.structure))
    oxygen = MaterialsProject2020Compatibility().process_entry(entry.copy()).correction
    shift = [evaluation.quantities[k].value for k in ("energy_per_atom", "uncorrected_energy")]
    assert oxygen < -1.0
    assert shift[0] - shift[1] == pytest.approx(oxygen / 3)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"user_incar_settings": {"ENCUT": 600}}, "cutoff 600.0 planned, 520.0 found"),
        ({"user_kpoints_settings": {"reciprocal_density": 500}}, "k_density"),
        ({"user_incar_settings": {"ISMEAR": 0}}, "smearing"),
        ({"level": "mp-r2scan"}, "functional r2SCAN planned, GGA found"),
        ({"magnetism": "nonmagnetic"}, "spins"),
        ({"version": "5"}, "version 5 planned, 6.3.2 found"),
    ],
)
def test_a_run_that_strayed_from_the_plan_fails(
    finished: tuple[JobStore, str, list[Path]], parameters: dict[str, Any], said: str
) -> None:
    """A task document of another level of theory is no energy of this engine, and says why."""
    store, uuid, _ = finished
    evaluation = Vasp(**{**SETTINGS, **parameters}).evaluation("c", store.get_output(uuid))
    assert evaluation.verdict == "fail"
    assert said in evaluation.reason
    assert not evaluation.quantities


def test_u_and_pseudopotentials_are_compared_with_the_plan(
    finished: tuple[JobStore, str, list[Path]],
) -> None:
    """A U value or a pseudopotential that nobody asked for is a fail with the difference."""
    store, uuid, _ = finished
    for change, said in (
        ({"hubbards": {"Si": 2.0}, "is_hubbard": True}, "u_values of Si 0.0 planned, 2.0 found"),
        ({"potcar_spec": [{"titel": "PAW_PBE Si_sv 01Jan2000"}]}, "PBE Si planned, PBE Si_sv"),
        ({"potcar_spec": [{"titel": "PAW_PBE Si 01Jan1999"}]}, "family PBE planned, none found"),
    ):
        document = json.loads(json.dumps(store.get_output(uuid), default=str))
        document["calcs_reversed"][0]["input"].update(change)
        evaluation = Vasp(**SETTINGS).evaluation("c", document)
        assert evaluation.verdict == "fail"
        assert said in evaluation.reason


def test_inputs_that_were_never_recorded_are_refused(
    recorded: Path, silicon: Structure, tmp_path: Path
) -> None:
    """A replay of something else is refused, naming the nearest run and each difference."""
    here = tmp_path / "run"
    shutil.copytree(recorded / "GGA_Static" / "inputs", here)
    assert find_run(here, recorded).name == "GGA_Static"
    incar = here / "INCAR"
    incar.write_text(incar.read_text().replace("520.0", "400"))
    with pytest.raises(ReplayError, match=r"GGA_Static: INCAR ENCUT is 400.*, recorded 520"):
        find_run(here, recorded)
    assert find_run(here, recorded, ("ENCUT",)).name == "GGA_Static"
    silicon.copy().scale_lattice(45.0).to(filename=str(here / "POSCAR"), fmt="poscar")
    with pytest.raises(ReplayError, match="cell differs by"):
        find_run(here, recorded, ("ENCUT",))
    with pytest.raises(ReplayError, match="no recorded VASP run"):
        recorded_runs(tmp_path / "nothing")


def test_the_command_says_that_it_is_a_replay(
    recorded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On success it names the run and that VASP was not run; on refusal it exits with 1."""
    here = tmp_path / "run"
    shutil.copytree(recorded / "GGA_Static" / "inputs", here)
    monkeypatch.chdir(here)
    assert main([str(recorded)]) == 0
    assert "not a VASP run" in capsys.readouterr().err
    assert (here / "vasprun.xml").is_file()
    (here / "POTCAR.spec").write_text("Ge\n")
    assert main([str(recorded)]) == 1
    assert "POTCAR.spec" in capsys.readouterr().err


def test_replayed_with_custodian_in_other_processes(
    recorded: Path, silicon: Structure, tmp_path: Path
) -> None:
    """Default handlers and validators of custodian let the replay pass, all three runs of it."""
    silicon.to(filename=str(tmp_path / "si.json"))
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    command = f"{sys.executable} -m matloop.testing.vasp_replay {recorded} --allow ISMEAR,SIGMA"
    environment = {**os.environ, "ATOMATE2_VASP_CMD": command, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["verdict"] == "pass", answer
    assert answer["energy"] == pytest.approx(-5.4203046, abs=1e-6)
    assert [len(log) for log in answer["custodian"]] == [1, 1, 1]
    assert not any(entry["corrections"] for log in answer["custodian"] for entry in log)
    assert all("matloop.testing.vasp_replay" in str(log) for log in answer["custodian"])


_SCRIPT = """
import json
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Structure
from matloop.engines.vasp.engine import Vasp
engine = Vasp(potcar_spec=True, user_kpoints_settings={"reciprocal_density": 64},
              custodian={"polling_time_step": 1, "monitor_freq": 1})
job = engine.calculation(Structure.from_file("si.json"), "si")
store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
run_locally(job, store=store, create_folders=True, ensure_success=True, log=False)
found = engine.evaluation("c", store.get_output(job.uuid))
outputs = [d["output"] for d in store.query({"uuid": job.uuid})]
print(json.dumps({"verdict": found.verdict, "reason": found.reason,
    "energy": found.quantities["energy_per_atom"].value if found.quantities else None,
    "custodian": [d["custodian"] for d in outputs]}, default=str))
"""


def test_a_stopped_relaxation_goes_on_from_its_last_geometry(
    recorded: Path, silicon: Structure, store: JobStore, tmp_path: Path
) -> None:
    """Walltime: the relaxation is begun again, in a new folder, from where its atoms are."""
    runs = tmp_path / "recorded"
    stopped = runs / "stopped"
    shutil.copytree(recorded / "GGA_Relax_1", stopped)
    _stop_for_time(stopped / "outputs")
    halfway = Structure.from_file(stopped / "outputs" / "CONTCAR")
    again = runs / "again"
    shutil.copytree(recorded / "GGA_Relax_1", again)
    halfway.to(filename=str(again / "inputs" / "POSCAR"), fmt="poscar")
    for name in STEPS[1:]:
        shutil.copytree(recorded / name, runs / name)

    engine = Vasp(**SETTINGS)
    job = engine.calculation(silicon, "si")
    with _stops(runs) as taken:
        run_locally(
            job, store=store, root_dir=tmp_path, create_folders=True, ensure_success=True, log=False
        )
    assert [path.name for path in taken] == ["stopped", "again", *STEPS[1:]]
    document = store.get_output(job.uuid)
    note = record(document)["progress"]
    assert note["restarts"] == 1
    assert "time was nearly over" in note["restarted_after"][0]
    assert engine.evaluation("c", document).verdict == "pass"

    last = Vasp(**SETTINGS, max_restarts=0).calculation(silicon, "si")
    with _stops(runs):
        run_locally(
            last,
            store=store,
            root_dir=tmp_path,
            create_folders=True,
            ensure_success=True,
            log=False,
        )
    evaluation = engine.evaluation("c", store.get_output(last.uuid))
    assert evaluation.verdict == "fail"
    assert "walltime" in evaluation.reason


def _stop_for_time(outputs: Path) -> None:
    import gzip

    contcar = outputs / "CONTCAR.gz"
    text = gzip.decompress(contcar.read_bytes()).decode()
    contcar.unlink()
    structure = Structure.from_str(text, fmt="poscar")
    structure.scale_lattice(structure.volume * 1.01).to(
        filename=str(outputs / "CONTCAR"), fmt="poscar"
    )


def _stops(runs: Path) -> Any:
    """Replay, with custodian's note of the walltime beside the run called stopped."""
    from contextlib import contextmanager

    import atomate2.vasp.jobs.base as atomate2_jobs

    @contextmanager
    def context() -> Iterator[list[Path]]:
        with in_process(runs, ALLOWED) as taken:
            replayed = atomate2_jobs.run_vasp

            def noted(**arguments: object) -> None:
                replayed(**arguments)
                if taken[-1].name == "stopped":
                    correction = {"errors": ["Walltime reached"], "actions": None}
                    Path("custodian.json").write_text(json.dumps([{"corrections": [correction]}]))

            atomate2_jobs.run_vasp = noted
            yield taken

    return context()
