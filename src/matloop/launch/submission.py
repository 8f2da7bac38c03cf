"""Campaigns into a LaunchPad: one workflow per iteration, each submitted exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from fireworks import Firework, Workflow
from jobflow import Flow
from jobflow.managers.fireworks import flow_to_workflow
from pymongo.errors import DuplicateKeyError

from matloop import registry
from matloop.documents.campaign import Campaign, CampaignRecord, Stage
from matloop.errors import ConfigurationError, Mistake
from matloop.flows.iteration import IterationMaker, PreparationMaker
from matloop.jobs.attempts import worker_name
from matloop.jobs.place import Place
from matloop.jobs.placement import TAG
from matloop.jobs.rungs import computes_energy
from matloop.jobs.sharding import Sharding
from matloop.launch.recording import recorded
from matloop.launch.site import DEFAULT_KIND, Site
from matloop.launch.tasks import SubmitNext
from matloop.ledger.interface import Ledger
from matloop.ledger.job_store import index_job_store, job_store
from matloop.references.gathering import gather

if TYPE_CHECKING:
    from fireworks import LaunchPad

PREPARATION = -1
"""The number by which the workflow that comes before iteration 0 is known."""

CLAIMS = "matloop_submissions"
"""Collection of the LaunchPad's database that says who submits which workflow."""

STALE = timedelta(seconds=60)
"""Age at which a claim whose workflow has not appeared is given to whoever asks next."""

STARTING_SECONDS = 60
"""Walltime that a worker needs before and after its work: imports, models, recording (s)."""


@dataclass(frozen=True)
class Outcome:
    """What became of a request to submit what comes next.

    Attributes
    ----------
    campaign_id
        The campaign.
    submitted
        Whether a workflow was added.
    iteration
        The iteration at hand; -1 is the preparation.
    reason
        Why nothing was added; empty if something was.
    fw_ids
        Ids of the new fireworks.
    """

    campaign_id: str
    submitted: bool
    iteration: int
    reason: str = ""
    fw_ids: tuple[int, ...] = ()


def submit(site: Site, campaign: Campaign, base: Path | None = None) -> Outcome:
    """Record a campaign in the site's database and add its first workflow to the LaunchPad.

    Submitting the same campaign again changes nothing and says how it stands.

    Parameters
    ----------
    site
        Where it will run.
    campaign
        As declared.
    base
        Folder that relative paths in the campaign start from; by default the current one.

    Raises
    ------
    ConfigurationError
        If a stage asks for a kind of worker the site does not have, or a campaign of this name was
        declared otherwise.
    MissingReferenceError
        If an element of the space has no reference phase; nothing has been written then.
    """
    campaign = campaign.located(base or Path.cwd())
    shardings(site, campaign)
    gather(campaign.references, campaign.space, Path.cwd())
    ledger = site.ledger().open()
    try:
        recorded(ledger, campaign, f"site {site.name}", "", resume=True)
        launchpad = site.launchpad()
        initialise(launchpad)
        index_job_store(job_store(site.ledger()))
        return ensure(site, campaign.name, ledger, launchpad)
    finally:
        ledger.close()


def ensure(site: Site, campaign_id: str, ledger: Ledger, launchpad: LaunchPad) -> Outcome:
    """Add the workflow of what comes next, unless it is there or must wait.

    Whoever calls it and however often, every workflow is added once: who wants to add one claims
    it first, and a claim whose owner died is taken over after a minute.

    Parameters
    ----------
    site
        Where the campaign runs.
    campaign_id
        The campaign.
    ledger, launchpad
        The site's.

    Raises
    ------
    ConfigurationError
        If there is no such campaign.
    """
    record = ledger.campaign(campaign_id)
    if record is None:
        raise ConfigurationError(f"site {site.name} has no campaign {campaign_id!r}")
    states = ledger.states(campaign_id)
    turn = states[-1].iteration if states else PREPARATION

    def waits(reason: str) -> Outcome:
        return Outcome(campaign_id, False, turn, reason)

    if states and states[-1].status == "finished":
        return waits(f"finished: {states[-1].reason}")
    orders = ledger.controls(campaign_id)
    if orders and orders[-1].order != "resume":
        return waits("paused" if orders[-1].order == "pause" else "stopped")
    if _exists(launchpad, campaign_id, turn):
        return waits("running")
    if full := over_budget(ledger, record.campaign, datetime.now(UTC)):
        return waits(full)
    if not _claimed(launchpad, campaign_id, turn):
        return waits("another process is submitting it")
    if _exists(launchpad, campaign_id, turn):  # its first owner lived after all
        return waits("running")
    ids = launchpad.add_wf(workflow(site, record, turn))
    return Outcome(campaign_id, True, turn, "", tuple(sorted(ids.values())))


