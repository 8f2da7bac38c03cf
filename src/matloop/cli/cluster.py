"""`matloop submit`, `pause`, `resume`, `stop`, `heal` and `tick`: campaigns on a cluster."""

from __future__ import annotations

import getpass
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from matloop.cli.campaigns import CampaignFile
from matloop.cli.places import Directory, Where, place
from matloop.cli.terminal import stdout
from matloop.errors import ConfigurationError, LedgerError

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from matloop.documents.operation import Order
    from matloop.launch.recovery import Healed
    from matloop.launch.site import Site
    from matloop.ledger.interface import Ledger

SiteFile = Annotated[
    Path | None,
    typer.Option(
        "--site",
        "-s",
        metavar="FILE",
        help="Site file; by default MATLOOP_SITE, or ~/.config/matloop/site.yaml.",
    ),
]
CampaignId = Annotated[str, typer.Argument(metavar="NAME", help="Name of the campaign.")]

_MARKS = {"stalled": "[red]✗[/]", "given up": "[red]✗[/]", "busy": "[yellow]![/]"}


def submit(campaign_file: CampaignFile, site_file: SiteFile = None) -> None:
    """Hand a campaign over to a cluster; the same file again shows how it stands."""
    from matloop.campaign_file import load
    from matloop.launch import submission
    from matloop.launch.site import load_site

    campaign = load(campaign_file)
    site = load_site(site_file)
    with _plainly():
        outcome = submission.submit(site, campaign, campaign_file.resolve().parent)
    out, name, option = stdout(), campaign.name, _option(site)
    if not outcome.submitted:
        text = f"[yellow]![/] {escape(name)} is at {escape(site.name)} already: "
        out.print(text + escape(outcome.reason), soft_wrap=True)
    else:
        turn = "the preparation" if outcome.iteration < 0 else f"iteration {outcome.iteration}"
        ids = ", ".join(map(str, outcome.fw_ids))
        text = f"[green]✓[/] submitted {escape(name)} to {escape(site.name)}: {turn}, jobs {ids}"
        out.print(text, soft_wrap=True)
        workers = f"matloop tick --workers --all {option}"
        out.print(f"Workers: [bold]matloop workers up {escape(option)}[/]", soft_wrap=True)
        out.print(f"Every minute, from cron: [bold]{escape(workers)}[/]", soft_wrap=True)
    status = f"matloop status --campaign {name} {option}"
    out.print(f"Status:  [bold]{escape(status)}[/]", soft_wrap=True)


def pause(name: CampaignId, directory: Directory = None, site_file: SiteFile = None) -> None:
    """Start nothing new in a campaign; what runs goes on to its end."""
    where = place(directory, site_file)
    changed = _order(where, name, "pause")
    said = "it stops after its iteration" if where.site is None else f"{changed} jobs wait"
    stdout().print(f"[green]✓[/] {escape(name)} is paused: {said}", soft_wrap=True)
    again = f"matloop resume {name} {where.options}"
    stdout().print(f"Go on with: [bold]{escape(again)}[/]", soft_wrap=True)


def resume(name: CampaignId, directory: Directory = None, site_file: SiteFile = None) -> None:
    """Go on with a campaign that was paused, or that has stalled."""
    where = place(directory, site_file)
    if where.site is not None and (forgiven := _forgive(where.site, name)):
        text = f"[green]✓[/] {escape(name)} goes on: {forgiven} failed jobs run again"
        stdout().print(text, soft_wrap=True)
        return
    changed = _order(where, name, "resume")
    if where.site is None:
        text = "it goes on with `matloop run CAMPAIGN.yaml --resume`"
    else:
        text = f"{changed} jobs go on"
    stdout().print(f"[green]✓[/] {escape(name)} is resumed: {text}", soft_wrap=True)


def stop(name: CampaignId, directory: Directory = None, site_file: SiteFile = None) -> None:
    """End a campaign as it is; what it has found stays."""
    where = place(directory, site_file)
    changed = _order(where, name, "stop")
    said = "it ends after its iteration" if where.site is None else f"{changed} jobs were dropped"
    stdout().print(f"[green]✓[/] {escape(name)} is stopped: {said}", soft_wrap=True)


