"""Whole campaigns on a real cluster while things die: complete, equal, and nothing paid twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from matloop import registry
from matloop.launch import evidence, slurm, workers
from matloop.launch.activity import activity
from matloop.launch.tick import Tick, tick
from matloop.ledger.opening import read_ledger

from ..launch.contents import contents
from .stack import Stack

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from matloop.launch.evidence import Run
    from matloop.launch.site import Site
    from matloop.ledger.interface import Ledger

pytestmark = [pytest.mark.slurm, pytest.mark.mongo]

NAME = "faults"
CHUNK = 2
ITERATIONS = 5

CAMPAIGN = """\
name: faults
seed: 3
space: {{system: Cu-Au, max_atoms: 4}}
objective: {{minimize: e_above_hull, discovery: e_above_hull <= 0.05 eV/atom}}
references: {{max_elements: 1}}
generators: [toy]
stages:
  - name: relax
    evaluate: [{{use: toy_relaxation, with: {{seconds: 0.7, log: {log}}}}}]
    chunk: {chunk}
    worker_kind: mlip
  - name: stability
    evaluate: [hull_distance]
feedback: "off"
budget: {{iterations: {iterations}, candidates: 10}}
"""
SITE = """\
name: test
database: {{name: {database}, uri_file: uri}}
directory: shared
kinds:
  cpu:
    cores: 1
    walltime: "00:20:00"
    idle_seconds: 20
    setup: ["export PYTHONPATH={plugins}"]
  mlip:
    cores: 1
    walltime: "00:20:00"
    idle_seconds: 20
    setup: ["export PYTHONPATH={plugins}"]
"""


@dataclass
class Faults:
    """A campaign on the cluster, and what is done to it."""

    stack: Stack
    site: Site
    launchpad: LaunchPad
    ledger: Ledger
    log: Path
    paid: int
    file: Path
    environment: dict[str, str]
    table: list[tuple[str, str, float, int]] = field(default_factory=list)

    def tick(self) -> Tick:
        """Take a step, workers included."""
        return tick(self.site, self.launchpad, self.ledger, top_up=True)

    def lines(self) -> int:
        """Return how many evaluations have been paid for on the cluster."""
        return len(self.log.read_text().splitlines()) - self.paid

    def turn(self) -> int:
        """Return the iteration at hand; -1 during the preparation."""
        states = self.ledger.states(NAME)
        return states[-1].iteration if states else -1

    def shard(self) -> Run | None:
        """Return a shard that is at work."""
        living = evidence.runs(self.launchpad, NAME)
        shards = [run for run in living if run.tag["kind"] == "mlip" and run.tag["stage"]]
        return shards[0] if shards else None

    def until(
        self,
        condition: Callable[[], bool],
        what: str,
        seconds: float = 120,
        step: Callable[[], object] | None = None,
    ) -> None:
        """Step until a condition holds, by default by ticks."""
        end = time.monotonic() + seconds
        ticked = 0.0
        while not condition():
            if time.monotonic() > end:
                errors = [path.read_text()[-2000:] for path in self.site.logs.rglob("*.error")]
                said = activity(self.site, self.launchpad, self.ledger, NAME)
                raise AssertionError("\n".join([f"waited for {what}: {said}", *errors]))
            if time.monotonic() - ticked > 2:
                (step or self.tick)()
                ticked = time.monotonic()
            time.sleep(0.2)

    def strike(self, name: str, fault: Callable[[Run], None]) -> None:
        """Wait until a shard of a new iteration is at work, do harm, and see it repaired."""
        turn = self.turn()
        before = self.lines()
        self.until(lambda: self.shard() is not None and self.lines() >= before + 3, name)
        run = self.shard()
        assert run is not None
        begun = time.monotonic()
        fault(run)
        self.until(lambda: self._repaired(run), f"repair of {name}")
        repaired = time.monotonic() - begun
        self.until(lambda: self.turn() > turn, f"iteration {turn + 1} after {name}")
        self.table.append(
            (name, run.name, repaired, self.twice() - sum(row[3] for row in self.table))
        )

    def twice(self) -> int:
        """Return how many evaluations have been paid for more than once."""
        lines = self.log.read_text().splitlines()[self.paid :]
        return len(lines) - len(set(lines))

    def _repaired(self, run: Run) -> bool:
        found = self.launchpad.fireworks.find_one({"fw_id": run.fw_id})
        again = self.launchpad.launches.find_one(
            {"fw_id": run.fw_id, "launch_id": {"$gt": run.launch_id}}
        )
        return found["state"] == "COMPLETED" or again is not None

    # --- faults

    def cancel(self, run: Run) -> None:
        """`scancel` of the shard's job, which is given five seconds to end its chunk."""
        self.stack.scancel(run.job_id)

    def kill_rocket(self, run: Run) -> None:
        """`kill -9` of the process that works, as running out of memory does."""
        for pid in _rockets(run.job_id):
            os.kill(pid, signal.SIGKILL)

    def stop_node(self, run: Run) -> None:
        """Let the node die that the shard runs on."""
        node = self.stack.command("squeue", "-h", "-j", run.job_id, "-o", "%N").strip()
        self.stack.stop_node(node)
        self.until(lambda: not slurm.job_states([run.job_id])[run.job_id].may_hold(
            run.began.timestamp()), "SLURM to miss the node")  # fmt: skip
        seen = activity(self.site, self.launchpad, self.ledger, NAME)
        assert seen.count("lost") or self._repaired(run), seen
        self.stack.start_node(node)

    def hit_walltime(self, run: Run) -> None:
        """Let the job hang until its walltime is over."""
        self.stack.command("scontrol", "update", f"jobid={run.job_id}", "timelimit=1")
        for pid in _rockets(run.job_id):
            os.kill(pid, signal.SIGSTOP)
        self.until(
            lambda: slurm.job_states([run.job_id])[run.job_id].state == "TIMEOUT", "walltime"
        )

    def restart_database(self, _run: Run) -> None:
        """Kill the database server and start it again after a while."""
        self.stack.kill_database()
        time.sleep(5)
        self.stack.start_database()


