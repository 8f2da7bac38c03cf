"""Two levels of theory side by side: hull distances, and costs estimated and paid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from matloop.documents.objective import Objective
from matloop.reports.comparison import Fidelity, LevelPair
from matloop.reports.figures.hull import hull_threshold
from matloop.reports.figures.theme import LIGHT, blank_figure, html_formula

Array = NDArray[np.float64]


def levels_figure(fidelity: Fidelity, objective: Objective, names: tuple[str, str]) -> go.Figure:
    """Return the distances at the upper level against those at the lower, with the correction.

    Parameters
    ----------
    fidelity
        The comparison; it has pairs.
    objective
        Says where the discovery criterion lies.
    names
        What the lower and the upper level are called.
    """
    figure = blank_figure(430, showlegend=True)
    values = np.array([[pair.lower, pair.upper] for pair in fidelity.pairs])
    low, high = (float(end) for end in np.percentile(values, [1, 98]))
    margin = 0.1 * max(high - low, 0.05)
    ends = np.array([low - margin, high + margin])
    _band(figure, fidelity, ends)
    figure.add_scatter(
        x=ends,
        y=ends,
        mode="lines",
        line={"color": LIGHT["faint"], "width": 1.2, "dash": "dash"},
        hoverinfo="skip",
        showlegend=False,
    )
    threshold = hull_threshold(objective)
    if threshold is not None and ends[0] < threshold < ends[1]:
        line = {"color": LIGHT["amber"], "width": 1.2, "dash": "dot"}
        figure.add_vline(threshold, line=line)
        figure.add_hline(threshold, line=line)
    for label, colour, symbol, audit in (
        ("promoted", LIGHT["blue"], "circle", False),
        ("audited", LIGHT["orange"], "diamond", True),
    ):
        own = [pair for pair in fidelity.pairs if pair.audit is audit]
        if own:
            _points(figure, own, f"{label}, {len(own)}", colour, symbol)
    outside = int(np.sum((values < ends[0]).any(axis=1) | (values > ends[1]).any(axis=1)))
    if outside:
        figure.add_annotation(
            x=1,
            y=0,
            xref="x domain",
            yref="y domain",
            text=f"{outside} beyond the axes",
            showarrow=False,
            xanchor="right",
            yanchor="bottom",
            font={"size": 11, "color": LIGHT["soft"]},
        )
    figure.update_xaxes(title_text=f"above the hull by {names[0]} (eV/atom)", range=list(ends))
    figure.update_yaxes(title_text=f"above the hull by {names[1]} (eV/atom)", range=list(ends))
    return figure


def estimates_figure(fidelity: Fidelity) -> go.Figure | None:
    """Return what calculations cost against what was estimated; None without any."""
    pairs = [pair for pair in fidelity.costs if pair.estimated > 0 and pair.actual > 0]
    if not pairs:
        return None
    values = np.array([[pair.estimated, pair.actual] for pair in pairs])
    ends = [float(values.min()) / 1.6, float(values.max()) * 1.6]
    figure = blank_figure(430)
    figure.add_scatter(
        x=ends,
        y=ends,
        mode="lines",
        line={"color": LIGHT["faint"], "width": 1.2, "dash": "dash"},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=values[:, 0],
        y=values[:, 1],
        mode="markers",
        marker={"size": 8, "color": LIGHT["green"], "line": {"color": LIGHT["card"], "width": 1}},
        text=[pair.candidate_id for pair in pairs],
        hovertemplate="%{text}<br>estimated %{x:.3g}, paid %{y:.3g} core-hours<extra></extra>",
        showlegend=False,
    )
    span = [float(np.log10(end)) for end in ends]
    figure.update_xaxes(title_text="estimated (core-hours)", type="log", range=span)
    figure.update_yaxes(title_text="paid (core-hours)", type="log", range=span)
    if span[1] - span[0] < 2.5:
        figure.update_xaxes(dtick="D2")
        figure.update_yaxes(dtick="D2")
    return figure


def _band(figure: go.Figure, fidelity: Fidelity, ends: Array) -> None:
    """Draw the mean difference with the latest lesson's 90 % interval."""
    if fidelity.half_width is None or fidelity.mean_difference is None:
        return
    middle, half = ends + fidelity.mean_difference, fidelity.half_width
    figure.add_scatter(
        x=np.concatenate([ends, ends[::-1]]),
        y=np.concatenate([middle - half, (middle + half)[::-1]]),
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=LIGHT["wash"],
        name="90 % of the correction",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=ends,
        y=middle,
        mode="lines",
        line={"color": LIGHT["soft"], "width": 1.4},
        name="mean difference",
        hoverinfo="skip",
    )


def _points(
    figure: go.Figure, pairs: Sequence[LevelPair], label: str, colour: str, symbol: str
) -> None:
    figure.add_scatter(
        x=[pair.lower for pair in pairs],
        y=[pair.upper for pair in pairs],
        mode="markers",
        name=label,
        marker={
            "size": 8,
            "symbol": symbol,
            "color": colour,
            "line": {"color": LIGHT["card"], "width": 1},
        },
        text=[html_formula(pair.formula) for pair in pairs],
        hovertemplate="<b>%{text}</b><br>lower %{x:.3f}, upper %{y:.3f} eV/atom<extra></extra>",
    )
