"""Which ledger and which campaign a command speaks of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matloop.errors import ConfigurationError

if TYPE_CHECKING:
    from matloop.documents.campaign import CampaignRecord
    from matloop.ledger.interface import Ledger

LEDGER = "ledger.sqlite"

Directory = Annotated[
    Path | None,
    typer.Option("--dir", "-d", help="Folder of the run; found by itself if there is only one."),
]
CampaignName = Annotated[
    str | None, typer.Option("--campaign", "-c", help="Which one, if the ledger holds several.")
]


def run_directory(given: Path | None) -> Path:
    """Return the folder whose ledger is read: given, the current one, or the only one below.

    Raises
    ------
    ConfigurationError
        If there is no ledger, or more than one to choose from.
    """
    if given is not None:
        if not (given / LEDGER).is_file():
            raise ConfigurationError(f"{given} holds no run: there is no {LEDGER} in it")
        return given
    here = Path()
    if (here / LEDGER).is_file():
        return here
    found = sorted(
        {p.parent for pattern in ("runs/*", "*") for p in here.glob(f"{pattern}/{LEDGER}")}
    )
    if not found:
        raise ConfigurationError(
            "no run found here or in ./runs: say where with --dir, or start one with `matloop run`"
        )
    if len(found) > 1:
        choices = ", ".join(str(path) for path in found)
        raise ConfigurationError(f"several runs are here, choose one with --dir: {choices}")
    return found[0]


@contextmanager
def opened(given: Path | None, name: str | None) -> Iterator[tuple[Ledger, CampaignRecord, Path]]:
    """Open a ledger for reading and choose a campaign in it.

    Raises
    ------
    ConfigurationError
        If there is no such ledger or campaign, or several to choose from.
    LedgerError
        If the ledger cannot be read.
    """
    from matloop.ledger.opening import read_ledger

    directory = run_directory(given)
    ledger = read_ledger(directory)
    try:
        yield ledger, _chosen(ledger.campaigns(), name, directory), directory
    finally:
        ledger.close()


def _chosen(records: list[CampaignRecord], name: str | None, directory: Path) -> CampaignRecord:
    ids = [record.campaign_id for record in records]
    if not records:
        raise ConfigurationError(f"the ledger in {directory} holds no campaign yet")
    if name is not None:
        if name not in ids:
            raise ConfigurationError(
                f"{directory} holds no campaign {name!r}, but {', '.join(ids)}"
            )
        return records[ids.index(name)]
    if len(records) > 1:
        raise ConfigurationError(
            f"{directory} holds several campaigns, choose one with --campaign: {', '.join(ids)}"
        )
    return records[0]
