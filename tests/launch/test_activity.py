"""What `matloop status` says of jobs is true while things are broken."""

from __future__ import annotations

import pytest

pytest.importorskip("fireworks")

from matloop.errors import SchedulerError
from matloop.launch import slurm
from matloop.launch.activity import activity
from matloop.launch.recovery import heal

from .lab import Lab

pytestmark = pytest.mark.mongo

JOIN = {"_allow_fizzled_parents": True}


def test_activity_tells_the_truth(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What FireWorks believes to run but is dead is called lost, and so is a silent SLURM."""
    from matloop.launch import workers

    monkeypatch.setattr(workers.slurm, "jobs", lambda **_: [])
    lab.campaign("one")
    shards = [lab.firework(f"evaluate relax 0.{n}", kind="gpu") for n in range(3)]
    join = lab.firework("evaluate relax", **JOIN)
    lab.add([*shards, join], {shard: [join] for shard in shards})
    lab.take("gpu@7", kind="gpu")
    lab.take("gpu@8", kind="gpu")
    lab.ended("7", "TIMEOUT")
    lab.alive("8", started_ago=100)
    seen = activity(lab.site, lab.launchpad, lab.ledger, "one")
    counts = {(job.job, job.kind): job for job in seen.jobs}
    shard = counts["evaluate relax", "gpu"]
    assert (shard.running, shard.ready, shard.lost) == (1, 1, 1)
    assert counts["evaluate relax", "cpu"].waiting == 1
    assert seen.oldest_heartbeat is not None
    assert seen.oldest_heartbeat < 60
    assert any("its job 7 ended as TIMEOUT" in line for line in seen.obstacles)
    heal(lab.site, lab.launchpad, lab.ledger)
    again = activity(lab.site, lab.launchpad, lab.ledger, "one")
    assert (again.count("running"), again.count("ready"), again.count("lost")) == (1, 2, 0)
    monkeypatch.setattr(slurm, "job_states", _silence)
    blind = activity(lab.site, lab.launchpad, lab.ledger, "one")
    assert any("whether the jobs live is not known" in line for line in blind.obstacles)


def _silence(_job_ids: object) -> dict[str, slurm.JobState]:
    raise SchedulerError("SLURM could not be asked")
