"""What a campaign's job is told instead of data: where in which ledger its work lies."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from monty.json import MSONable

from matloop.documents.campaign import Campaign, CampaignRecord, IterationState
from matloop.documents.phase import Archive
from matloop.errors import LedgerError
from matloop.jobs.rungs import PHASES, rung_of
from matloop.ledger.interface import Ledger
from matloop.ledger.opening import LedgerConfig
from matloop.ledger.past import read_packed
from matloop.protocols import Resources

SEGMENTED = ("archive", "known")
"""Archives that evaluators search, which may consist of several files."""

_OPEN: dict[LedgerConfig, Ledger] = {}


@dataclass(frozen=True)
class Place(MSONable):
    """One stage of one iteration of a campaign.

    Attributes
    ----------
    ledger
        How to open the ledger; never holds a secret.
    campaign_id
        The campaign.
    iteration
        Counted from 0.
    stage
        Stage name; empty for verbs that concern the whole iteration.
    """

    ledger: LedgerConfig
    campaign_id: str
    iteration: int
    stage: str = ""

    def open(self) -> Ledger:
        """Return the ledger, opened once per process; `close_ledgers` closes it again."""
        if self.ledger not in _OPEN:
            _OPEN[self.ledger] = self.ledger.open()
        return _OPEN[self.ledger]

    def record(self) -> CampaignRecord:
        """Return the campaign's record.

        Raises
        ------
        LedgerError
            If the ledger holds no such campaign.
        """
        record = self.open().campaign(self.campaign_id)
        if record is None:
            raise LedgerError(f"the ledger holds no campaign {self.campaign_id!r}")
        return record

    def state(self) -> IterationState:
        """Return the state that started this iteration.

        Raises
        ------
        LedgerError
            If the iteration has not been started.
        """
        for state in self.open().states(self.campaign_id):
            if state.iteration == self.iteration:
                return state
        raise LedgerError(f"iteration {self.iteration} of {self.campaign_id!r} has not started")

    def resources(self) -> Resources:
        """Return the artifacts that evaluators read in this iteration, at this stage.

        What they know as ``phases`` is the hull of the stage's own level of theory.
        """
        return stage_resources(self.open(), self.record().campaign, self.state(), self.stage)


def stage_resources(
    ledger: Ledger, campaign: Campaign, state: IterationState, stage: str
) -> Resources:
    """Return the artifacts that evaluators and selectors of a stage read in an iteration.

    What they know as ``phases`` is the hull of the stage's own level of theory.

    Parameters
    ----------
    ledger
        Where the artifacts are.
    campaign
        As declared.
    state
        The state that started the iteration.
    stage
        Name of the stage; empty for what concerns the whole iteration.
    """
    artifacts = dict(state.resources)
    own = rung_of(campaign, stage).resource
    if own in artifacts:
        artifacts[PHASES] = artifacts[own]
    segments = [
        name
        for resource in SEGMENTED
        if resource in artifacts
        for name in read_packed(ledger, artifacts[resource], Archive).segments
    ]
    return Resources(
        paths={name: ledger.artifact_path(item.sha256) for name, item in artifacts.items()},
        digests={name: item.sha256 for name, item in artifacts.items()},
        segments={name: ledger.artifact_path(name) for name in segments},
    )


def close_ledgers() -> None:
    """Close all ledgers this process has opened for its jobs."""
    while _OPEN:
        _OPEN.popitem()[1].close()


def derived_seed(seed: int, *path: int | str) -> int:
    """Return the seed of one part of a campaign, independent of the seeds of all others."""
    words = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in path]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])
