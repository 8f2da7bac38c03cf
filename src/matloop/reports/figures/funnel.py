"""The funnel as pictures: totals per stage, and what passed in each iteration."""

from __future__ import annotations

import plotly.graph_objects as go

from matloop.reports.contents import CampaignSummary, FunnelRow
from matloop.reports.figures.theme import LIGHT, OUTCOMES, blank_figure


def funnel_figure(summary: CampaignSummary) -> go.Figure | None:
    """Return what became of all candidates at each stage; None without candidates."""
    rows = list(reversed(summary.totals))
    if not any(row.entered for row in rows):
        return None
    names = [row.stage for row in rows]
    widest = max(row.entered for row in rows)
    figure = blank_figure(100 + 52 * len(rows), barmode="stack", bargap=0.32)
    for outcome, colour in OUTCOMES.items():
        counts = [int(getattr(row, outcome)) for row in rows]
        if not any(counts):
            continue
        figure.add_bar(
            y=names,
            x=counts,
            name=outcome,
            orientation="h",
            marker={"color": colour, "line": {"color": LIGHT["card"], "width": 1}},
            text=[f"{count:,}" if count > 0.04 * widest else "" for count in counts],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            constraintext="none",
            textfont={"size": 12, "color": LIGHT["ink"] if outcome == "pending" else "#ffffff"},
            customdata=[
                100 * count / row.entered if row.entered else 0.0
                for count, row in zip(counts, rows, strict=True)
            ],
            hovertemplate=(
                f"%{{y}}: %{{x:,}} {outcome} (%{{customdata:.1f}} % of those that entered)"
                "<extra></extra>"
            ),
        )
    figure.update_layout(uniformtext={"mode": "hide", "minsize": 11})
    figure.update_xaxes(title_text="candidates, all iterations")
    figure.update_yaxes(showgrid=False, ticks="")
    return figure


def pass_rate_figure(summary: CampaignSummary) -> go.Figure | None:
    """Return the share of decided candidates that passed, per stage and iteration.

    None before a second iteration was judged.
    """
    rows = [row for row in summary.funnel if row.entered > row.pending]
    iterations = sorted({row.iteration for row in rows if row.iteration is not None})
    if len(iterations) < 2:
        return None
    stages = list(dict.fromkeys(row.stage for row in rows))
    cells = {(row.stage, row.iteration): row for row in rows}

    def rate(stage: str, iteration: int) -> float | None:
        row = cells.get((stage, iteration))
        return 100 * row.passed / (row.entered - row.pending) if row else None

    names = list(reversed(stages))
    values = [[rate(stage, k) for k in iterations] for stage in names]
    figure = blank_figure(100 + 52 * len(stages))
    figure.add_heatmap(
        x=[str(k + 1) for k in iterations],
        y=names,
        z=values,
        zmin=0,
        zmax=100,
        colorscale=[[0, LIGHT["wash"]], [1, LIGHT["tint"]]],
        showscale=False,
        xgap=3,
        ygap=3,
        text=[[_cell(cells.get((stage, k))) for k in iterations] for stage in names],
        texttemplate="%{text}",
        textfont={"color": LIGHT["ink"], "size": 12},
        customdata=[[_counts(cells.get((stage, k))) for k in iterations] for stage in names],
        hovertemplate="%{y}, iteration %{x}: %{customdata} passed<extra></extra>",
    )
    figure.update_xaxes(title_text="iteration", showgrid=False, ticks="")
    figure.update_yaxes(showgrid=False, ticks="")
    return figure


def _cell(row: FunnelRow | None) -> str:
    return f"{100 * row.passed / (row.entered - row.pending):.0f} %" if row else ""


def _counts(row: FunnelRow | None) -> str:
    return f"{row.passed} of {row.entered - row.pending}" if row else ""