@pytest.fixture(scope="module")
def undisturbed(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Run the campaign on this machine; return its file and the log of what it paid for."""
    directory = tmp_path_factory.mktemp("faults")
    file, log = directory / "faults.yaml", directory / "paid"
    file.write_text(CAMPAIGN.format(log=log, chunk=CHUNK, iterations=ITERATIONS))
    command = [sys.executable, "-m", "matloop", "run", str(file), "--dir", str(directory / "run")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return file, log


@pytest.fixture
def faults(
    on_cluster: Stack,
    environment: dict[str, str],
    undisturbed: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Faults]:
    """Return a site of its own for the campaign."""
    from matloop.jobs.place import close_ledgers
    from matloop.launch.site import load_site

    plugins, (file, log) = environment["PYTHONPATH"], undisturbed
    uri = tmp_path / "uri"
    uri.touch(mode=0o600)
    uri.write_text(on_cluster.uri)
    database = f"recovery_{uuid4().hex[:8]}"
    (tmp_path / "site.yaml").write_text(SITE.format(plugins=plugins, database=database))
    site = load_site(tmp_path / "site.yaml")
    ledger = site.ledger().open()
    own = {**on_cluster.environment, "PYTHONPATH": plugins}
    paid = len(log.read_text().splitlines())
    with monkeypatch.context() as path:
        path.syspath_prepend(plugins)
        _forget_plugins()
        yield Faults(on_cluster, site, site.launchpad(), ledger, log, paid, file, own)
    _forget_plugins()
    close_ledgers()
    ledger.close()
    on_cluster.scancel("--user=root")
    on_cluster.wait(lambda: not on_cluster.squeue(), "jobs to end")


def _forget_plugins() -> None:
    registry.names.cache_clear()
    registry.load.cache_clear()


@pytest.mark.timeout(600)
def test_a_campaign_survives_everything(faults: Faults, capsys: pytest.CaptureFixture[str]) -> None:
    """One fault in each iteration: complete, equal to the undisturbed run, hardly paid twice."""
    said = _matloop(faults, "submit", str(faults.file))
    assert said.returncode == 0, said.stderr
    assert "submitted faults to test: the preparation" in said.stdout
    again = _matloop(faults, "submit", str(faults.file))
    assert "is at test already: running" in again.stdout
    faults.until(lambda: faults.turn() == 0, "the preparation")
    faults.strike("scancel of a running shard", faults.cancel)
    faults.strike("kill -9 of a rocket process", faults.kill_rocket)
    faults.strike("a node stopped", faults.stop_node)
    faults.strike("database killed for 5 s", faults.restart_database)
    faults.strike("walltime hit", faults.hit_walltime)
    faults.until(lambda: faults.ledger.states(NAME)[-1].status == "finished", "the end")
    with capsys.disabled():
        print(f"\n{'fault':36}{'repaired after':>16}{'paid twice':>12}")
        for name, _, seconds, twice in faults.table:
            print(f"{name:36}{seconds:14.1f} s{twice:12d}")
        print(f"{len(faults.table)} faults injected")
    expected, found = (
        contents(faults.file.parent / "run", NAME),
        contents(faults.site.ledger(), NAME),
    )
    for part in expected:
        assert found[part] == expected[part], f"{part} differ"
    assert all(twice <= CHUNK for *_, twice in faults.table)
    workflows = faults.launchpad.workflows.find({}, {"metadata": 1})
    turns = sorted(item["metadata"]["matloop"]["iteration"] for item in workflows)
    assert turns == [-1, *range(ITERATIONS)], "every workflow was submitted once"
    faults.until(lambda: not evidence.runs(faults.launchpad), "the last job to end")
    faults.tick()
    launches = list(faults.launchpad.launches.find({}, {"launch_id": 1}))
    receipts = faults.ledger.receipts(NAME)
    assert len(receipts) == len(launches)
    assert {receipt.outcome for receipt in receipts} >= {"done", "lost"}


@pytest.mark.timeout(300)
def test_five_ticks_do_what_one_does(faults: Faults) -> None:
    """The job that submits what comes next is dead: five ticks at once add it, and it once."""
    assert _matloop(faults, "submit", str(faults.file)).returncode == 0
    (last,) = faults.launchpad.get_fw_ids({"name": "submit next"})
    faults.launchpad.defuse_fw(last)
    faults.until(
        lambda: faults.turn() == 0,
        "the preparation",
        step=lambda: workers.up(faults.site, launchpad=faults.launchpad),
    )
    assert faults.launchpad.workflows.count_documents({}) == 1
    with ThreadPoolExecutor(5) as callers:
        told = list(callers.map(lambda _: _matloop(faults, "tick", "--all", "-w"), range(5)))
    assert [done.returncode for done in told] == [0] * 5, told
    said = [done.stdout for done in told]
    assert sum("submitted iteration 0" in text for text in said) == 1
    assert all("iteration 0" in text or "another tick is at work" in text for text in said)
    assert faults.launchpad.workflows.count_documents({}) == 2
    assert len(faults.stack.squeue()) <= len(faults.site.kinds)


@pytest.mark.timeout(300)
def test_poison_costs_one_relaunch(faults: Faults, tmp_path: Path) -> None:
    """A crystal that kills its process: its shard is run twice, and everyone else is judged."""
    ledger = read_ledger(faults.file.parent / "run")
    first = [record.candidate for record in ledger.candidates(NAME) if record.iteration == 0]
    ledger.close()
    formulas = [candidate.structure.composition.reduced_formula for candidate in first]
    (poison, *_) = [name for name in formulas if formulas.count(name) == 1 and name not in "CuAu"]
    text = faults.file.read_text().replace("name: faults", "name: poisoned")
    text = text.replace("seconds: 0.7", f"seconds: 0.1, fatal: {poison}")
    file, log = tmp_path / "poisoned.yaml", tmp_path / "paid"
    file.write_text(
        text.replace(str(faults.log), str(log)).replace("iterations: 5", "iterations: 1")
    )
    said = _matloop(faults, "submit", str(file))
    assert said.returncode == 0, said.stderr
    finished = lambda: [s.status for s in faults.ledger.states("poisoned")][-1:] == ["finished"]  # noqa: E731
    faults.until(finished, "the end of the poisoned campaign")
    decisions = faults.ledger.decisions("poisoned", 0, "relax")
    assert len(decisions) == len(first)
    (guilty,) = [decision for decision in decisions if decision.outcome != "passed"]
    assert guilty.outcome == "failed"
    assert "quarantined" in guilty.reason
    assert guilty.candidate_id.startswith(f"{poison}-")
    shards = faults.launchpad.fireworks.find({"name": {"$regex": "evaluate relax [0-9]"}})
    launches = {
        shard["fw_id"]: len(shard["archived_launches"]) + len(shard["launches"]) for shard in shards
    }
    assert sum(launches.values()) - len(launches) == 1, launches


def _matloop(faults: Faults, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["matloop", *words, "--site", str(faults.site.file)],
        env=faults.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def _rockets(job_id: str) -> list[int]:
    """Return the rocket processes of a SLURM job."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_text()
            environment = (entry / "environ").read_text()
        except OSError:
            continue
        if "matloop.launch.rocket" in command and f"SLURM_JOB_ID={job_id}\0" in environment:
            found.append(int(entry.name))
    return found
