"""`matloop status`, `report`, `show` and `export`: what a campaign has found."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from matloop.cli.places import CampaignName, Directory, SiteFile, Where, opened
from matloop.cli.standing import Standing, standing
from matloop.cli.terminal import OUTCOME_STYLES, duration, stdout
from matloop.errors import ConfigurationError, MatloopError

if TYPE_CHECKING:
    from matloop.reports.contents import CampaignSummary, Finding, FunnelRow
    from matloop.reports.front import Front

_SHOWN = 8


def status(
    directory: Directory = None,
    site: SiteFile = None,
    campaign: CampaignName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Show where a run stands, per iteration and stage."""
    from matloop.reports.summary import summarize

    with opened(directory, campaign, site) as (ledger, record, where):
        stands = standing(ledger, record, where, jobs=True)
        if not ledger.states(record.campaign_id):
            _not_started(record.campaign_id, stands, as_json)
            return
        summary = summarize(ledger, record.campaign_id)
    if as_json:
        typer.echo(json.dumps(status_data(summary, stands), indent=2))
        return
    stdout().print(_headline(summary, where, stands))
    stdout().print(_funnel(summary))
    if summary.accounts:
        stdout().print(_accounts(summary))


def conclude(directory: Path, campaign_id: str) -> None:
    """Show what a finished run has found."""
    from matloop.reports.summary import summarize

    with opened(directory, campaign_id) as (ledger, record, where):
        stands = standing(ledger, record, where)
        summary = summarize(ledger, campaign_id)
    stdout().print()
    stdout().print(_headline(summary, where, stands))
    stdout().print(f"Report:  [bold]matloop report {escape(where.options)}[/]", soft_wrap=True)


def report(
    directory: Directory = None,
    site: SiteFile = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="By default report.html beside the ledger."),
    ] = None,
    campaign: CampaignName = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline", help="Folder of a run to compare with, such as one without feedback."
        ),
    ] = None,
) -> None:
    """Write the report: one HTML file that opens without a network."""
    from matloop.reports.html import write_report
    from matloop.reports.summary import summarize

    other = None
    if baseline is not None:
        with opened(baseline, None) as (ledger, record, _):
            other = summarize(ledger, record.campaign_id)
    with opened(directory, campaign, site) as (ledger, record, where):
        path = output or where.results(record.campaign_id) / "report.html"
        if path.is_dir():
            raise ConfigurationError(f"{path} is a folder; name a file with -o")
        with _writing(path):
            write_report(ledger, record.campaign_id, path, baseline=other)
    stdout().print(f"[green]✓[/] wrote {escape(str(path))}", soft_wrap=True)


def export(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File, or folder for CIF.", show_default=False)
    ],
    form: Annotated[
        Literal["cif", "extxyz", "json", "csv", "parquet"],
        typer.Option("--format", "-f", help="CIF writes one file per candidate, or a .zip."),
    ],
    select: Annotated[
        Literal["all", "passed", "novel", "stable", "discoveries", "front"],
        typer.Option("--select", "-s", help="Which candidates."),
    ] = "all",
    directory: Directory = None,
    site: SiteFile = None,
    campaign: CampaignName = None,
) -> None:
    """Write candidates for other programs, whole or not at all."""
    from matloop.reports import exporting

    with opened(directory, campaign, site) as (ledger, record, _):
        chosen = exporting.select(ledger, record.campaign_id, select)
    with _writing(output):
        written = exporting.export(chosen, form, output)
    text = f"[green]✓[/] wrote {written} candidates to {escape(str(output))}"
    stdout().print(text, soft_wrap=True)
    if written < len(chosen):
        text = f"  left out {len(chosen) - written} that are no crystals; JSON and CSV hold them"
        stdout().print(text, soft_wrap=True)


def show(
    candidate_id: Annotated[
        str, typer.Argument(metavar="CANDIDATE_ID", help="Id, or the start of it.")
    ],
    directory: Directory = None,
    site: SiteFile = None,
    campaign: CampaignName = None,
) -> None:
    """Tell the whole story of a candidate: origin, verdicts, energies, decisions."""
    from matloop.cli.story import story
    from matloop.reports.history import read_history

    with opened(directory, campaign, site) as (ledger, record, _):
        history = read_history(ledger, record.campaign_id)
    stdout().print(story(history, candidate_id))


