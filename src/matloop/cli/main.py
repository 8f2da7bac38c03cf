"""`matloop`: its commands, and what a failed one says and returns."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from matloop.cli import (
    campaigns,
    cluster,
    evaluate,
    finetune,
    hull,
    known,
    learning,
    listing,
    plugins,
    replay,
    results,
    running,
    site,
    workers,
)
from matloop.cli.terminal import stderr
from matloop.errors import (
    ConfigurationError,
    MatloopError,
    MissingReferenceError,
    TheoryMismatchError,
)

FAILED, MISTAKEN = 1, 2

app = typer.Typer(
    name="matloop",
    help="Closed-loop inverse design of crystalline materials.",
    epilog="Start with `matloop new --system Ca-Ti-O`, then `matloop run ca-ti-o-search.yaml`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel="Search")(campaigns.new)
app.command(rich_help_panel="Search")(campaigns.validate)
app.command(rich_help_panel="Search")(running.run)
app.command(rich_help_panel="Results")(results.status)
app.command("list", rich_help_panel="Results")(listing.list_campaigns)
app.command(rich_help_panel="Results")(results.report)
app.command(rich_help_panel="Results")(results.show)
app.command(rich_help_panel="Results")(results.export)
app.command(rich_help_panel="Results")(replay.replay)
app.command(rich_help_panel="Energies")(hull.hull)
app.command(rich_help_panel="Energies")(finetune.finetune)
app.command(rich_help_panel="Generators")(learning.train)
app.command(rich_help_panel="Generators")(learning.sample)
app.command(rich_help_panel="Generators")(learning.card)
app.command(rich_help_panel="Generators")(evaluate.evaluate)
app.command(rich_help_panel="Search")(known.known)
app.command("plugins", rich_help_panel="Search")(plugins.list_plugins)
app.command(rich_help_panel="Clusters")(cluster.submit)
app.command(rich_help_panel="Clusters")(cluster.pause)
app.command(rich_help_panel="Clusters")(cluster.resume)
app.command(rich_help_panel="Clusters")(cluster.stop)
app.command(rich_help_panel="Clusters")(cluster.heal)
app.command(rich_help_panel="Clusters")(cluster.tick)
app.add_typer(site.app, name="site", rich_help_panel="Clusters")
app.add_typer(workers.app, rich_help_panel="Clusters")


def main() -> None:
    """Run the command line and leave with its exit code.

    0 is success; 2 a mistake of the user's, named in one line each; 130 an interrupted run; 1
    whatever else went wrong.
    """
    logging.getLogger("moyo").setLevel(
        logging.ERROR
    )  # it warns of every cell that is not primitive
    try:
        app()
    except (ConfigurationError, MissingReferenceError, TheoryMismatchError) as error:
        _say(error)
        sys.exit(MISTAKEN)
    except MatloopError as error:
        _say(error)
        sys.exit(FAILED)
    except BrokenPipeError:  # the reader of a pipe has seen enough, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        _say_unexpected(error)
        sys.exit(FAILED)


def _show_version(asked: bool) -> None:
    if asked:
        from matloop import __version__

        typer.echo(f"matloop {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Closed-loop inverse design of crystalline materials."""


def _say(error: MatloopError) -> None:
    if not isinstance(error, ConfigurationError) or error.file is None:
        stderr().print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        return
    for line in error.lines():  # as compilers write them, so that editors find the place
        place, _, rest = line.partition(": ")
        stderr().print(f"[bold]{escape(place)}:[/] {escape(rest)}", soft_wrap=True)
    if len(error.mistakes) > 1:
        stderr().print(f"[bold red]{len(error.mistakes)} mistakes[/]")


def _say_unexpected(error: Exception) -> None:
    if os.environ.get("MATLOOP_DEBUG") == "1":
        traceback.print_exception(error)
        return
    handle, name = tempfile.mkstemp(prefix="matloop-", suffix=".log")
    with os.fdopen(handle, "w") as log:
        log.write(" ".join(sys.argv) + "\n")
        traceback.print_exception(error, file=log)
    what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    text = f"[bold red]unexpected error:[/] {escape(what)}; the full log is in {Path(name)}"
    stderr().print(text, soft_wrap=True)
