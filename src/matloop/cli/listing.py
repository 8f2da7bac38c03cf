"""`matloop list`: the campaigns of a ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from matloop.cli.places import Directory, SiteFile, place
from matloop.cli.standing import standing
from matloop.cli.terminal import stdout

if TYPE_CHECKING:
    from matloop.documents.campaign import IterationState


def list_campaigns(
    directory: Directory = None,
    site: SiteFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """List the campaigns of a run's folder or of a site, oldest first."""
    where = place(directory, site)
    ledger = where.open()
    try:
        rows = [
            (record, ledger.states(record.campaign_id), standing(ledger, record, where))
            for record in ledger.campaigns()
        ]
    finally:
        ledger.close()
    if as_json:
        found = [
            {
                "campaign": record.campaign_id,
                "space": list(record.campaign.space.allowed),
                "created_at": record.created_at.isoformat(),
                "iterations": _ended(states),
                "budget": record.campaign.budget.iterations,
                **stands.data(),
            }
            for record, states, stands in rows
        ]
        typer.echo(json.dumps(found, indent=2))
        return
    if not rows:
        stdout().print(f"{escape(where.shown)} holds no campaign yet", soft_wrap=True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("campaign", no_wrap=True)
    table.add_column("space")
    table.add_column("iterations", justify="right")
    table.add_column("status", no_wrap=True)
    table.add_column("since (UTC)", no_wrap=True)
    for record, states, stands in rows:
        table.add_row(
            f"[bold]{escape(record.campaign_id)}[/]",
            " ".join(record.campaign.space.allowed),
            f"{_ended(states)} of {record.campaign.budget.iterations}",
            stands.status,
            f"{record.created_at:%Y-%m-%d %H:%M}",
        )
    stdout().print(table)


def _ended(states: list[IterationState]) -> int:
    return sum(state.iteration > 0 for state in states)
