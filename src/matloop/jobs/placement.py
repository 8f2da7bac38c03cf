"""Where on a cluster a job runs, and how it is found again there."""

from __future__ import annotations

from typing import TypeVar

from jobflow import Flow, Job
from jobflow.core.reference import OnMissing

from matloop.jobs.place import Place

Jobs = TypeVar("Jobs", Job, Flow)

TAG = "matloop"
"""Field of a job's metadata, and so of its firework's spec, that names the campaign."""


def placed(jobs: Jobs, place: Place, kind: str, *, pass_on: bool = False) -> Jobs:
    """Return jobs that a kind of worker runs, tagged with the campaign they belong to.

    Jobs that a campaign's jobs create are placed by them, not by the kind of their creator.

    Parameters
    ----------
    jobs
        A job, or a flow of jobs.
    place
        Campaign, iteration and stage they belong to.
    kind
        Kind of worker, the category of their fireworks; empty for any.
    pass_on
        Whether jobs that these jobs create go to the same kind, as with other people's flows.
    """
    for job in jobs.jobs if isinstance(jobs, Flow) else [jobs]:
        if isinstance(job, Flow):
            placed(job, place, kind, pass_on=pass_on)
            continue
        if kind:
            job.config.manager_config = {**job.config.manager_config, "_category": kind}
        if job.config.on_missing_references != OnMissing.ERROR:
            # FireWorks would copy every fizzled parent's whole document into this one
            job.config.manager_config["_fizzled_parents"] = []
        job.config.pass_manager_config = pass_on
        job.metadata[TAG] = {
            "campaign": place.campaign_id,
            "iteration": place.iteration,
            "stage": place.stage,
            "kind": kind,
        }
    return jobs
