"""Replayed VASP runs through FireWorks, in processes of their own, and on SLURM."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("atomate2")
pytest.importorskip("fireworks")

from jobflow import JobStore
from jobflow.managers.fireworks import flow_to_workflow
from maggma.stores import MongoURIStore
from pymatgen.core import Structure

from matloop.engines.vasp.chain import record
from matloop.engines.vasp.engine import Vasp

from ..cluster.stack import Stack, missing
from .vasp_data import unpacked

if TYPE_CHECKING:
    from fireworks import LaunchPad

pytestmark = pytest.mark.mongo

ENGINE = Vasp(
    potcar_spec=True,
    user_kpoints_settings={"reciprocal_density": 64},
    custodian={"polling_time_step": 1, "monitor_freq": 1},
    walltime_margin=0,
)

_JOBFLOW = """\
JOB_STORE:
  docs_store: {{type: MongoURIStore, uri: "{uri}", database: vasp, collection_name: outputs}}
  additional_stores:
    data: {{type: MongoURIStore, uri: "{uri}", database: vasp, collection_name: data}}
"""


@dataclass
class Queue:
    """A launchpad of its own, and the recorded runs that workers replay."""

    uri: str
    recorded: Path
    directory: Path

    @property
    def launchpad(self) -> LaunchPad:
        from fireworks import LaunchPad

        return LaunchPad(host=self.uri, name="vasp", uri_mode=True, strm_lvl="ERROR")

    def environment(self, *options: str) -> dict[str, str]:
        """Return the environment of a worker, with a replay as its VASP command."""
        configuration = self.directory / "jobflow.yaml"
        configuration.write_text(_JOBFLOW.format(uri=self.uri))
        command = [sys.executable, "-m", "matloop.testing.vasp_replay", str(self.recorded)]
        return {
            **os.environ,
            "JOBFLOW_CONFIG_FILE": str(configuration),
            "ATOMATE2_VASP_CMD": " ".join([*command, *options]),
            "OMP_NUM_THREADS": "1",
        }

    def add(self) -> str:
        """Add the flow of one crystal, and return the uuid of its output."""
        self.launchpad.reset("", require_password=False)
        (self.directory / "launchpad.yaml").write_text(
            f"host: {self.uri}\nname: vasp\nuri_mode: true\nstrm_lvl: ERROR\n"
        )
        start = Structure.from_file(self.recorded / "GGA_Relax_1" / "inputs" / "POSCAR")
        job = ENGINE.calculation(start, "si")
        self.launchpad.add_wf(flow_to_workflow(job))
        return str(job.uuid)

    def worker(self) -> list[str]:
        """Return the command that works until nothing is left."""
        rlaunch = str(Path(sys.executable).parent / "rlaunch")
        return [rlaunch, "-l", str(self.directory / "launchpad.yaml"), "rapidfire"]

    def output(self, uuid: str) -> dict[str, object]:
        """Return the last output of a job."""
        stores = [
            MongoURIStore(self.uri, collection_name=name, database="vasp")
            for name in ("outputs", "data")
        ]
        store = JobStore(stores[0], additional_stores={"data": stores[1]})
        store.connect()
        found: dict[str, object] = store.get_output(uuid)
        return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = unpacked("vasp_recorded.tar.xz", tmp_path_factory.mktemp("recorded"))
    return next(path.parent for path in folder.rglob("GGA_Relax_1"))


@pytest.fixture
def queue(recorded: Path, tmp_path: Path) -> Iterator[Queue]:
    """A database server in a process of its own."""
    command = [sys.executable, "-m", "matloop.testing.mongodb_server"]
    command += ["--journal", str(tmp_path / "journal")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        yield Queue(f"mongodb://{address}", recorded, tmp_path)
        server.terminate()


@pytest.mark.slow
def test_a_replay_through_fireworks_ends_in_the_same_verdict(queue: Queue) -> None:
    """A worker in another process takes all three runs, with custodian, to the energy."""
    uuid = queue.add()
    subprocess.run(
        queue.worker(), cwd=queue.directory, check=True, timeout=240, capture_output=True,
        env=queue.environment("--allow", "ISMEAR,SIGMA"),
    )  # fmt: skip
    states = {f["state"] for f in queue.launchpad.fireworks.find({}, {"state": 1})}
    assert states == {"COMPLETED"}
    evaluation = ENGINE.evaluation("c", queue.output(uuid))
    assert evaluation.verdict == "pass", evaluation.reason
    assert evaluation.quantities["energy_per_atom"].value == pytest.approx(-5.4203046, abs=1e-6)
    assert evaluation.cost.calls == 5


@pytest.mark.slow
def test_a_killed_launch_goes_on_from_its_last_geometry(queue: Queue) -> None:
    """kill -9 in the first relaxation: the rerun starts in a new folder where the atoms were."""
    uuid = queue.add()
    allow = ("--allow", "ISMEAR,SIGMA,MAGMOM")
    with subprocess.Popen(
        queue.worker(), cwd=queue.directory, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=queue.environment(*allow, "--seconds", "300"),
    ) as worker:  # fmt: skip
        _wait(lambda: bool(list(queue.directory.glob("launcher_*/CONTCAR"))), "a first geometry")
        os.killpg(worker.pid, signal.SIGKILL)
    # The run that died is the one the rerun must not begin anew: its start is no longer recorded.
    shorter = queue.directory / "recorded"
    for name in ("GGA_Relax_2", "GGA_Static"):
        shutil.copytree(queue.recorded / name, shorter / name)
    queue.recorded = shorter
    lost = queue.launchpad.detect_lostruns(expiration_secs=0, rerun=True)
    assert len(lost[0]) == 1
    subprocess.run(
        queue.worker(), cwd=queue.directory, check=True, timeout=240, capture_output=True,
        env=queue.environment(*allow),
    )  # fmt: skip
    document = queue.output(uuid)
    progress = record(document)["progress"]
    assert (progress["restarts"], progress["restarted_after"]) == (1, ["1 earlier launch lost"])
    assert ENGINE.evaluation("c", document).verdict == "pass"


@pytest.mark.slow
@pytest.mark.slurm
def test_a_replay_on_slurm(recorded: Path, tmp_path: Path) -> None:
    """The same worker as a SLURM job, which bounds its own time, ends in the same verdict."""
    if reason := missing():
        pytest.skip(f"no test cluster: {reason}")
    stack = Stack.start(tmp_path / "stack")
    try:
        queue = Queue(stack.uri, recorded, tmp_path)
        uuid = queue.add()
        wanted = queue.environment("--allow", "ISMEAR,SIGMA")
        changed = {k: v for k, v in wanted.items() if os.environ.get(k) != v}
        lines = [f"export {key}='{value}'" for key, value in changed.items()]
        script = "\n".join([*lines, f"cd {tmp_path}", " ".join(queue.worker())])
        job = stack.sbatch(script, "--time=10")
        stack.wait_for(job, "COMPLETED", seconds=240)
        evaluation = ENGINE.evaluation("c", queue.output(uuid))
        assert evaluation.verdict == "pass", evaluation.reason
    finally:
        stack.close()


def _wait(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)
