"""Parity and calibration of the surrogate."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from matloop.reports.figures.theme import LIGHT, blank_figure, mixed
from matloop.reports.predictions import Parity


def parity_figure(parity: Parity) -> go.Figure:
    """Return predicted against computed values, with one standard deviation each.

    The axes hold the bulk of the points; a note in the figure counts those beyond.
    """
    pairs = parity.pairs
    unit = f" ({parity.unit})" if parity.unit else ""
    last = max((pair.iteration for pair in pairs), default=0)
    figure = blank_figure(400, showlegend=True)
    values = np.array([[pair.predicted, pair.computed] for pair in pairs])
    low, high = np.percentile(values, [1, 98])
    margin = 0.08 * max(high - low, 1e-3)
    ends = [float(low - margin), float(high + margin)]
    outside = int(np.sum((values < ends[0]).any(axis=1) | (values > ends[1]).any(axis=1)))
    if outside:
        figure.add_annotation(
            x=1,
            y=1,
            xref="x domain",
            yref="y domain",
            text=f"{outside} beyond the axes",
            showarrow=False,
            xanchor="right",
            yanchor="top",
            font={"size": 11, "color": LIGHT["soft"]},
        )
    figure.add_scatter(
        x=ends,
        y=ends,
        mode="lines",
        line={"color": LIGHT["faint"], "width": 1.2, "dash": "dash"},
        hoverinfo="skip",
        showlegend=False,
    )
    for iteration in sorted({pair.iteration for pair in pairs}):
        own = [pair for pair in pairs if pair.iteration == iteration]
        colour = mixed(LIGHT["sky"], LIGHT["blue"], iteration / last if last else 1.0)
        known = all(pair.uncertainty is not None for pair in own)
        figure.add_scatter(
            x=[pair.predicted for pair in own],
            y=[pair.computed for pair in own],
            mode="markers",
            name=f"iteration {iteration + 1}",
            marker={"size": 8, "color": colour, "line": {"color": LIGHT["card"], "width": 1}},
            error_x={
                "type": "data",
                "array": [pair.uncertainty for pair in own],
                "color": colour,
                "thickness": 0.8,
                "width": 0,
            }
            if known
            else None,
            text=[pair.formula for pair in own],
            hovertemplate="<b>%{text}</b><br>predicted %{x:.3f}, computed %{y:.3f}<extra></extra>",
        )
    figure.update_xaxes(title_text=f"predicted before relaxation{unit}", range=ends)
    figure.update_yaxes(title_text=f"computed{unit}", range=ends)
    return figure


def calibration_figure(parity: Parity) -> go.Figure | None:
    """Return observed against nominal coverage; None without uncertainties.

    The band is two standard errors of a perfectly calibrated surrogate with as many pairs.
    """
    if not parity.coverage:
        return None
    count = sum(1 for pair in parity.pairs if pair.uncertainty)
    figure = blank_figure(400)
    grid = np.linspace(0.0, 1.0, 41)
    spread = 2 * np.sqrt(grid * (1 - grid) / count)
    figure.add_scatter(
        x=100 * np.concatenate([grid, grid[::-1]]),
        y=100 * np.concatenate([np.minimum(1, grid + spread), np.maximum(0, grid - spread)[::-1]]),
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=LIGHT["wash"],
        name=f"sampling noise, n = {count}",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[0, 100],
        y=[0, 100],
        mode="lines",
        line={"color": LIGHT["faint"], "width": 1.2, "dash": "dash"},
        hoverinfo="skip",
        showlegend=False,
    )
    nominal = [0.0, *[100 * a for a, _ in parity.coverage], 100.0]
    observed = [0.0, *[100 * b for _, b in parity.coverage], 100.0]
    figure.add_scatter(
        x=nominal,
        y=observed,
        mode="lines+markers",
        marker={"size": 7, "color": LIGHT["blue"]},
        line={"color": LIGHT["blue"], "width": 2.5},
        name="surrogate",
        hovertemplate="%{x:.0f} % intervals hold %{y:.0f} % of values<extra></extra>",
    )
    figure.update_xaxes(title_text="nominal interval (%)", range=[0, 100])
    figure.update_yaxes(title_text="computed values inside (%)", range=[0, 100.5])
    return figure
