"""Run a campaign in this process, with the embedded ledger; dying at any instant is safe."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore

from matloop.documents.campaign import Campaign, IterationState
from matloop.errors import ConfigurationError, Mistake
from matloop.flows.iteration import IterationMaker, PreparationMaker
from matloop.jobs.calculate import stage_engine
from matloop.jobs.place import Place, close_ledgers
from matloop.launch.control import in_force
from matloop.launch.recording import recorded
from matloop.ledger.interface import Ledger
from matloop.ledger.opening import FILE_NAME, LedgerConfig, open_ledger
from matloop.references.gathering import gather


def run(
    campaign: Campaign, directory: Path, *, resume: bool = False, base: Path | None = None
) -> IterationState:
    """Run a campaign to its end, or to the end of the iteration in which it is paused.

    Everything is recorded in the ledger as soon as it is known. A run that died is continued by
    the same call with `resume`, and ends as if it had not died.

    Parameters
    ----------
    campaign
        The campaign as declared.
    directory
        Folder of the ledger; made if it does not exist.
    resume
        Continue a campaign of this name.
    base
        Folder that relative paths in the campaign start from; by default the current one.

    Returns
    -------
    IterationState
        Its last state, which is still ``running`` if the campaign is paused.

    Raises
    ------
    ConfigurationError
        If a campaign of this name is there and `resume` is not given, or was declared otherwise;
        or if this machine lacks what an engine needs.
    MissingReferenceError
        If an element of the space has no reference phase; nothing has been written then.
    LedgerError
        If the ledger is damaged, in use by another process, or the disk is full.
    """
    campaign = campaign.located(base or Path.cwd())
    fresh = not (directory / FILE_NAME).exists()
    if fresh:
        _refuse_unable(campaign)
        _refuse_unspanned(campaign)  # before there is a ledger
    ledger = open_ledger(directory, create=True)
    try:
        if not fresh and not _finished(ledger, campaign.name):
            _refuse_unable(campaign)
            if ledger.campaign(campaign.name) is None:
                _refuse_unspanned(campaign)
        with ledger.lock(campaign.name):
            continuation = "continue it with --resume, or choose another --dir"
            record = recorded(ledger, campaign, str(directory), continuation, resume=resume)
            config = LedgerConfig(kind="embedded", directory=str(directory.resolve()))
            place = Place(config, record.campaign_id, 0)
            if not ledger.states(record.campaign_id):
                _run(PreparationMaker().make(place), directory)
            while (state := ledger.states(record.campaign_id)[-1]).status == "running":
                if in_force(ledger, record.campaign_id) == "pause":
                    return state
                place = Place(config, record.campaign_id, state.iteration)
                _run(IterationMaker().make(place, record.campaign), directory)
            return state
    finally:
        close_ledgers()
        ledger.close()


def _finished(ledger: Ledger, campaign_id: str) -> bool:
    known = ledger.campaign(campaign_id) is not None
    states = ledger.states(campaign_id) if known else []
    return bool(states) and states[-1].status == "finished"


def _refuse_unable(campaign: Campaign) -> None:
    # What this machine lacks is no fault of the crystals, so no calculation is begun.
    mistakes = [
        Mistake(f"stages[{number}].calculate", problem)
        for number, stage in enumerate(campaign.stages)
        if (engine := stage_engine(stage)) is not None
        for problem in engine.problems()
    ]
    if mistakes:
        raise ConfigurationError(mistakes)


def _refuse_unspanned(campaign: Campaign) -> None:
    # A campaign once recorded cannot be changed, so what the user must mend is found before.
    gather(campaign.references, campaign.space, Path.cwd())


def _run(flow: Flow, directory: Path) -> None:
    logging.getLogger("jobflow").setLevel(logging.WARNING)
    logging.getLogger("moyo").setLevel(
        logging.ERROR
    )  # it warns of every cell that is not primitive
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    with warnings.catch_warnings():
        # jobflow 0.4 enters job folders with monty's cd, which warns of its own retirement
        warnings.filterwarnings("ignore", message="cd is deprecated", category=FutureWarning)
        run_locally(flow, log=False, store=store, root_dir=directory, raise_immediately=True)
