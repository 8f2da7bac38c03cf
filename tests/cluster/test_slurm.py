"""What `matloop.launch.slurm` says of real jobs, and of a SLURM that does not answer."""

from __future__ import annotations

import time

import pytest

from matloop.errors import SchedulerError
from matloop.launch import slurm

from .stack import Stack

pytestmark = pytest.mark.slurm


def test_states_of_real_jobs(on_cluster: Stack) -> None:
    """Running, waiting, failed, cancelled and unknown jobs are told apart in one question."""
    failed = on_cluster.sbatch("exit 3")
    running = on_cluster.sbatch("sleep 60", "--job-name=matloop-real")
    waiting = on_cluster.sbatch("sleep 60", f"--dependency=afterok:{running}")
    cancelled = on_cluster.sbatch("sleep 60", "--hold")
    on_cluster.wait_for(failed, "FAILED")
    on_cluster.wait_for(running, "RUNNING")
    slurm.cancel([cancelled])
    states = slurm.job_states([failed, running, waiting, cancelled, "99999"])
    assert {job_id: job.state for job_id, job in states.items()} == {
        failed: "FAILED",
        running: "RUNNING",
        waiting: "PENDING",
        cancelled: "CANCELLED",
        "99999": slurm.GONE,
    }
    assert [job_id for job_id, job in states.items() if job.alive] == sorted([running, waiting])
    assert states[failed].reason == "NonZeroExitCode"
    assert states[running].started == pytest.approx(time.time(), abs=30)
    assert states[running].may_hold(time.time())
    assert not states[waiting].may_hold(time.time())
    assert slurm.seconds_left(running) == pytest.approx(3600, abs=30)
    assert [job.job_id for job in slurm.jobs(name_prefix="matloop-")] == [running]
    assert slurm.job_states(["99999"])["99999"].alive is False
    slurm.cancel([running, waiting, failed])
    on_cluster.wait(lambda: slurm.jobs(name_prefix="matloop-") == [], "the job to end")


def test_a_requeued_job_is_not_the_same_run(on_cluster: Stack) -> None:
    """The node dies; SLURM starts the job again; what was seen in the first run is gone."""
    job_id = on_cluster.sbatch("sleep 100", "--nodelist=n1", "--requeue")
    on_cluster.wait_for(job_id, "RUNNING")
    seen = time.time()
    on_cluster.stop_node("n1")
    try:
        on_cluster.wait_for(job_id, "PENDING", seconds=60)
        assert not slurm.job_states([job_id])[job_id].may_hold(seen)
    finally:
        on_cluster.start_node("n1")
    on_cluster.wait_for(job_id, "RUNNING", seconds=40)
    again = slurm.job_states([job_id])[job_id]  # a dead node is noticed after more than 10 s
    assert again.alive
    assert not again.may_hold(seen)
    assert again.may_hold(time.time())
    slurm.cancel([job_id])


def test_a_controller_that_is_away_is_no_answer(on_cluster: Stack) -> None:
    """While the controller is down every question raises, and the job that runs is not gone."""
    job_id = on_cluster.sbatch("sleep 60")
    on_cluster.wait_for(job_id, "RUNNING")
    on_cluster.stop_controller()
    try:
        for ask in (lambda: slurm.job_states([job_id]), slurm.jobs, slurm.partitions):
            with pytest.raises(SchedulerError, match="Unable to contact"):
                ask()
        with pytest.raises(SchedulerError, match="Unable to contact"):
            slurm.cancel([job_id])
    finally:
        on_cluster.start_controller()
    assert slurm.job_states([job_id])[job_id].alive
    slurm.cancel([job_id])


def test_partitions_of_the_cluster(on_cluster: Stack) -> None:
    """The one partition has both nodes, their cores and GPUs, and its limit."""
    found = slurm.partitions()["debug"]
    assert (found.available, found.limit, found.nodes, found.cores) == (True, 3600.0, 2, 2)
    assert "gpu" in found.gpus