def status_data(summary: CampaignSummary, stands: Standing) -> dict[str, Any]:
    """Return a campaign's state as `matloop status --json` writes it.

    In every stage ``entered`` is the sum of ``passed``, ``rejected``, ``failed`` and ``held``;
    candidates the stage has not decided yet are ``pending``.
    """
    last = summary.record.campaign.stages[-1].name
    found = [finding.iteration for finding in summary.discoveries]
    turns: dict[int, list[dict[str, Any]]] = {}
    for turn, row in _rows(summary):
        turns.setdefault(turn, []).append(
            {
                "stage": row.stage,
                "entered": row.entered - row.pending,
                "passed": row.passed,
                "rejected": row.rejected,
                "failed": row.failed,
                "held": row.held,
                "pending": row.pending,
                "cost": {"seconds": row.spent.seconds, "work": row.spent.work},
                "discoveries": found.count(turn) if row.stage == last else 0,
            }
        )
    front = summary.front
    return {
        "campaign": summary.record.campaign_id,
        **stands.data(),
        "reason": summary.reason,
        "budget": summary.record.campaign.budget.model_dump(),
        "accounts": [
            {
                "stage": account.stage,
                "calculations": account.calculations,
                "running": account.running,
                **{
                    name: {**balance.model_dump(), "left": balance.left}
                    for name, balance in (
                        ("core_hours", account.core_hours),
                        ("gpu_hours", account.gpu_hours),
                    )
                },
            }
            for account in summary.accounts
        ],
        "updated_at": summary.updated_at.isoformat(),
        "discoveries": len(found),
        "alarms": [alarm.model_dump() for alarm in summary.alarms],
        "rediscovered": [item.formula for item in summary.rediscoveries if item.discovery],
        **({} if front is None else {"front": front.model_dump(exclude={"others"})}),
        "cost": {
            "seconds": summary.spent.seconds,
            "work": summary.spent.work,
            "relaxations": summary.spent.relaxations,
        },
        "iterations": [
            {
                "iteration": turn,
                "discoveries": found.count(turn),
                **({} if front is None else {"hypervolume": front.volumes[turn]}),
                "diversity": [
                    row.model_dump(exclude={"iteration"})
                    for row in summary.diversity
                    if row.iteration == turn
                ],
                "cost": {
                    name: sum(stage["cost"][name] for stage in stages)
                    for name in ("seconds", "work")
                },
                "stages": stages,
            }
            for turn, stages in turns.items()
        ],
    }


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in one line why a file cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise MatloopError(f"{path} cannot be written: {error.strerror}") from None
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"{path} cannot be written: {reason}; name another") from None


def _rows(summary: CampaignSummary) -> list[tuple[int, FunnelRow]]:
    return [(row.iteration, row) for row in summary.funnel if row.iteration is not None]


def _not_started(name: str, stands: Standing, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"campaign": name, **stands.data(), "iterations": []}))
        return
    stdout().print(f"[bold]{name}[/] has not come beyond its reference phases yet")
    for line in stands.lines():
        stdout().print(f"  {escape(line)}", soft_wrap=True)


def _headline(summary: CampaignSummary, where: Where, stands: Standing) -> Panel:
    """Return the panel that says what was found, at what cost, and where."""
    from matloop.reports import wording

    budget = summary.record.campaign.budget
    spent = summary.spent
    done = f"{summary.iterations} of {budget.iterations} iterations"
    lines: list[Any] = [
        f"{_count(len(summary.discoveries))} in {done}, {spent.relaxations} relaxations, "
        f"{duration(spent.seconds)} of evaluation"
    ]
    if summary.reason:
        lines.append(f"[dim]finished: {escape(summary.reason)}[/]")
    lines += [f"[yellow]{escape(line)}[/]" for line in stands.lines()]
    lines += [f"[yellow]{escape(line)}[/]" for line in wording.alarms(summary)]
    again = [item for item in summary.rediscoveries if item.discovery]
    if summary.rediscoveries:
        names = ", ".join(f"[bold]{escape(item.formula)}[/] {item.space_group}" for item in again)
        lines.append(
            f"rediscovered {len(again)} of {len(summary.rediscoveries)} withheld phases"
            + (f": {names}" if names else "")
        )
    if summary.front is not None:
        lines += [escape(wording.front(summary)), "", _front(summary.front)]
    elif summary.findings:
        lines += ["", _findings(summary)]
    lines += ["", f"[dim]ledger[/] {escape(where.shown)}"]
    return Panel(
        Group(*lines),
        title=f"[bold]{escape(summary.record.campaign_id)}[/] · {stands.status}",
        title_align="left",
        border_style="green" if summary.discoveries else "dim",
        box=box.ROUNDED,
        padding=(1, 2),
        width=min(100, stdout().width),
    )


