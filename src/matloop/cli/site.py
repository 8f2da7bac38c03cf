"""`matloop site`: the file that describes a cluster, and whether the cluster is fit."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from matloop.cli.terminal import stderr, stdout
from matloop.errors import ConfigurationError, MatloopError, Mistake

if TYPE_CHECKING:
    from matloop.launch.checks import Examination
    from matloop.launch.doctor import Diagnosis
    from matloop.launch.site_template import Answers, Kind

app = typer.Typer(
    help="Describe the cluster that campaigns run on, and check it.", no_args_is_help=True
)

SiteFile = Annotated[
    Path | None,
    typer.Option(
        "--site",
        "-s",
        metavar="FILE",
        help="Site file; by default MATLOOP_SITE, or ~/.config/matloop/site.yaml.",
    ),
]
_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failure": "[red]✗[/]"}
_FAILED = 1


@app.command()
def init(
    file: Annotated[
        Path | None,
        typer.Option("--file", "-o", help="By default ~/.config/matloop/site.yaml."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the cluster.")] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--directory", "-d", help="Folder that every node sees."),
    ] = None,
    database: Annotated[
        str, typer.Option("--database", help="Name of the database on the server.")
    ] = "matloop",
    uri_file: Annotated[
        Path | None,
        typer.Option(
            "--uri-file",
            help="File that holds the database's URI. Where there is none, it is made from the "
            "variable, readable by you alone.",
        ),
    ] = None,
    uri_variable: Annotated[
        str | None,
        typer.Option(
            "--uri-variable", help="Environment variable that holds it. [MATLOOP_MONGODB_URI]"
        ),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            "-k",
            metavar="NAME:FIELD=VALUE,...",
            help="Kind of worker, such as gpu:queue=gpu,gpus=4,walltime=12:00:00; may be repeated.",
        ),
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option("--setup", help="Shell line that jobs run first; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a site file.")] = False,
) -> None:
    """Write a site file, from flags or by asking, and FireWorks' own files from it."""
    from matloop.launch import site_template as template
    from matloop.launch.site import default_file

    path = file or default_file()
    if path.exists() and not force:
        raise ConfigurationError("is there already; replace it with --force, or edit it", path)
    given = _given_kinds(kinds or [])
    asking = sys.stdin.isatty() and sys.stdout.isatty() and directory is None
    if not asking and directory is None:
        raise ConfigurationError(
            [Mistake("--directory", "missing; name a folder that every node sees")]
        )
    answers = template.Answers(
        name=name or _cluster_name(),
        directory=str(directory.absolute()) if directory else "",
        database=database,
        uri_file=str(uri_file.absolute()) if uri_file else "",
        uri_variable=uri_variable or "",
        kinds=given or template.proposed_kinds(),
        setup=tuple(setup or filter(None, [_environment()])),
    )
    if asking:
        uri = _ask(answers, path, kinds_given=bool(given), name_given=name is not None)
    else:
        uri = os.environ.get(uri_variable or "MATLOOP_MONGODB_URI", "")
    _write(answers, path, uri)


@app.command()
def update(site_file: SiteFile = None) -> None:
    """Write FireWorks' own files again, after the site file has been edited."""
    from matloop.launch.fireworks_files import write_fireworks_files
    from matloop.launch.site import load_site

    site = load_site(site_file)
    written = write_fireworks_files(site)
    text = f"[green]✓[/] {len(written)} files in {escape(str(site.fireworks))} follow the site"
    stdout().print(text, soft_wrap=True)


@app.command()
def doctor(
    site_file: SiteFile = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", "-k", help="Only this kind of worker; may be repeated."),
    ] = None,
    here: Annotated[
        bool,
        typer.Option("--here", help="Look at this machine only; with --kind, as that worker."),
    ] = False,
    wait: Annotated[
        float,
        typer.Option("--wait", min=1, help="Seconds to wait for the workers' jobs."),
    ] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write JSON to a file, whole or not.")
    ] = None,
) -> None:
    """Check database, folder, packages, queues and GPUs, here and on a node of each kind."""
    from matloop.launch.doctor import diagnose, diagnose_here
    from matloop.launch.site import load_site

    site = load_site(site_file)
    for kind in kinds or []:
        site.kind(kind)
    if here and kinds and len(kinds) > 1:
        raise ConfigurationError("--here looks at one kind of worker at a time; give one --kind")
    if here:
        found = diagnose_here(site, kinds[0] if kinds else "")
    else:
        with stderr().status("looking at this machine") as line:
            found = diagnose(
                site,
                kinds or list(site.kinds),
                wait,
                lambda text: line.update(f"waiting for jobs: {escape(text)}"),
            )
    if output is not None:
        _save(found, output)
    if as_json:
        typer.echo(found.as_json())
    elif output is None:
        _show(found)
    if found.failed:
        raise typer.Exit(_FAILED)


def _given_kinds(texts: list[str]) -> dict[str, Kind]:
    from matloop.launch.site_template import read_kind

    found: dict[str, Kind] = {}
    for text in texts:
        try:
            name, kind = read_kind(text)
        except ValueError as error:
            raise ConfigurationError([Mistake("--kind", str(error))]) from None
        if name in found:
            raise ConfigurationError([Mistake("--kind", f"{name!r} is given twice; keep one")])
        found[name] = kind
    return found


