"""The convex hull: in two dimensions, as a triangle, or as distances per chemical subsystem."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from matloop.documents.objective import Objective
from matloop.reports.contents import CampaignSummary, HullPoint
from matloop.reports.figures.labels import placed_labels
from matloop.reports.figures.theme import LIGHT, blank_figure, html_formula

NEAR = 0.1
"""Distance (eV/atom) up to which phases are coloured and listed as near the hull."""

_SCALE = [
    [0.0, LIGHT["scale-near"]],
    [0.35, LIGHT["scale-nearer"]],
    [0.7, LIGHT["scale-farther"]],
    [1.0, LIGHT["scale-far"]],
]
_CRITERION = re.compile(r"^\s*e_above_hull\s*<=?\s*([\d.eE+-]+)\s*(m?)eV/atom\s*$")
_MOST_SUBSYSTEMS = 12


def hull_threshold(objective: Objective) -> float | None:
    """Return the distance to the hull (eV/atom) that counts as a discovery, if it is one."""
    found = _CRITERION.match(objective.discovery)
    if found is None:
        return None
    return float(found.group(1)) * (1e-3 if found.group(2) else 1.0)


def hull_figure(summary: CampaignSummary) -> go.Figure | None:
    """Return the hull in the form that suits its number of elements; None without one.

    Two elements: formation energy against composition. Three: the Gibbs triangle, with the
    facets of the hull. Any other number: distances to the hull per chemical subsystem.
    """
    if summary.hull is None or not summary.hull.points:
        return None
    match len(summary.hull.elements):
        case 2:
            return _binary(summary)
        case 3:
            return _ternary(summary)
        case _:
            return subsystems_figure(summary)


def subsystems_figure(summary: CampaignSummary) -> go.Figure | None:
    """Return the distance to the hull of everything computed, one column per chemical subsystem.

    Twelve subsystems at most, those with the most candidates.
    """
    if summary.hull is None:
        return None
    groups: dict[str, list[HullPoint]] = {}
    for point in summary.hull.points:
        if point.source != "reference":
            groups.setdefault(_system(point, summary.hull.elements), []).append(point)
    if not groups:
        return None
    kept = sorted(groups, key=lambda name: (-len(groups[name]), name))[:_MOST_SUBSYSTEMS]
    kept.sort(key=lambda name: (name.count("-"), name))
    rank = {name: number for number, name in enumerate(kept)}
    figure = blank_figure(460)
    ceiling = max(4 * NEAR, 1.25 * (hull_threshold(summary.record.campaign.objective) or 0.0))
    for label, style, chosen in _groups(summary):
        shown = [
            (rank[_system(p, summary.hull.elements)], p)
            for p in chosen
            if p.source != "reference" and _system(p, summary.hull.elements) in rank
        ]
        shown = [(column, p) for column, p in shown if p.e_above_hull <= ceiling]
        if not shown:
            continue
        offsets = _swarm([(column, p.e_above_hull) for column, p in shown], ceiling)
        figure.add_scatter(
            x=[column + offset for (column, _), offset in zip(shown, offsets, strict=True)],
            y=[p.e_above_hull for _, p in shown],
            mode="markers",
            name=label,
            marker=style,
            text=[html_formula(p.formula) for _, p in shown],
            hovertemplate="<b>%{text}</b><br>%{y:.3f} eV/atom above the hull<extra></extra>",
        )
    _threshold(figure, summary)
    figure.update_xaxes(
        tickvals=list(rank.values()),
        ticktext=kept,
        tickangle=-40 if len(kept) > 5 else 0,
        showgrid=False,
        range=[-0.6, len(kept) - 0.4],
    )
    figure.update_yaxes(
        title_text="above the final hull (eV/atom)", range=[-0.03 * ceiling, ceiling]
    )
    return figure


def stable_phases(points: Sequence[HullPoint]) -> list[HullPoint]:
    """Return the phases on the hull, one per composition: references go before repeats."""
    kept: dict[tuple[tuple[str, float], ...], HullPoint] = {}
    for point in sorted(points, key=lambda p: (p.source != "reference", p.point_id)):
        if point.e_above_hull <= 1e-6 and point.source != "candidate":
            key = tuple((name, round(x, 6)) for name, x in sorted(point.fractions.items()))
            kept.setdefault(key, point)
    return list(kept.values())


def hull_is_subsystems(summary: CampaignSummary) -> bool:
    """Whether `hull_figure` falls back to distances per subsystem."""
    return summary.hull is not None and len(summary.hull.elements) not in (2, 3)


def _binary(summary: CampaignSummary) -> go.Figure:
    assert summary.hull is not None
    first, second = summary.hull.elements
    figure = blank_figure(460)

    def fraction(point: HullPoint) -> float:
        return point.fractions.get(second, 0.0)

    stable: dict[float, HullPoint] = {}
    for point in sorted(summary.hull.points, key=lambda p: p.e_form):
        if point.e_above_hull <= 1e-6 and point.source != "candidate":
            stable.setdefault(round(fraction(point), 6), point)
    line = [stable[x] for x in sorted(stable)]
    figure.add_scatter(
        x=[fraction(p) for p in line],
        y=[p.e_form for p in line],
        mode="lines",
        line={"color": LIGHT["ink"], "width": 1.6},
        name="hull",
        hoverinfo="skip",
        showlegend=False,
    )
    for label, style, chosen in _groups(summary):
        if chosen:
            figure.add_scatter(
                x=[fraction(p) for p in chosen],
                y=[p.e_form for p in chosen],
                mode="markers",
                name=label,
                marker=style,
                text=[html_formula(p.formula) for p in chosen],
                customdata=[p.e_above_hull for p in chosen],
                hovertemplate=(
                    "<b>%{text}</b><br>formation energy %{y:.3f} eV/atom<br>"
                    "%{customdata:.3f} eV/atom above the hull<extra></extra>"
                ),
            )
    for point in line:
        if 0 < fraction(point) < 1:
            figure.add_annotation(
                x=fraction(point),
                y=point.e_form,
                text=html_formula(point.formula),
                showarrow=False,
                yshift=-16,
                font={"size": 12, "color": LIGHT["ink"]},
            )
    lowest = min((p.e_form for p in summary.hull.points), default=0.0)
    depth = max(-lowest, 0.05)
    most = float(np.percentile([p.e_form for p in summary.hull.points], 80))
    figure.update_yaxes(
        title_text="formation energy (eV/atom)",
        range=[lowest - 0.14 * depth, max(0.1 * depth, min(most, 0.5 * depth + 0.2))],
    )
    figure.update_xaxes(
        title_text=f"fraction of {second} in {first}–{second}", range=[-0.02, 1.02], dtick=0.25
    )
    return figure


def _ternary(summary: CampaignSummary) -> go.Figure:
    assert summary.hull is not None
    left, right, top = summary.hull.elements
    figure = blank_figure(480)

    def coordinates(points: Sequence[HullPoint]) -> dict[str, list[float]]:
        return {
            "a": [p.fractions.get(top, 0.0) for p in points],
            "b": [p.fractions.get(left, 0.0) for p in points],
            "c": [p.fractions.get(right, 0.0) for p in points],
        }

    stable = stable_phases(summary.hull.points)
    lines: dict[str, list[float | None]] = {"a": [], "b": [], "c": []}
    for i, j in _tie_lines(stable, left, right):
        for name, values in coordinates([stable[i], stable[j]]).items():
            lines[name] += [*values, None]
    figure.add_scatterternary(
        **lines,
        mode="lines",
        line={"color": LIGHT["faint"], "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    limit = max(NEAR, hull_threshold(summary.record.campaign.objective) or 0.0)
    for label, style, chosen in _groups(summary):
        near = sorted((p for p in chosen if p.e_above_hull <= limit), key=lambda p: -p.e_above_hull)
        if not near:
            continue
        marker = dict(style)
        if label != "reference phase":
            marker |= _coloured(near, limit, scale=label == "computed candidate")
        figure.add_scatterternary(
            **coordinates(near),
            mode="markers",
            name=label,
            marker=marker,
            cliponaxis=False,
            text=[html_formula(p.formula) for p in near],
            customdata=[[p.e_form, p.e_above_hull] for p in near],
            hovertemplate=(
                "<b>%{text}</b><br>formation energy %{customdata[0]:.3f} eV/atom<br>"
                "%{customdata[1]:.3f} eV/atom above the hull<extra></extra>"
            ),
        )
    shown = {finding.candidate_id for finding in summary.discoveries}
    marked = [point for point in summary.hull.points if point.point_id in shown]
    for position, labels in placed_labels(stable, marked, right, top).items():
        figure.add_scatterternary(
            **coordinates([point for point, _ in labels]),
            mode="text",
            text=[text for _, text in labels],
            textposition=position,
            textfont={"size": 12, "color": LIGHT["ink"]},
            cliponaxis=False,
            hoverinfo="skip",
            showlegend=False,
        )
    axis: dict[str, Any] = {
        "title": {"text": ""},
        "showticklabels": False,
        "ticks": "",
        "gridcolor": LIGHT["wash"],
        "linecolor": LIGHT["faint"],
        "linewidth": 1.2,
    }
    figure.update_layout(
        ternary={
            "sum": 1,
            "bgcolor": "rgba(0,0,0,0)",
            "aaxis": axis,
            "baxis": axis,
            "caxis": axis,
        },
        margin={"l": 30, "r": 30, "t": 20, "b": 60},
        legend={"y": 1.1, "itemsizing": "constant"},
    )
    return figure


def _coloured(points: Sequence[HullPoint], limit: float, *, scale: bool) -> dict[str, Any]:
    return {
        "color": [max(p.e_above_hull, 0.0) for p in points],
        "colorscale": _SCALE,
        "cmin": 0,
        "cmax": limit,
        "showscale": scale,
        "colorbar": {
            "title": {"text": "eV/atom above the hull", "side": "bottom", "font": {"size": 11}},
            "orientation": "h",
            "thickness": 8,
            "len": 0.5,
            "x": 0.5,
            "y": -0.11,
            "yanchor": "top",
            "xanchor": "center",
            "outlinewidth": 0,
            "tickformat": ".2f",
            "tickfont": {"size": 11},
            "nticks": 4,
        },
        "opacity": 1,
    }


def _groups(
    summary: CampaignSummary,
) -> list[tuple[str, dict[str, Any], list[HullPoint]]]:
    # What the reader tells apart, drawn from the least to the most important.
    assert summary.hull is not None
    kinds = {finding.candidate_id: finding.novelty for finding in summary.discoveries}
    edge = {"color": LIGHT["card"], "width": 1.2}
    points = summary.hull.points
    return [
        (
            "computed candidate",
            {"symbol": "circle", "size": 6, "color": LIGHT["grey"], "opacity": 0.7},
            [p for p in points if p.source != "reference" and p.point_id not in kinds],
        ),
        (
            "reference phase",
            {
                "symbol": "square",
                "size": 9,
                "color": LIGHT["card"],
                "line": {"color": LIGHT["ink"], "width": 1.6},
            },
            [p for p in points if p.source == "reference"],
        ),
        (
            "discovery",
            {"symbol": "circle", "size": 13, "color": LIGHT["blue"], "line": edge},
            [p for p in points if kinds.get(p.point_id, "withheld") != "withheld"],
        ),
        (
            "rediscovered",
            {
                "symbol": "star",
                "size": 15,
                "color": LIGHT["orange"],
                "line": {"color": LIGHT["orange"], "width": 1.5},
            },
            [p for p in points if kinds.get(p.point_id) == "withheld"],
        ),
    ]


def _tie_lines(stable: Sequence[HullPoint], left: str, right: str) -> list[tuple[int, int]]:
    # Edges of the lower hull of (composition, formation energy).
    from scipy.spatial import ConvexHull, QhullError

    points = np.array(
        [[p.fractions.get(left, 0.0), p.fractions.get(right, 0.0), p.e_form] for p in stable]
    )
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):  # elements alone lie in one plane
        return []
    lower = hull.simplices[hull.equations[:, 2] < -1e-9]
    edges = {
        (int(min(a, b)), int(max(a, b)))
        for s in lower
        for a, b in zip(s, np.roll(s, 1), strict=True)
    }
    return sorted(edges)


def _system(point: HullPoint, elements: Sequence[str]) -> str:
    return "-".join(element for element in elements if element in point.fractions)


def _swarm(places: Sequence[tuple[int, float]], ceiling: float) -> list[float]:
    # Neighbours in height step aside in turn, so that crowded heights grow wide.
    taken: dict[tuple[int, int], int] = {}
    offsets = []
    for column, height in places:
        cell = (column, int(60 * height / ceiling))
        number = taken.get(cell, 0)
        taken[cell] = number + 1
        side = 1 if number % 2 else -1
        offsets.append(side * min(0.4, 0.055 * ((number + 1) // 2)))
    return offsets


def _threshold(figure: go.Figure, summary: CampaignSummary) -> None:
    threshold = hull_threshold(summary.record.campaign.objective)
    if threshold is not None:
        figure.add_hline(
            y=threshold,
            line={"color": LIGHT["orange"], "width": 1.2, "dash": "dash"},
            annotation={
                "text": f"discovery: {threshold:g} eV/atom",
                "font": {"size": 11, "color": LIGHT["orange"]},
                "x": 0.01,
                "xanchor": "left",
                "yanchor": "bottom",
            },
        )