def workflow(site: Site, record: CampaignRecord, turn: int) -> Workflow:
    """Return the workflow of one iteration, or of the preparation.

    Parameters
    ----------
    site
        Where it will run.
    record
        The campaign.
    turn
        The iteration; -1 for the preparation.
    """
    campaign = record.campaign
    split = shardings(site, campaign)
    place = Place(site.ledger(), record.campaign_id, max(turn, 0))
    if turn == PREPARATION:
        energetic = [stage.name for stage in campaign.stages if computes_energy(stage)]
        kinds = {name: split[name].kind for name in energetic}
        flow: Flow = PreparationMaker(kinds, DEFAULT_KIND).make(place)
    else:
        proposing = site.resolve_kind(proposing_kind(campaign))
        flow = IterationMaker(split, DEFAULT_KIND, proposing).make(place, campaign)
    wf = flow_to_workflow(flow, job_store(site.ledger()))
    (last,) = wf.leaf_fw_ids
    spec: dict[str, Any] = {
        TAG: {
            "campaign": record.campaign_id,
            "iteration": max(turn, 0),
            "stage": "",
            "kind": DEFAULT_KIND,
        },
        "_category": DEFAULT_KIND,
        "_add_launchpad_and_fw_id": True,
    }
    task = SubmitNext(site=str(site.file), campaign=record.campaign_id)
    fireworks = [*wf.fws, Firework(task, spec, name="submit next", fw_id=min(wf.id_fw) - 1)]
    links: Mapping[int, list[int]] = {**wf.links, last: [fireworks[-1].fw_id]}
    tag = {"campaign": record.campaign_id, "iteration": turn}
    return Workflow(fireworks, dict(links), name=flow.name, metadata={TAG: tag})


def shardings(site: Site, campaign: Campaign) -> dict[str, Sharding]:
    """Return how each stage is split on a site, by its name.

    Raises
    ------
    ConfigurationError
        If a stage asks for a kind of worker that the site does not have.
    """
    found = {}
    for number, stage in enumerate(campaign.stages):
        if stage.worker_kind and stage.worker_kind not in site.kinds:
            known = ", ".join(site.kinds)
            message = f"the site {site.name} has no worker kind {stage.worker_kind!r}, but {known}"
            raise ConfigurationError([Mistake(f"stages[{number}].worker_kind", message)])
        name = stage.worker_kind or site.resolve_kind(wanted_kind(stage))
        kind = site.kinds[name]
        processes = max(kind.gpus, 1)
        seconds = max(kind.seconds - STARTING_SECONDS, kind.seconds / 2)
        found[stage.name] = Sharding(
            kind=name,
            control=DEFAULT_KIND,
            seconds=seconds,
            least_seconds=min(300.0, seconds),
            most=kind.max_jobs * processes,
            cores=1 if kind.gpus else kind.cores,
        )
    return found


def wanted_kind(stage: Stage) -> str:
    """Return the kind of worker a stage's plugins ask for."""
    if stage.calculate is not None:
        return "dft"
    return _first_other([registry.load("evaluators", use.use) for use in stage.evaluate])


def proposing_kind(campaign: Campaign) -> str:
    """Return the kind of worker a campaign's generators ask for."""
    return _first_other([registry.load("generators", entry.use) for entry in campaign.generators])


def _first_other(plugins: Iterable[type]) -> str:
    wanted = {getattr(plugin, "worker_kind", DEFAULT_KIND) for plugin in plugins}
    return next((kind for kind in sorted(wanted) if kind != DEFAULT_KIND), DEFAULT_KIND)


def over_budget(ledger: Ledger, campaign: Campaign, now: datetime) -> str:
    """Return which of a campaign's daily and weekly budgets is used up; empty if none is."""
    limits = (
        (campaign.budget.core_hours_per_day, timedelta(days=1), "24 hours"),
        (campaign.budget.core_hours_per_week, timedelta(days=7), "7 days"),
    )
    for most, window, words in limits:
        if most is None:
            continue
        receipts = ledger.receipts(campaign.name, now - window)
        taken = sum(receipt.core_hours for receipt in receipts)
        if taken >= most:
            return f"took {taken:.3g} core-hours in the last {words}, {most:g} are allowed"
    return ""


def initialise(launchpad: LaunchPad) -> None:
    """Make a new database ready for FireWorks; one in use is left as it is.

    `LaunchPad.reset` would do it too, and erase every workflow that is there.
    """
    if launchpad.fw_id_assigner.find_one({}) is not None:
        return
    first = {"_id": "matloop", "next_fw_id": 1, "next_launch_id": 1}
    try:
        launchpad.fw_id_assigner.insert_one(first)
    except DuplicateKeyError:  # another process was first
        return
    launchpad.tuneup(bkground=False)
    launchpad.fireworks.create_index(f"spec.{TAG}.campaign")
    launchpad.workflows.create_index(
        [(f"metadata.{TAG}.campaign", 1), (f"metadata.{TAG}.iteration", 1)]
    )


def _exists(launchpad: LaunchPad, campaign_id: str, turn: int) -> bool:
    wanted = {f"metadata.{TAG}.campaign": campaign_id, f"metadata.{TAG}.iteration": turn}
    return launchpad.workflows.find_one(wanted, {"_id": 1}) is not None


def _claimed(launchpad: LaunchPad, campaign_id: str, turn: int) -> bool:
    claims = launchpad.db[CLAIMS]
    name, owner, now = f"{campaign_id}/{turn}", uuid4().hex, datetime.now(UTC)
    claim = {"owner": owner, "worker": worker_name(), "claimed_at": now}
    try:
        claims.insert_one({"_id": name, **claim})
        return True
    except DuplicateKeyError:
        stale = {"_id": name, "claimed_at": {"$lt": now - STALE}}
        return claims.find_one_and_update(stale, {"$set": claim}) is not None
