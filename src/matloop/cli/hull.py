"""`matloop hull`: decomposition energies and distances to the hull for anybody's table."""

from __future__ import annotations

import csv
import io
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from matloop.cli.terminal import stderr, stdout
from matloop.errors import ConfigurationError

if TYPE_CHECKING:
    from matloop.structures.decomposition import Decomposition
    from matloop.structures.entries import Comparable

SCHEMA = 1
"""Version of the JSON output; keys are added, never changed, within one version."""

_SHOWN = 40
_NAMED = 5


def hull(
    entries: Annotated[
        Path,
        typer.Option(
            "--entries",
            "-e",
            help="Known phases: CSV with formula and formation_energy_per_atom, or ComputedEntry "
            "JSON; .gz as well.",
            show_default=False,
        ),
    ],
    candidates: Annotated[
        Path | None,
        typer.Option("--candidates", "-c", help="Phases to place on the hull of the entries."),
    ] = None,
    mixing: Annotated[
        str | None,
        typer.Option(
            "--mixing", help="Published scheme for mixed theories: mp2020 or mp-gga-r2scan."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write all results to a .json or .csv file."),
    ] = None,
) -> None:
    """Compute decomposition energies and distances to the hull.

    All energies must be of one level of theory, or be put on one scale by a scheme named with
    --mixing.
    """
    if output is not None and output.suffix not in (".json", ".csv"):
        raise ConfigurationError(f"{output}: results are written as .json or .csv")
    from matloop.structures.decomposition import Competitors
    from matloop.structures.entries import comparable
    from matloop.structures.entry_files import read_entries

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")  # of noble gases
        known = read_entries(entries)
        tried = read_entries(candidates) if candidates else None
        energies = comparable(known, tried, mixing)
        competitors = Competitors(energies.entries, elements_are_zero=known.formation)
        judged = [
            *(("entry", one) for one in competitors.judge(energies.entries)),
            *(("candidate", one) for one in competitors.judge(energies.candidates)),
        ]
    data = hull_data(energies, judged)
    if output is not None:
        _write(output, data)
    if as_json:
        typer.echo(json.dumps(data, indent=2))
        return
    _show(energies, judged)
    if output is not None:
        stdout().print(f"[green]✓[/] wrote {escape(str(output))}", soft_wrap=True)


def hull_data(energies: Comparable, judged: list[tuple[str, Decomposition]]) -> dict[str, Any]:
    """Return results as `matloop hull --json` writes them.

    ``phases`` holds one flat record per entry and then per candidate, in the order of the files:
    ``role``, ``id``, ``formula``, ``energy_per_atom`` (corrections included),
    ``formation_energy_per_atom``, ``decomposition_energy`` (null for elements), ``e_above_hull``
    (negative for a candidate below the hull of the entries), ``stable``, ``ground_state`` (id of
    the lowest entry of the formula, or null) and ``products``, what the decomposition energy
    compares with, each with its share of the atoms. Energies are in eV/atom. ``theory`` is the one
    level of theory with its ``key``, ``mixing`` the scheme or null, ``left_out`` what the scheme
    does not place.
    """
    return {
        "schema": SCHEMA,
        "theory": {**energies.theory.model_dump(mode="json"), "key": energies.theory.key},
        "mixing": _scheme(energies),
        "left_out": [{"name": name, "reason": reason} for name, reason in energies.left_out],
        "phases": [
            {
                "role": role,
                "id": one.point.phase_id,
                "formula": one.formula,
                "energy_per_atom": one.point.energy,
                "formation_energy_per_atom": one.formation_energy,
                "decomposition_energy": one.decomposition_energy,
                "e_above_hull": one.hull_distance,
                "stable": one.stable,
                "ground_state": one.ground_state or None,
                "products": [
                    {"id": share.phase_id, "formula": share.formula, "atoms": share.atoms}
                    for share in one.products
                ],
            }
            for role, one in judged
        ],
    }


def _scheme(energies: Comparable) -> str | None:
    return (energies.theory.dft.mixing or None) if energies.theory.dft else None


def _write(path: Path, data: dict[str, Any]) -> None:
    from matloop.atomic import whole_file

    text = json.dumps(data, indent=2) + "\n" if path.suffix == ".json" else _as_csv(data)
    try:
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"{path} cannot be written: {reason}; name another") from None


def _as_csv(data: dict[str, Any]) -> str:
    stream = io.StringIO(newline="")
    columns = [name for name in data["phases"][0] if name != "products"]
    writer = csv.DictWriter(stream, [*columns, "products", "theory"], lineterminator="\n")
    writer.writeheader()
    for phase in data["phases"]:
        products = " + ".join(f"{p['atoms']:.6f} {p['formula']}" for p in phase["products"])
        writer.writerow({**phase, "products": products, "theory": data["theory"]["key"]})
    return stream.getvalue()


def _show(energies: Comparable, judged: list[tuple[str, Decomposition]]) -> None:
    from matloop.structures.theories import short

    candidates = [one for role, one in judged if role == "candidate"]
    known = [one for role, one in judged if role == "entry"]
    shown = candidates or known
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="dim")
    table.add_column("id", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("formula", no_wrap=True)
    for title in ("formation\neV/atom", "decomposition\nmeV/atom", "above hull\nmeV/atom"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("would decompose to")
    for one in shown[:_SHOWN]:
        table.add_row(*_row(one))
    stdout().print(table)
    if len(shown) > _SHOWN:
        stdout().print(f"and {len(shown) - _SHOWN} more: -o FILE.csv, or --json")
    stable = sum(one.stable for one in known)
    line = f"{len(known)} entries, {stable} on the hull"
    if candidates:
        line += (
            f"; {len(candidates)} candidates, {sum(one.stable for one in candidates)} on or below"
        )
    stdout().print(f"{line} · {escape(short(energies.theory))}", soft_wrap=True)
    for name, reason in energies.left_out[:_NAMED]:
        stderr().print(f"[yellow]left out[/] {escape(name)}: {escape(reason)}", soft_wrap=True)
    if len(energies.left_out) > _NAMED:
        more = len(energies.left_out) - _NAMED
        stderr().print(f"[yellow]left out[/] {more} more; --json names them")


def _row(one: Decomposition) -> list[str]:
    decomposition = one.decomposition_energy
    formula = f"[bold green]{escape(one.formula)}[/]" if one.stable else escape(one.formula)
    return [
        escape(one.point.phase_id),
        formula,
        f"{one.formation_energy:.3f}",
        "" if decomposition is None else f"{1000 * decomposition:.1f}",
        f"{1000 * one.hull_distance:.1f}" if not one.stable or one.hull_distance < -1e-6 else "0",
        escape(" + ".join(f"{share.atoms + 1e-9:.2f} {share.formula}" for share in one.products)),
    ]
