"""The cluster all tests of this folder share; they are skipped where none can be started."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .stack import Stack, missing

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from matloop.launch.site import Site

_SITE = """\
name: test
database: {{name: {database}, uri_file: uri}}
directory: shared
kinds:
  cpu:
    cores: 1
    walltime: "00:05:00"
    max_jobs: 2
    idle_seconds: 2
    setup: ["export PYTHONPATH={chores}:$PYTHONPATH"]
  brief:
    cores: 1
    walltime: "00:01:00"
    idle_seconds: 2
    setup: ["export PYTHONPATH={chores}:$PYTHONPATH"]
  gpu:
    cores: 2
    gpus: 2
    walltime: "00:05:00"
    idle_seconds: 2
    setup: ["export PYTHONPATH={chores}:$PYTHONPATH"]
  nowhere:
    queue: no-such-partition
"""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start SLURM with two nodes and a database, and stop them after the last test."""
    if reason := missing():
        pytest.skip(f"no test cluster: {reason}")
    running = Stack.start(tmp_path_factory.mktemp("cluster"))
    yield running
    running.close()


@pytest.fixture
def on_cluster(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Let this process talk to the cluster as its users do, and leave it empty."""
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    return stack


@dataclass
class Place:
    """A site of its own on the cluster, with an empty database."""

    stack: Stack
    site: Site
    launchpad: LaunchPad
    log: Path

    def add(self, kind: str, chore: str, *names: str, **arguments: object) -> dict[str, int]:
        """Add one firework per name, and return their ids by name."""
        from fireworks import Firework, PyTask

        ids = {}
        for name in names:
            task = PyTask(
                func=f"chores.{chore}",
                kwargs={"log": str(self.log), "name": name, **arguments},
            )
            firework = Firework(task, name=name, spec={"_category": kind})
            ids[name] = next(iter(self.launchpad.add_wf(firework).values()))
        return ids

    def notes(self, what: str = "") -> list[dict[str, object]]:
        """Return what the fireworks noted, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = [json.loads(line) for line in lines]
        return [item for item in found if not what or item["what"] == what]

    def states(self) -> dict[str, str]:
        """Return the state of every firework by name."""
        found = self.launchpad.fireworks.find({}, {"name": 1, "state": 1})
        return {item["name"]: item["state"] for item in found}

    def wait_until_done(self, seconds: float = 40) -> None:
        """Wait until every firework has completed."""
        self.wait(lambda: set(self.states().values()) == {"COMPLETED"}, "fireworks", seconds)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
        """Wait for a condition; a failure shows what fireworks and workers said."""
        try:
            self.stack.wait(condition, what, seconds)
        except TimeoutError as error:
            outputs = [path.read_text()[-3000:] for path in self.site.logs.rglob("*.error")]
            raise AssertionError("\n".join([str(error), str(self.states()), *outputs])) from error

    def status(self, name: str) -> dict[str, object]:
        """Return what the command says of a campaign."""
        told = self.matloop("status", "--campaign", name, "--json")
        assert told.returncode == 0, told.stderr
        found: dict[str, object] = json.loads(told.stdout)
        return found

    def matloop(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command for this site."""
        command = ["matloop", *words, "--site", str(self.site.file)]
        return subprocess.run(
            command,
            env=self.stack.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )


@pytest.fixture
def place(on_cluster: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Return a site of its own, and cancel what the test leaves behind."""
    from matloop.launch.site import load_site

    uri = tmp_path / "uri"
    uri.touch(mode=0o600)
    uri.write_text(on_cluster.uri)
    database = request.node.name.split("[")[0][-60:]
    file = tmp_path / "site.yaml"
    file.write_text(_SITE.format(database=database, chores=Path(__file__).parent))
    site = load_site(file)
    launchpad = site.launchpad()
    launchpad.reset("", require_password=False)
    yield Place(on_cluster, site, launchpad, tmp_path / "log")
    on_cluster.scancel("--user=root")
    on_cluster.wait(lambda: not on_cluster.squeue(), "jobs to end")