def _write(answers: Answers, path: Path, uri: str) -> None:
    """Write the URI's file, FireWorks' files and, last, the site file; all or none is sound."""
    from matloop.atomic import whole_file
    from matloop.launch.fireworks_files import write_fireworks_files
    from matloop.launch.site import parse_site
    from matloop.launch.site_template import site_text

    text = site_text(answers)
    try:
        site = parse_site(text, path)
    except ConfigurationError as error:  # its lines are those of a file that is not there
        raise ConfigurationError(
            [Mistake(item.field, item.message) for item in error.mistakes]
        ) from None
    secret = site.database.uri_file
    made = None
    try:
        if secret and not secret.exists():
            _refuse_no_uri(uri, secret, answers.uri_variable or "MATLOOP_MONGODB_URI")
            made = secret
            with whole_file(secret, 0o600) as partial:
                partial.write_text(uri + "\n")
        site.uri()  # what cannot be had is found before anything is made
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
            write_fireworks_files(site)
    except BaseException as error:
        if made:
            made.unlink(missing_ok=True)
        if isinstance(error, OSError):
            place = error.filename or path
            raise ConfigurationError(f"{place} cannot be written: {error.strerror}") from None
        raise
    console = stdout()
    if made:
        console.print(f"[green]✓[/] wrote {escape(str(made))}, for you alone", soft_wrap=True)
    console.print(f"[green]✓[/] wrote {escape(str(path))}", soft_wrap=True)
    console.print(f"[green]✓[/] wrote FireWorks' files in {escape(str(site.fireworks))}",
                  soft_wrap=True)  # fmt: skip
    from matloop.launch.site import default_file

    flag = "" if path == default_file() else f" --site {shlex.quote(str(path))}"
    console.print(f"  Look it over, then: [bold]matloop site doctor{escape(flag)}[/]",
                  soft_wrap=True)  # fmt: skip


def _refuse_no_uri(uri: str, file: Path, variable: str) -> None:
    if not uri.startswith(("mongodb://", "mongodb+srv://")):
        raise ConfigurationError(
            f"there is no {file}: write the URI of the MongoDB server into it, then `chmod 600` "
            f"it; or set {variable}, and it is made"
        )


def _ask(answers: Answers, path: Path, kinds_given: bool, name_given: bool) -> str:
    """Fill in what only the user knows; return the URI, which is not shown."""
    if not name_given:
        answers.name = typer.prompt("Name of the cluster", default=answers.name)
    home = Path.home() / "matloop"
    asked = typer.prompt("Folder that every node sees", default=str(home))
    answers.directory = str(Path(asked).expanduser().absolute())
    uri = os.environ.get(answers.uri_variable or "MATLOOP_MONGODB_URI", "")
    if not answers.uri_variable and not answers.uri_file:
        answers.uri_file = str(path.absolute().parent / "mongodb_uri")
    if answers.uri_file and not Path(answers.uri_file).exists() and not uri:
        uri = typer.prompt("URI of the MongoDB server (mongodb://...), not shown", hide_input=True)
    if not kinds_given:
        account = typer.prompt("Account that pays (empty for yours)", default="")
        for kind, fields in answers.kinds.items():
            for field in [key for key in ("queue", "cores", "gpus", "walltime") if key in fields]:
                fields[field] = typer.prompt(f"{kind}: {field}", default=fields[field])
            if account:
                fields["account"] = account
    line = typer.prompt(
        "Shell line that jobs run first", default="; ".join(answers.setup), show_default=True
    )
    answers.setup = tuple(filter(None, [line.strip()]))
    return uri.strip()


def _cluster_name() -> str:
    """Return the name of the machine as a site may be called."""
    import re
    import socket

    host = re.sub(r"[^a-z0-9_-]+", "-", socket.gethostname().partition(".")[0].lower())
    return host.strip("-_") or "cluster"


def _environment() -> str:
    from matloop.launch.site_template import active_environment

    return active_environment(Path(sys.prefix), Path(sys.base_prefix))


def _save(found: Diagnosis, output: Path) -> None:
    from matloop.atomic import whole_file

    try:
        with whole_file(output) as partial:
            partial.write_text(found.as_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise MatloopError(f"{output} cannot be written: {error.strerror}") from None


def _show(found: Diagnosis) -> None:
    console = stdout()
    for machine in found.machines:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("", width=1)
        table.add_column("subject", no_wrap=True, style="bold")
        table.add_column("text", overflow="fold")
        for check in machine.checks:
            table.add_row(_MARKS[check.state], escape(check.subject), escape(check.text))
        console.print(f"\n[bold cyan]{escape(_title(machine))}[/]")
        console.print(table)
    states = [check.state for machine in found.machines for check in machine.checks]
    failures, warnings = states.count("failure"), states.count("warning")
    counts = [(failures, "failure"), (warnings, "warning")]
    said = ", ".join(f"{n} {what}{'s' * (n > 1)}" for n, what in counts if n) or "all is well"
    style = "bold red" if failures else "yellow" if warnings else "bold green"
    console.print(f"\n[{style}]{escape(found.site)}: {said}[/]")


def _title(machine: Examination) -> str:
    host = f" on {machine.host}" if machine.host else ""
    return f"worker {machine.kind}{host}" if machine.kind else f"here{host}"
