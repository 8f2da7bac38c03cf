"""Which ledger and which campaign a command speaks of: a run's folder, or a site's database."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matloop.errors import ConfigurationError

if TYPE_CHECKING:
    from matloop.documents.campaign import CampaignRecord
    from matloop.launch.site import Site
    from matloop.ledger.interface import Ledger

LEDGER = "ledger.sqlite"

_PATIENCE = 10.0  # s; who looks at results does not wait for a database that is away

Directory = Annotated[
    Path | None,
    typer.Option("--dir", "-d", help="Folder of the run; found by itself if there is only one."),
]
SiteFile = Annotated[
    Path | None,
    typer.Option(
        "--site",
        metavar="FILE",
        help="Site whose database holds the campaign; by default MATLOOP_SITE, or yours where no "
        "run is at hand.",
    ),
]
CampaignName = Annotated[
    str | None, typer.Option("--campaign", "-c", help="Which one, if the ledger holds several.")
]


@dataclass(frozen=True)
class Where:
    """A ledger as a command was told of it.

    Attributes
    ----------
    shown
        What it is called.
    options
        Options that name it again.
    directory
        Folder of a run; None at a site.
    site
        The site; None for a run in a folder.
    """

    shown: str
    options: str
    directory: Path | None = None
    site: Site | None = None

    def open(self) -> Ledger:
        """Open the ledger for reading.

        Raises
        ------
        LedgerError
            If it cannot be read.
        """
        if self.site is not None:
            return replace(self.site.ledger(), patience_seconds=_PATIENCE).open()
        from matloop.ledger.opening import read_ledger

        assert self.directory is not None
        return read_ledger(self.directory)

    def results(self, campaign_id: str) -> Path:
        """Return the folder in which results of a campaign are written by default."""
        if self.site is not None:
            return self.site.directory / "reports" / campaign_id
        assert self.directory is not None
        return self.directory


def place(directory: Path | None, site_file: Path | None) -> Where:
    """Return the ledger to read.

    What is given comes first, then the site that ``MATLOOP_SITE`` names, a run at hand, and the
    site of the user's configuration.

    Raises
    ------
    ConfigurationError
        If there is none, or more than one to choose from.
    """
    if directory is not None and site_file is not None:
        raise ConfigurationError("a campaign is in a folder or at a site: give --dir or --site")
    if directory is None and (site_file is not None or os.environ.get("MATLOOP_SITE")):
        return _at_site(site_file)
    if directory is None and not _runs():
        from matloop.launch.site import default_file

        if default_file().exists():
            return _at_site(None)
    folder = run_directory(directory)
    return Where(str(folder), f"--dir {shlex.quote(str(folder))}", directory=folder)


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
    found = _runs()
    if not found:
        raise ConfigurationError(
            "no run found here or in ./runs: say where with --dir, or start one with `matloop run`"
        )
    if len(found) > 1:
        choices = ", ".join(str(path) for path in found)
        raise ConfigurationError(f"several runs are here, choose one with --dir: {choices}")
    return found[0]


@contextmanager
def opened(
    directory: Path | None, name: str | None, site_file: Path | None = None
) -> Iterator[tuple[Ledger, CampaignRecord, Where]]:
    """Open a ledger for reading and choose a campaign in it.

    Raises
    ------
    ConfigurationError
        If there is no such ledger or campaign, or several to choose from.
    LedgerError
        If the ledger cannot be read.
    """
    where = place(directory, site_file)
    ledger = where.open()
    try:
        yield ledger, _chosen(ledger.campaigns(), name, where), where
    finally:
        ledger.close()


def _at_site(site_file: Path | None) -> Where:
    from matloop.launch.site import load_site

    site = load_site(site_file)
    shown = f"site {site.name}, database {site.database.name}"
    return Where(shown, f"--site {shlex.quote(str(site.file))}", site=site)


def _runs() -> list[Path]:
    """Return the folders at hand that hold a run: this one alone, or those below."""
    here = Path()
    if (here / LEDGER).is_file():
        return [here]
    patterns = ("runs/*", "*")
    return sorted({file.parent for item in patterns for file in here.glob(f"{item}/{LEDGER}")})


def _chosen(records: list[CampaignRecord], name: str | None, where: Where) -> CampaignRecord:
    ids = [record.campaign_id for record in records]
    if not records:
        raise ConfigurationError(f"the ledger in {where.shown} holds no campaign yet")
    if name is not None:
        if name not in ids:
            raise ConfigurationError(
                f"{where.shown} holds no campaign {name!r}, but {', '.join(ids)}"
            )
        return records[ids.index(name)]
    if len(records) > 1:
        raise ConfigurationError(
            f"{where.shown} holds several campaigns, choose one with --campaign: {', '.join(ids)}"
        )
    return records[0]
