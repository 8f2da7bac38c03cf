"""Write a campaign's report: one HTML file that needs no network."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter

from matloop.atomic import whole_file
from matloop.campaign_file.writing import dump
from matloop.documents.candidate import Quantity
from matloop.documents.objective import Objective
from matloop.ledger.interface import Ledger
from matloop.reports import wording
from matloop.reports.contents import CampaignSummary, Finding
from matloop.reports.discoveries import SYMPREC
from matloop.reports.figures.crystal import (
    Picture,
    crystal_picture,
    element_legend,
    gradients,
)
from matloop.reports.figures.fidelity import estimates_figure, levels_figure
from matloop.reports.figures.front import front_figure, volume_figure
from matloop.reports.figures.funnel import funnel_figure, pass_rate_figure
from matloop.reports.figures.hull import (
    hull_figure,
    hull_is_subsystems,
    stable_phases,
    subsystems_figure,
)
from matloop.reports.figures.progress import arms_figure, generators_figure, progress_figure
from matloop.reports.figures.surrogate import calibration_figure, parity_figure
from matloop.reports.figures.theme import DARK, FONT, LIGHT, html_formula
from matloop.reports.history import MATCHER
from matloop.reports.summary import summarize
from matloop.structures.symmetry import SymmetryError, conventional_cell

PICTURES = 20
"""Most crystals drawn; the table lists them all."""

_MOST_DRAWN_SITES = 80


@dataclass(frozen=True)
class Shown:
    """A finding with its picture and file."""

    rank: int
    finding: Finding
    picture: Picture | None
    cif: str

    @property
    def predicted(self) -> Quantity | None:
        """What the surrogate said of it: its distance to the hull, or else what comes first."""
        said = self.finding.predicted
        return said.get("e_above_hull") or next(iter(said.values()), None)


def write_report(
    ledger: Ledger, campaign_id: str, path: Path, baseline: CampaignSummary | None = None
) -> Path:
    """Write the report of a campaign and return its path.

    Parameters
    ----------
    ledger
        The database.
    campaign_id
        The campaign, running or finished.
    path
        HTML file to write; its folder is made, a file of that name is replaced.
    baseline
        Summary of another campaign to compare with.

    Raises
    ------
    LedgerError
        If the ledger holds no such campaign, or it has not started.
    """
    page = render_report(summarize(ledger, campaign_id, baseline), baseline)
    with whole_file(path) as draft:
        draft.write_text(page, encoding="utf-8")
    return path


def render_report(summary: CampaignSummary, baseline: CampaignSummary | None = None) -> str:
    """Return the report's page."""
    environment = Environment(
        loader=PackageLoader("matloop.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "formula": lambda text: Markup(html_formula(text)),
        "duration": wording.duration,
        "si": wording.si,
        "safe_id": wording.safe_id,
        "subscripts": _subscripts,
        "figure": _figure_json,
        "fixed": _fixed,
    }
    shown = _shown(_ranked(summary))
    elements = [element for item in shown if item.picture for element in item.picture.elements]
    return environment.get_template("report.html.j2").render(
        s=summary,
        campaign=summary.record.campaign,
        wording=wording,
        shown=shown,
        gallery=[item for item in shown if item.picture and item.finding.discovery][:6]
        or [item for item in shown if item.picture][:3],
        gradients=Markup(gradients(elements)),
        element_colours=element_legend(elements),
        figures=_figures(summary, baseline),
        settings=dump(summary.record.campaign),
        stable=stable_phases(summary.hull.points) if summary.hull else [],
        plain=_is_plain(summary.record.campaign.objective),
        extra_names=sorted(summary.record.campaign.objective.names - {"e_above_hull"})[:3],
        matcher=MATCHER,
        symprec=SYMPREC,
        light=LIGHT,
        dark=DARK,
        font=Markup(FONT),
        swaps=Markup(json.dumps([[LIGHT[name], DARK[name]] for name in LIGHT])),
        plotly=Markup(get_plotlyjs()),
    )


def _figures(
    summary: CampaignSummary, baseline: CampaignSummary | None
) -> dict[str, go.Figure | list[go.Figure | None] | None]:
    return {
        "hull": hull_figure(summary),
        "subsystems": None if hull_is_subsystems(summary) else subsystems_figure(summary),
        "progress": progress_figure(summary, baseline),
        "arms": arms_figure(summary),
        "funnel": funnel_figure(summary),
        "rates": pass_rate_figure(summary),
        "generators": generators_figure(summary),
        "parity": [parity_figure(parity) for parity in summary.parities],
        "calibration": [calibration_figure(parity) for parity in summary.parities],
        "front": front_figure(summary.front) if summary.front else None,
        "volumes": volume_figure(summary.front) if summary.front else None,
        **_level_figures(summary),
    }


def _is_plain(objective: Objective) -> bool:
    (goal, *others) = objective.goals
    return not others and goal.sign < 0 and goal.text.strip() == "e_above_hull"


def _level_figures(summary: CampaignSummary) -> dict[str, go.Figure | None]:
    found = summary.fidelity
    if found is None or not found.pairs:
        return {"levels": None, "estimates": None}
    names = wording.theory_name(found.lower), wording.theory_name(found.upper)
    objective = summary.record.campaign.objective
    return {
        "levels": levels_figure(found, objective, names),
        "estimates": estimates_figure(found),
    }


def _ranked(summary: CampaignSummary) -> list[Finding]:
    # Discoveries before others, each best first.
    return sorted(
        summary.findings,
        key=lambda f: (
            not f.discovery,
            -round(f.utility, 6) if f.utility is not None else float("inf"),
            f.novelty == "withheld",
            f.candidate_id,
        ),
    )


def _shown(findings: Sequence[Finding]) -> list[Shown]:
    return [
        Shown(
            rank,
            finding,
            crystal_picture(_drawn_cell(finding.structure)) if rank <= PICTURES else None,
            base64.b64encode(_cif(finding).encode()).decode(),
        )
        for rank, finding in enumerate(findings, 1)
    ]


def _drawn_cell(structure: Structure) -> Structure:
    try:
        cell = conventional_cell(structure, SYMPREC)
    except SymmetryError:
        return structure
    return cell if len(cell) <= _MOST_DRAWN_SITES else structure


def _cif(finding: Finding) -> str:
    text = str(CifWriter(finding.structure))
    return f"# {finding.candidate_id}\n{text}"


def _figure_json(figure: go.Figure) -> Markup:
    # Inside a script element only "</" and "<!" could end the data early.
    return Markup(figure.to_json().replace("<", "\\u003c"))


def _subscripts(text: str) -> Markup:
    # Formulas with numbers, such as Sr2TiO4; what stands in brackets is a space group.
    return Markup(
        re.sub(
            r"(?<![\w(/-])(?=\w*\d)(?:[A-Z][a-z]?\d*)+(?![\w/-])",
            lambda found: html_formula(found.group()),
            str(escape(text)),
        )
    )


def _fixed(value: Any, digits: int = 3, missing: str = "–") -> str:
    if value is None:
        return missing
    text = f"{float(value):.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
