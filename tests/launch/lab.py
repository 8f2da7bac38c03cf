"""A site on the test database with hand-made workflows, for tests of what operates campaigns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fireworks import Firework, FWAction, FWorker, LaunchPad, PyTask, Workflow
from fireworks.core.rocket_launcher import launch_rocket

from matloop.documents.campaign import Campaign, CampaignRecord, GeneratorEntry, Stage
from matloop.documents.objective import Objective
from matloop.documents.space import ChemicalSpace
from matloop.launch.site import Site, load_site
from matloop.launch.slurm import JobState
from matloop.ledger.store_ledger import StoreLedger

SITE = """\
name: lab
database: {{name: {database}, uri_file: uri}}
directory: shared
kinds:
  cpu: {{cores: 4, max_launches: 3}}
  gpu: {{cores: 8, gpus: 2}}
"""


@dataclass
class Lab:
    """A site with an empty LaunchPad and an empty ledger.

    Attributes
    ----------
    slurm
        What SLURM says, by job id; a job that is not there is unknown to it.
    """

    site: Site
    launchpad: LaunchPad
    ledger: StoreLedger
    directory: Path
    slurm: dict[str, JobState] = field(default_factory=dict)

    def campaign(self, name: str, **settings: Any) -> CampaignRecord:
        """Record a campaign."""
        declared = {
            "name": name,
            "space": ChemicalSpace(system="Cu-Au"),
            "objective": Objective(minimize="e_above_hull"),
            "generators": (GeneratorEntry(use="random_symmetric"),),
            "stages": (Stage(name="relax"),),
            **settings,
        }
        record = CampaignRecord(
            campaign_id=name,
            campaign=Campaign(**declared),
            versions={},
            machine={},
            created_at=datetime.now(UTC),
        )
        self.ledger.add_campaign(record)
        return record

    def firework(
        self, name: str, campaign: str = "one", kind: str = "cpu", fails: bool = False, **spec: Any
    ) -> Firework:
        """Return a firework of a campaign that does nothing, or fails."""
        words = name.split()
        stage = words[1] if len(words) > 1 and words[0] in {"evaluate", "decide"} else ""
        tag = {"campaign": campaign, "iteration": 0, "stage": stage, "kind": kind}
        task = PyTask(func="os.stat", args=["/no/such/file" if fails else "/"])
        return Firework(task, {"matloop": tag, "_category": kind, **spec}, name=name)

    def add(
        self,
        fireworks: Iterable[Firework],
        links: Mapping[Firework, list[Firework]] | None = None,
        campaign: str = "one",
        iteration: int = 0,
    ) -> dict[str, int]:
        """Add a workflow, and return the ids of its fireworks by name."""
        found = list(fireworks)
        tag = {"matloop": {"campaign": campaign, "iteration": iteration}}
        self.launchpad.add_wf(Workflow(found, dict(links or {}), metadata=tag))
        return {firework.name: firework.fw_id for firework in found}

    def take(
        self,
        worker: str,
        slot: int = 0,
        kind: str = "cpu",
        cluster: str = "",
        fw_id: int | None = None,
    ) -> int:
        """Let a worker take a firework and do nothing with it; return the launch's id."""
        fworker = FWorker(worker, kind, env={"slot": slot, "cluster": cluster})
        firework, launch_id = self.launchpad.checkout_fw(fworker, str(self.directory), fw_id=fw_id)
        assert firework is not None
        return int(launch_id)

    def run(self, kind: str = "cpu", fw_id: int | None = None) -> bool:
        """Run one firework to its end; False if there is none."""
        here = os.getcwd()
        folder = self.directory / "launches" / str(len(self.launches()))
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        try:
            worker = FWorker(f"{kind}@1", kind, env={"slot": 0})
            return bool(launch_rocket(self.launchpad, worker, fw_id=fw_id, strm_lvl="CRITICAL"))
        finally:
            os.chdir(here)

    def complete(
        self, launch_id: int, state: str = "COMPLETED", action: FWAction | None = None
    ) -> None:
        """Let a taken firework end."""
        self.launchpad.complete_launch(launch_id, action or FWAction(), state)

    def run_all(self, most: int = 100) -> int:
        """Run until nothing is ready; return how many launches that took."""
        for count in range(most):
            if not any(self.run(kind) for kind in self.site.kinds):
                return count
        raise AssertionError(f"still running after {most} launches: {self.states()}")

    def states(self) -> dict[str, str]:
        """Return the state of every firework by name."""
        found = self.launchpad.fireworks.find({}, {"name": 1, "state": 1})
        return {item["name"]: item["state"] for item in found}

    def launches(self) -> list[dict[str, Any]]:
        """Return all launches, oldest first."""
        return list(self.launchpad.launches.find({}).sort("launch_id", 1))

    def silence(self, launch_id: int, seconds: float) -> None:
        """Let a launch's last heartbeat be that old."""
        then = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
        launch = self.launchpad.launches.find_one({"launch_id": launch_id})
        history = launch["state_history"]
        history[-1] |= {"created_on": then, "updated_on": then}
        self.launchpad.launches.update_one(
            {"launch_id": launch_id}, {"$set": {"state_history": history, "time_start": then}}
        )

    def ended(self, job_id: str, state: str = "CANCELLED", seconds_ago: float = 0) -> None:
        """Let SLURM say that a job has ended."""
        moment = datetime.now(UTC).timestamp() - seconds_ago
        self.slurm[job_id] = JobState(job_id, state, alive=False, reason="None", ended=moment)

    def alive(self, job_id: str, started_ago: float = 1000) -> None:
        """Let SLURM say that a job runs."""
        moment = datetime.now(UTC).timestamp() - started_ago
        self.slurm[job_id] = JobState(job_id, "RUNNING", alive=True, started=moment)


def make_lab(uri: str, database: str, directory: Path) -> Lab:
    """Return a lab in a database of its own."""
    secret = directory / "uri"
    secret.touch(mode=0o600)
    secret.write_text(uri)
    file = directory / "site.yaml"
    file.write_text(SITE.format(database=database))
    site = load_site(file)
    launchpad = site.launchpad()
    launchpad.reset("", require_password=False)
    return Lab(site, launchpad, site.ledger().open(), directory)
