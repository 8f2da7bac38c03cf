"""`matloop workers`: start, see and stop the workers of a site."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from matloop.cli.terminal import stdout

if TYPE_CHECKING:
    from fireworks import LaunchPad

_PATIENCE = 300.0  # for the database, before a firework that died is left to `matloop heal`

app = typer.Typer(
    name="workers",
    help="Start, see and stop the workers of a site.",
    no_args_is_help=True,
    add_completion=False,
)

SiteFile = Annotated[
    Path | None,
    typer.Option("--site", "-s", help="The site file; else MATLOOP_SITE or your default one."),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", "-k", help="A kind of worker; may be repeated. By default all."),
]


@app.command()
def up(
    site_file: SiteFile = None,
    kinds: Kinds = None,
    most: Annotated[
        int | None,
        typer.Option("--most", min=0, help="Jobs of a kind, where the site allows more."),
    ] = None,
    ahead: Annotated[
        bool,
        typer.Option("--ahead", help="Queue workers also for what waits only for running work."),
    ] = False,
) -> None:
    """Submit workers for the work there is, never more than the site allows."""
    from matloop.launch import workers
    from matloop.launch.site import load_site

    submitted = workers.up(load_site(site_file), kinds or (), most, ahead=ahead)
    for kind, job_ids in submitted.items():
        if job_ids:
            stdout().print(f"{escape(kind)}: submitted {_jobs(job_ids)}")
    if not any(submitted.values()):
        stdout().print("nothing to submit: all work there is has its workers")


@app.command()
def status(site_file: SiteFile = None, kinds: Kinds = None) -> None:
    """Show what each kind of worker has to do, and who does it."""
    from matloop.launch import workers
    from matloop.launch.site import load_site

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kind")
    for title in ("ready", "running", "waiting", "failed", "jobs queued", "jobs running", "of"):
        table.add_column(title, justify="right")
    for row in workers.status(load_site(site_file), kinds or ()):
        numbers = [row.ready, row.running, row.waiting, row.fizzled]
        numbers += [row.queued_jobs, row.running_jobs, row.max_jobs]
        table.add_row(escape(row.kind), *(str(number) for number in numbers))
    stdout().print(table)


@app.command()
def down(
    site_file: SiteFile = None,
    kinds: Kinds = None,
    now: Annotated[
        bool, typer.Option("--now", help="Cancel running workers too; their work is run again.")
    ] = False,
) -> None:
    """Cancel workers that wait in the queue; those that run end when their work does."""
    from matloop.launch import workers
    from matloop.launch.site import load_site

    cancelled = workers.down(load_site(site_file), kinds or (), now=now)
    for kind, job_ids in cancelled.items():
        if job_ids:
            stdout().print(f"{escape(kind)}: cancelled {_jobs(job_ids)}")
    if not any(cancelled.values()):
        stdout().print("nothing to cancel")


@app.command()
def run(
    kind: Annotated[str, typer.Option("--kind", "-k", help="Kind of worker.")],
    site_file: SiteFile = None,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", "-d", help="Where it works; by default here in a batch job."),
    ] = None,
    idle: Annotated[
        float | None,
        typer.Option("--idle", min=0, help="Seconds without work after which it ends."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", min=0, help="Seconds of walltime below which it begins nothing."),
    ] = None,
) -> None:
    """Work in this process until there is nothing to do; batch jobs run this."""
    from matloop.launch.fireworks_files import log_directory
    from matloop.launch.recovery import lost_at
    from matloop.launch.rocket import log_to_stderr
    from matloop.launch.site import find_site, load_site
    from matloop.launch.worker import Orders, Worker, usual_margin, worker_name

    log_to_stderr("worker")
    path = find_site(site_file).absolute()
    site = load_site(path)
    wanted, name = site.kind(kind), worker_name(kind)
    if directory is None and "SLURM_JOB_ID" in os.environ:
        directory = Path.cwd()
    orders = Orders(
        site=path,
        kind=kind,
        directory=(directory or log_directory(site, kind) / name.partition("@")[2]).absolute(),
        gpus=wanted.gpus,
        cores=wanted.cores,
        idle_seconds=wanted.idle_seconds if idle is None else idle,
        margin=usual_margin(wanted.seconds) if margin is None else margin,
    )

    def launchpad() -> LaunchPad:  # not at the start: this process is to stay small
        from matloop.launch.patience import PatientLaunchPad

        return PatientLaunchPad(site.launchpad_settings(), patience=_PATIENCE)

    sys.exit(Worker(orders, launchpad, lost_at(site), name).run())


def _jobs(job_ids: list[str]) -> str:
    return f"{len(job_ids)} job{'s' if len(job_ids) > 1 else ''} ({', '.join(job_ids)})"
