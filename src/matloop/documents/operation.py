"""How a campaign is operated: what was begun, what it took, and what its users asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from matloop.documents.base import Document

Order = Literal["pause", "resume", "stop"]


class Attempt(Document):
    """A chunk of evaluations that a process has begun.

    It is written before the work and never changed. An attempt whose keys have no result was in
    flight when its process died, or is in flight now.

    Attributes
    ----------
    attempt_id
        Unique name.
    keys
        Keys of the evaluations begun.
    worker
        Who began: host, process, and job of the scheduler.
    isolated
        Whether the work was done in a process of its own, so that its death harmed nobody else.
    started_at
        When (UTC).
    """

    attempt_id: str
    campaign_id: str
    iteration: int
    stage: str
    keys: tuple[str, ...]
    worker: str
    isolated: bool = False
    started_at: datetime
    schema_version: int = 1


class Closing(Document):
    """That a stage takes no more results: its decisions follow.

    It is written once, so that whoever decides leaves out the same candidates.

    Attributes
    ----------
    late
        Hash of the artifact that lists the candidates it closes without, each with the number of
        evaluators that judged it (JSON); empty where there are none.
    reason
        Why it closes without them; empty where there are none.
    closed_at
        When (UTC).
    """

    campaign_id: str
    iteration: int
    stage: str
    late: str = ""
    reason: str = ""
    closed_at: datetime
    schema_version: int = 1


class Reservation(Document):
    """Money set aside for one calculation before it is submitted.

    It is written once per campaign and calculation, and settled by the evaluation under its key:
    from then on what the evaluation cost counts instead.

    Attributes
    ----------
    stage
        Stage whose budget pays: the one that calculates, also for its reference phases.
    key
        Key of the evaluation it will become.
    candidate_id
        Candidate or reference phase.
    core_hours
        Estimated cost.
    reserved_at
        When (UTC).
    """

    campaign_id: str
    iteration: int
    stage: str
    key: str
    candidate_id: str
    core_hours: float = Field(ge=0)
    reserved_at: datetime
    schema_version: int = 1


class Receipt(Document):
    """What one job of a campaign took from the machine, useful or not.

    Attributes
    ----------
    receipt_id
        Unique name: the same run of the same job is counted once.
    job
        Name of the job, such as ``evaluate relax``.
    kind
        Worker kind it ran on.
    worker
        Who ran it.
    started_at
        When (UTC).
    seconds
        Wall time (s).
    cores, gpus
        What was held meanwhile.
    outcome
        ``done``; ``handed on`` where walltime ended it and another job goes on; ``lost`` where it
        died.
    """

    receipt_id: str
    campaign_id: str
    iteration: int
    job: str
    kind: str
    worker: str
    started_at: datetime
    seconds: float
    cores: float = 1
    gpus: float = 0
    outcome: Literal["done", "handed on", "lost"] = "done"
    schema_version: int = 1

    @property
    def core_hours(self) -> float:
        """Cores times wall time (h)."""
        return self.cores * self.seconds / 3600

    @property
    def gpu_hours(self) -> float:
        """GPUs times wall time (h)."""
        return self.gpus * self.seconds / 3600


class Control(Document):
    """An order to a campaign; the one with the highest number is in force.

    Attributes
    ----------
    number
        Counted from 0 within the campaign; the second writer of a number changes nothing.
    order
        ``pause``: nothing new is started. ``resume``: it goes on. ``stop``: it ends as it is.
    given_by
        Who gave it.
    given_at
        When (UTC).
    """

    campaign_id: str
    number: int
    order: Order
    given_by: str = ""
    given_at: datetime
    schema_version: int = 1
