"""`matloop plugins`: what is installed, where it is from, and which parameters it takes."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, get_args

import typer
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from matloop.cli.terminal import stdout


def list_plugins(
    name: Annotated[
        str | None,
        typer.Argument(help="Show only plugins of this name or kind.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """List installed plugins with their parameters."""
    from matloop.errors import ConfigurationError

    entries = [entry for entry in described() if name in (None, entry["name"], entry["kind"])]
    if not entries:
        raise ConfigurationError(f"no plugin or kind of plugin is called {name!r}")
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    for kind in dict.fromkeys(entry["kind"] for entry in entries):
        stdout().print(f"\n[bold]{kind.upper()}[/]")
        for entry in entries:
            if entry["kind"] == kind:
                _show(entry)


def described() -> list[dict[str, Any]]:
    """Return every registered plugin as `matloop plugins --json` shows it."""
    from matloop import registry

    entries = []
    for kind in get_args(registry.Kind):
        for name, entry in registry.names(kind).items():
            found: dict[str, Any] = {
                "kind": kind,
                "name": name,
                "distribution": entry.dist.name if entry.dist else "",
                "version": entry.dist.version if entry.dist else "",
                "class": entry.value,
            }
            try:
                found["summary"] = registry.summary(kind, name)
                found["parameters"] = [vars(item) for item in registry.parameters(kind, name)]
                produces = getattr(registry.load(kind, name), "produces", None)
                if produces is not None:
                    found["produces"] = dict(produces)
            except Exception as error:  # an outsider's module may raise anything
                found["error"] = f"{type(error).__name__}: {error}"
            entries.append(found)
    return entries


def _show(entry: dict[str, Any]) -> None:
    source = f"{entry['distribution']} {entry['version']}"
    stdout().print(f"  [bold cyan]{entry['name']}[/]  [dim]{escape(source)}[/]")
    if "error" in entry:
        _indented(f"[red]cannot be loaded: {escape(entry['error'])}[/]")
        return
    _indented(_code(entry["summary"]))
    if entry.get("produces"):
        found = ", ".join(
            f"{name} ({unit})" if unit else name for name, unit in entry["produces"].items()
        )
        _indented(f"[dim]finds {escape(found)}[/]")
    if entry["parameters"]:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(style="green", no_wrap=True)
        table.add_column(style="dim", overflow="fold", max_width=26)
        table.add_column()
        for item in entry["parameters"]:
            default = "[red]required[/]" if item["required"] else escape(str(item["default"]))
            table.add_row(item["name"], default, _code(item["doc"]))
        stdout().print(Padding(table, (0, 0, 0, 4)))


def _indented(markup: str) -> None:
    stdout().print(Padding(markup, (0, 0, 0, 4)))


def _code(text: str) -> str:
    """Return documentation with its literals coloured instead of quoted."""
    return re.sub(r"(`{1,2})(.+?)\1", r"[cyan]\2[/]", escape(text))
