"""`matloop new` and `matloop validate`: campaign files before they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from matloop.cli.terminal import stdout
from matloop.errors import ConfigurationError

CampaignFile = Annotated[
    Path, typer.Argument(metavar="CAMPAIGN.yaml", help="Campaign file.", show_default=False)
]


def new(
    system: Annotated[
        str, typer.Option("--system", "-s", help="Chemical system.", metavar="A-B-C")
    ] = "Ca-Ti-O",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; by default named after the system."),
    ] = None,
) -> None:
    """Write a commented campaign file that runs."""
    from matloop.campaign_file import template

    text = template(system)
    path = output or Path(f"{system.lower()}-search.yaml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigurationError("is there already; choose another name with -o", path) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"cannot be written: {reason}", path) from None
    stdout().print(f"[green]✓[/] wrote {escape(str(path))}", soft_wrap=True)
    stdout().print(f"  Next: [bold]matloop run {escape(str(path))}[/]", soft_wrap=True)


def validate(campaign_file: CampaignFile) -> None:
    """Check a campaign file and name every mistake in it."""
    from matloop.campaign_file import load

    campaign = load(campaign_file)
    relaxed = next((stage.keep for stage in campaign.stages if stage.keep), None)
    budget = campaign.budget
    stages = " → ".join(stage.name for stage in campaign.stages)
    stdout().print(f"[green]✓[/] {escape(str(campaign_file))} is sound", soft_wrap=True)
    stdout().print(f"  {campaign.name}: {' '.join(campaign.space.allowed)}", soft_wrap=True)
    stdout().print(f"  {stages}", soft_wrap=True)
    kept = f", at most {relaxed} kept of them" if relaxed else ""
    stdout().print(
        f"  {budget.iterations} iterations of {budget.candidates} candidates{kept}", soft_wrap=True
    )
