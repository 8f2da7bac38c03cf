"""The story of one candidate, as `matloop show` tells it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from matloop.cli.terminal import OUTCOME_STYLES, duration
from matloop.errors import ConfigurationError

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from matloop.documents.candidate import Candidate, Quantity
    from matloop.documents.evaluation import EvaluationRecord
    from matloop.reports.history import Followed, History

_VERDICT_STYLES = {"pass": "green", "reject": "yellow", "fail": "red"}
_MOST_SITES = 24


def story(history: History, name: str) -> RenderableType:
    """Return everything that is known of a candidate.

    Parameters
    ----------
    history
        The campaign.
    name
        Candidate id, or the start of one.

    Raises
    ------
    ConfigurationError
        If no candidate or more than one is meant; the message lists near ones.
    """
    item = _find(history, name)
    parts: list[RenderableType] = [_title(item, history), *_origin(item)]
    by_key = {record.key: record for record in item.evaluations}
    seen: set[str] = set()
    for stage, decision in item.decisions.items():
        style = OUTCOME_STYLES[decision.outcome]
        parts.append("")
        parts.append(
            f"[bold]{escape(stage)}[/]  [{style}]{decision.outcome}[/]  {escape(decision.reason)}"
        )
        for key in decision.evaluations:
            if key in by_key and key not in seen:
                seen.add(key)
                parts += _evaluation(by_key[key])
        if decision.evidence:
            evidence = ", ".join(f"{k} {v:.4g}" for k, v in decision.evidence.items())
            line = f"[dim]decided by {escape(decision.selector)}: {escape(evidence)}[/]"
            parts.append(Padding(line, (0, 0, 0, 2)))
    seconds = sum(record.evaluation.cost.seconds for record in item.evaluations)
    work = sum(record.evaluation.cost.work for record in item.evaluations)
    parts += ["", f"[bold]cost[/]  {duration(seconds)}, work {work:g} atoms × force evaluations"]
    parts += ["", "[bold]structure[/]", Padding(_structure(item.final), (0, 0, 0, 2))]
    return Group(*parts)


def _find(history: History, name: str) -> Followed:
    known = {item.candidate_id: item for item in history.candidates}
    if name in known:
        return known[name]
    meant = [key for key in known if key.startswith(name)]
    if len(meant) == 1:
        return known[meant[0]]
    if meant:
        more = f" and {len(meant) - 8} more" if len(meant) > 8 else ""
        raise ConfigurationError(f"{name!r} begins {', '.join(meant[:8])}{more}; write more of it")
    near = get_close_matches(name, known, n=4, cutoff=0.5)
    hint = (
        f"near are: {', '.join(near)}" if near else "`matloop export --format csv` lists them all"
    )
    raise ConfigurationError(f"no candidate begins with {name!r}; {hint}")


def _title(item: Followed, history: History) -> str:
    utility = history.record.campaign.objective.utility(item.final.quantities)
    shown = "" if utility is None else f", utility {utility:.4g}"
    formula = item.final.structure.composition.reduced_formula
    return (
        f"[bold]{formula}[/]  [dim]{item.candidate_id}[/]\n"
        f"{escape(item.fate)} in iteration {item.record.iteration + 1} of "
        f"{history.record.campaign_id}{shown}"
    )


def _origin(item: Followed) -> list[RenderableType]:
    origin = item.record.candidate.origin
    version = f" {origin.version}" if origin.version else ""
    lines: list[RenderableType] = [
        "",
        f"[bold]origin[/]  {escape(origin.generator)}{version}, seed {origin.seed}",
    ]
    if origin.parameters:
        chosen = ", ".join(f"{name} {value}" for name, value in origin.parameters.items())
        lines.append(Padding(escape(chosen), (0, 0, 0, 2)))
    if origin.parents:
        lines.append(Padding(f"made from {escape(', '.join(origin.parents))}", (0, 0, 0, 2)))
    return lines


def _evaluation(record: EvaluationRecord) -> list[RenderableType]:
    found = record.evaluation
    style = _VERDICT_STYLES[found.verdict]
    cost = f"  [dim]{duration(found.cost.seconds)}[/]" if found.cost.seconds >= 0.05 else ""
    lines: list[RenderableType] = [
        f"  [{style}]{found.verdict:<6}[/] [cyan]{escape(record.evaluator)}[/]  "
        f"{escape(found.reason)}{cost}"
    ]
    if found.quantities:
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
        table.add_column(style="dim")
        table.add_column(justify="right")
        table.add_column()
        for name, quantity in found.quantities.items():
            table.add_row(name, *_quantity(quantity))
        lines.append(Padding(table, (0, 0, 0, 9)))
    if found.theory is not None:
        lines.append(Padding(f"[dim]theory {escape(found.theory.key)}[/]", (0, 0, 0, 9)))
    return lines


def _quantity(quantity: Quantity) -> tuple[str, str]:
    spread = "" if quantity.uncertainty is None else f" ± {quantity.uncertainty:.2g}"
    return f"{quantity.value:.5g}{spread}", quantity.unit


def _density(structure: Structure) -> str:
    try:
        return f", {structure.density:.2f} g/cm^3"
    except (ZeroDivisionError, AttributeError):  # no volume, or what is no element
        return ""


def _structure(candidate: Candidate) -> str:
    structure = candidate.structure
    lattice = structure.lattice
    lines = [
        f"{structure.composition.formula}, {len(structure)} atoms{_density(structure)}",
        f"a {lattice.a:.4f}  b {lattice.b:.4f}  c {lattice.c:.4f} Å   "
        f"α {lattice.alpha:.2f}  β {lattice.beta:.2f}  γ {lattice.gamma:.2f}°",
    ]
    for site in structure[:_MOST_SITES]:
        x, y, z = site.frac_coords % 1.0
        lines.append(f"{site.species_string:<4}{x:9.5f}{y:9.5f}{z:9.5f}")
    if len(structure) > _MOST_SITES:
        lines.append(f"and {len(structure) - _MOST_SITES} more sites")
    return escape("\n".join(lines))