def _front(front: Front) -> Table:
    """Return the Pareto front as a table."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("", width=1)
    table.add_column("formula", no_wrap=True)
    table.add_column("group", no_wrap=True)
    for goal in front.goals:
        table.add_column(f"{goal.text}\n{goal.unit}", justify="right")
    table.add_column("id", no_wrap=True, style="dim")
    for point in front.points[:_SHOWN]:
        formula = escape(point.formula)
        table.add_row(
            "[yellow]★[/]" if point.discovery else "",
            f"[bold]{formula}[/]" if point.discovery else formula,
            escape(point.space_group),
            *(f"{value:.4g}" for value in point.values),
            point.candidate_id,
        )
    if len(front.points) > _SHOWN:
        table.add_row("", f"[dim]and {len(front.points) - _SHOWN} more[/]")
    return table


def _findings(summary: CampaignSummary) -> Table:
    ranked = sorted(
        summary.findings,
        key=lambda item: (
            not item.discovery,
            -(item.utility if item.utility is not None else -1e9),
        ),
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("", width=1)
    table.add_column("formula", no_wrap=True)
    table.add_column("group", no_wrap=True)
    table.add_column("above hull\nmeV/atom", justify="right")
    if summary.fidelity is not None:
        table.add_column(f"by\n{summary.fidelity.lower.code}", justify="right")
    named = sorted(summary.record.campaign.objective.names - {"e_above_hull"})
    units = {
        name: next((f.quantities[name].unit for f in ranked if name in f.quantities), "")
        for name in named
    }
    for name in named:
        table.add_column(f"{name}\n{units[name]}", justify="right")
    table.add_column("by", no_wrap=True, overflow="ellipsis")
    table.add_column("id", no_wrap=True, style="dim")
    for item in ranked[:_SHOWN]:
        table.add_row(*_finding(item, named, lower=summary.fidelity is not None))
    if len(ranked) > _SHOWN:
        table.add_row("", f"[dim]and {len(ranked) - _SHOWN} more[/]")
    return table


def _finding(item: Finding, named: list[str], *, lower: bool) -> list[str]:
    distances = [item.e_above_hull_final] + ([item.e_above_hull_lower] if lower else [])
    shown = ["" if distance is None else str(round(1000 * distance)) for distance in distances]
    values = [f"{item.quantities[n].value:.4g}" if n in item.quantities else "" for n in named]
    mark = "[yellow]★[/]" if item.discovery else ""
    formula = f"[bold]{escape(item.formula)}[/]" if item.discovery else escape(item.formula)
    return [
        mark, formula, escape(item.space_group), *shown, *values, escape(item.generator),
        item.candidate_id,
    ]  # fmt: skip


def _funnel(summary: CampaignSummary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="dim")
    table.add_column("")
    table.add_column("stage", no_wrap=True)
    table.add_column("entered", justify="right", no_wrap=True)
    for outcome, style in OUTCOME_STYLES.items():
        table.add_column(outcome, justify="right", style=style, no_wrap=True)
    pending = any(row.pending for row in summary.funnel)
    if pending:
        table.add_column("to do", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    found = [finding.iteration for finding in summary.discoveries]
    before = None
    for turn, row in _rows(summary):
        title = ""
        if turn != before:
            if before is not None:
                table.add_section()
            stars = found.count(turn)
            title = f"[bold]{turn + 1}[/]" + (f" [yellow]★{stars}[/]" if stars else "")
        before = turn
        counts = [str(getattr(row, outcome) or "·") for outcome in OUTCOME_STYLES]
        if pending:
            counts.append(str(row.pending or "·"))
        cost = duration(row.spent.seconds) if row.spent.seconds else ""
        table.add_row(title, row.stage, str(row.entered), *counts, cost)
    return table


def _accounts(summary: CampaignSummary) -> Table:
    """Return what is spent, reserved and left, per stage and for the whole campaign."""
    from matloop.reports.wording import hours

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="dim")
    table.add_column("hours", no_wrap=True)
    for name in ("spent", "reserved", "left", "of"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("calculations", justify="right", no_wrap=True)
    for account in summary.accounts:
        owner = account.stage or "campaign"
        for unit, balance in (("core", account.core_hours), ("GPU", account.gpu_hours)):
            if unit == "GPU" and not balance.spent and balance.limit is None:
                continue
            done = str(account.calculations or "") if unit == "core" else ""
            if account.running and unit == "core":
                done += f" + {account.running}"
            table.add_row(
                f"{owner} [dim]{unit}[/]",
                hours(balance.spent),
                hours(balance.reserved) if balance.reserved else "·",
                "" if balance.left is None else hours(balance.left),
                "" if balance.limit is None else hours(balance.limit),
                done,
            )
    return table


def _count(discoveries: int) -> str:
    if not discoveries:
        return "no discoveries yet"
    return f"[bold green]{discoveries} discover{'y' if discoveries == 1 else 'ies'}[/]"
