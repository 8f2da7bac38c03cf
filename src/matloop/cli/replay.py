"""`matloop replay`: what other policies would have found with the same labels and budget."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from matloop.cli.places import Directory, SiteFile, opened
from matloop.cli.terminal import stdout
from matloop.errors import ConfigurationError

if TYPE_CHECKING:
    from matloop.documents.campaign import PluginUse
    from matloop.reports.replay import Replay

_UNITS = {"work": "atoms × force evaluations", "hours": "core- and GPU-hours"}


def replay(
    campaign: Annotated[
        str | None,
        typer.Argument(help="Which one; may be left out if the ledger holds only one."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "-p",
            metavar="NAME[:PARAMETER=VALUE,...]",
            help="Selector to replay, as `matloop plugins` lists them; may be repeated.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Replays per policy.")] = 5,
    stage: Annotated[
        str | None, typer.Option("--stage", help="Stage that chooses; by default the first.")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep", min=1, help="Places per iteration, instead of the campaign's own."),
    ] = None,
    directory: Directory = None,
    site: SiteFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Replay a campaign's choices with other policies, same labels, same budget."""
    from matloop.reports import replay as replaying

    uses = [read_policy(text) for text in policy or []]
    with opened(directory, campaign, site) as (ledger, record, _):
        found = replaying.replay(
            ledger, record.campaign_id, uses, seeds=seeds, stage=stage, keep=keep
        )
    if as_json:
        typer.echo(json.dumps(replay_data(found), indent=2))
        return
    _show(found)


def read_policy(text: str) -> PluginUse:
    """Return a policy as given on the command line, such as ``best:quantity=density``.

    Parameters
    ----------
    text
        Registered name, and parameters after a colon, separated by commas; values are YAML.

    Raises
    ------
    ConfigurationError
        If there is no such policy, or a parameter is wrong.
    """
    import yaml

    from matloop import registry
    from matloop.documents.campaign import PluginUse

    name, _, rest = text.partition(":")
    parameters: dict[str, Any] = {}
    for part in filter(None, (item.strip() for item in rest.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigurationError(
                f"--policy {text}: write parameters as name=value, such as {name}:{key}=1"
            )
        try:
            parameters[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigurationError(f"--policy {text}: {value!r} is no value") from None
    try:
        registry.build("selectors", name, parameters)
    except ConfigurationError as error:
        raise ConfigurationError(f"--policy {text}: {error}") from None
    return PluginUse(use=name, parameters=parameters)


def replay_data(found: Replay) -> dict[str, Any]:
    """Return a replay as `matloop replay --json` writes it: one flat row per policy and share.

    Parameters
    ----------
    found
        The replay.
    """
    head = found.model_dump(exclude={"policies", "measure"})
    rows = [
        {
            "policy": item.policy,
            "own": item.own,
            "area": item.area,
            "area_spread": item.area_spread,
            "choices": item.choices,
            "unlabelled": item.unlabelled,
            "unlabelled_share": item.unlabelled / item.choices if item.choices else None,
            **point.model_dump(),
        }
        for item in found.policies
        for point in item.curve
    ]
    return {**head, "cost_unit": _UNITS[found.measure], "caveats": caveats(found), "rows": rows}


def caveats(found: Replay) -> list[str]:
    """Return what a reader must know before believing the numbers.

    Parameters
    ----------
    found
        The replay.
    """
    said = []
    if found.reproduced < found.decisions:
        said.append(
            f"the campaign's own policy gives {found.decisions - found.reproduced} of "
            f"{found.decisions} decisions differently now: another version, or another machine"
        )
    if found.labelled == found.bought:
        said.append(
            "only what the campaign bought has labels: at the full budget all policies hold the "
            "same, and the smaller shares tell them apart"
        )
    else:
        said.append(
            f"bounded by what was labelled: {found.labelled} of {found.candidates} candidates"
        )
    said.append(
        "candidates, and predictions about them, are those of the recorded run: another policy "
        "would have taught other surrogates and given other parents"
    )
    said.append("discoveries are those on the campaign's final hull, for all policies alike")
    return said


def _half(found: Replay) -> int:
    """Return which point of the curves stands for half of the budget."""
    return len(found.policies[0].curve) // 2


def _show(found: Replay) -> None:
    out = stdout()
    out.print(
        f"[bold]{escape(found.campaign_id)}[/], stage {found.stage}: {found.iterations} "
        f"iterations, {found.candidates} candidates, {found.labelled} of them labelled"
        + (f" ({found.elsewhere} by another purchase)" if found.elsewhere else ""),
        soft_wrap=True,
    )
    out.print(
        f"The campaign bought {found.bought} for {found.cost:.4g} {_UNITS[found.measure]} and "
        f"found {found.discoveries}; {found.reproduced} of {found.decisions} decisions are "
        "reproduced",
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE, header_style="dim", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("policy", overflow="fold")
    for point in found.policies[0].curve:
        table.add_column(f"{100 * point.share:.0f} %", justify="right", no_wrap=True)
    table.add_column("area", justify="right", no_wrap=True)
    table.add_column("per cost", justify="right", no_wrap=True)
    several = found.policies[0].curve[_half(found)].volume is not None
    if several:
        table.add_column("volume", justify="right", no_wrap=True)
    table.add_column("unlabelled", justify="right", no_wrap=True)
    half = _half(found)
    for item in found.policies:
        name = f"{item.policy} [dim](own)[/]" if item.own else escape(item.policy)
        cells = [f"{p.discoveries:.1f}±{p.spread:.1f}" for p in item.curve]
        rate = item.curve[half].per_cost
        chance = next(p for p in found.policies if p.policy == "random").curve[half].per_cost
        times = f"{rate / chance:.2f} ×" if rate is not None and chance else "–"
        share = f"{item.unlabelled}/{item.choices}"
        volume = [f"{100 * (item.curve[half].volume or 0.0):.0f} %"] if several else []
        area = f"{item.area:.2f}±{item.area_spread:.2f}"
        table.add_row(name, *cells, area, times, *volume, share)
    out.print(table)
    middle = 100 * found.policies[0].curve[half].share
    out.print(
        f"[dim]Discoveries at a share of the budget, mean ± standard deviation of {found.seeds} "
        f"seeds; discoveries per cost relative to chance at {middle:.0f} %; choices without a "
        "label when free to choose."
        + (f" Share of the volume dominated at {middle:.0f} %.[/]" if several else "[/]"),
        soft_wrap=True,
    )
    for line in caveats(found):
        out.print(f"[dim]- {line}[/]", soft_wrap=True)