def heal(site_file: SiteFile = None) -> None:
    """Find what died in the campaigns of a site, and run it again."""
    from matloop.launch import recovery

    with _at_work(site_file) as (site, launchpad, ledger):
        healed = recovery.heal(site, launchpad, ledger)
    _show(healed)
    if not healed.findings:
        stdout().print("nothing is broken" if not healed.blind else "nothing else was found")
    if healed.count("stalled"):
        raise typer.Exit(1)


def tick(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Campaigns to go on with.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All campaigns.")] = False,
    site_file: SiteFile = None,
    with_workers: Annotated[
        bool, typer.Option("--workers", "-w", help="Submit workers for the work there is.")
    ] = False,
) -> None:
    """Take one step of campaigns: count, mend, go on, share; for cron."""
    from matloop.launch.tick import tick as step

    if bool(names) == everything:
        raise ConfigurationError("name the campaigns to go on with, or give --all")
    with _at_work(site_file) as (site, launchpad, ledger):
        done = step(site, launchpad, ledger, names, top_up=with_workers)
    if done.busy:
        stdout().print("another tick is at work; nothing was done")
        return
    _show(done.healed)
    for note in done.notes:
        stdout().print(f"[yellow]![/] {escape(note)}", soft_wrap=True)
    for line in done.lines:
        stdout().print(escape(line), soft_wrap=True)
    for kind, jobs in (done.workers or {}).items():
        if jobs:
            stdout().print(f"workers of kind {escape(kind)}: submitted {', '.join(jobs)}")
    if not done.lines:
        stdout().print(f"{escape(site.name)} has no campaign yet")


def _show(healed: Healed) -> None:
    if healed.blind:
        stdout().print(f"[yellow]![/] {escape(healed.blind)}", soft_wrap=True)
    for item in healed.findings:
        mark = _MARKS.get(item.what, "[green]✓[/]")
        subject = " ".join(filter(None, [item.campaign_id, item.name]))
        text = f"{subject}: {item.what}: {item.reason}" if subject else item.reason
        stdout().print(f"{mark} {escape(text)}", soft_wrap=True)


def _order(where: Where, name: str, order: Order) -> int:
    """Give an order and carry it out; return how many jobs it changed."""
    from matloop.launch import control

    user = getpass.getuser()
    if where.site is None:
        from matloop.ledger.opening import open_ledger

        assert where.directory is not None
        embedded = open_ledger(where.directory)
        try:
            control.give(embedded, name, order, user, where.shown)
        finally:
            embedded.close()
        return 0
    with _at_work(where.site.file) as (_, launchpad, ledger):
        control.give(ledger, name, order, user, where.shown)
        return control.enforce(launchpad, ledger, name)


def _forgive(site: Site, name: str) -> int:
    from matloop.launch import control, recovery

    with _at_work(site.file) as (_, launchpad, ledger):
        if control.in_force(ledger, name) != "resume":
            return 0
        return recovery.forgive(launchpad, name)


@contextmanager
def _at_work(site_file: Path | None) -> Iterator[tuple[Site, LaunchPad, Ledger]]:
    """Open what a site has; its database being away is one clear line."""
    from matloop.jobs.place import close_ledgers
    from matloop.launch.site import load_site
    from matloop.launch.submission import initialise

    logging.getLogger("launchpad").setLevel(logging.ERROR)
    site = load_site(site_file)
    ledger = site.ledger().open()
    try:
        with _plainly():
            launchpad = site.launchpad()
            initialise(launchpad)
            yield site, launchpad, ledger
    finally:
        close_ledgers()
        ledger.close()


@contextmanager
def _plainly() -> Iterator[None]:
    from pymongo.errors import ConnectionFailure

    try:
        yield
    except ConnectionFailure as error:  # its text may hold parts of the URI
        name = type(error).__name__
        raise LedgerError(f"the site's database does not answer ({name})") from None


def _option(site: Site) -> str:
    from matloop.launch.site import default_file

    return "" if site.file == default_file() else f"--site {shlex.quote(str(site.file))}"
