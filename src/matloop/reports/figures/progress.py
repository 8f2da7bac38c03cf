"""Discoveries against cost, and the yield of each part of a campaign."""

from __future__ import annotations

import plotly.graph_objects as go

from matloop.reports.arms import Arm
from matloop.reports.contents import CampaignSummary
from matloop.reports.figures.theme import CATEGORIES, LIGHT, blank_figure


def progress_figure(
    summary: CampaignSummary, baseline: CampaignSummary | None = None
) -> go.Figure | None:
    """Return cumulative discoveries against relaxations, with what a baseline would have found.

    The band is the 95 % interval of the baseline's rate, extrapolated in a straight line. Without
    a baseline campaign, the campaign's own first iteration serves. None before any relaxation.
    """
    total = summary.spent.relaxations
    if not total:
        return None
    figure = blank_figure(460, hovermode="closest")
    arm = next((a for kind in ("campaign", "first") for a in summary.arms if a.kind == kind), None)
    if arm is not None:
        _add_band(figure, arm, total)
    if baseline is not None:
        figure.add_scatter(
            x=[point.spent.relaxations for point in baseline.progress],
            y=[point.discoveries for point in baseline.progress],
            mode="lines",
            line={"color": LIGHT["orange"], "width": 2, "shape": "hv", "dash": "dot"},
            name=f"baseline {baseline.record.campaign_id}",
        )
    points = summary.progress
    figure.add_scatter(
        x=[point.spent.relaxations for point in points],
        y=[point.discoveries for point in points],
        mode="lines",
        line={"color": LIGHT["blue"], "width": 3, "shape": "hv"},
        name="this campaign",
        hoverinfo="skip",
    )
    found = [point for point in points if point.candidate_id]
    names = {finding.candidate_id: finding for finding in summary.findings}
    for withheld, label, symbol, colour in (
        (False, "new phase", "circle", LIGHT["blue"]),
        (True, "withheld phase rediscovered", "star", LIGHT["orange"]),
    ):
        chosen = [p for p in found if (names[p.candidate_id].novelty == "withheld") == withheld]
        if not chosen:
            continue
        figure.add_scatter(
            x=[point.spent.relaxations for point in chosen],
            y=[point.discoveries for point in chosen],
            mode="markers",
            marker={
                "symbol": symbol,
                "size": 14 if withheld else 8,
                "color": colour,
                "line": {"color": LIGHT["card"], "width": 1.5},
            },
            name=label,
            text=[names[point.candidate_id].formula for point in chosen],
            customdata=[
                [names[p.candidate_id].generator, p.iteration + 1, p.spent.work, p.spent.seconds]
                for p in chosen
            ],
            hovertemplate=(
                "<b>%{text}</b><br>discovery %{y} after %{x} relaxations<br>"
                "%{customdata[0]}, iteration %{customdata[1]}<br>"
                "%{customdata[2]:.3s} atoms × force evaluations<br>"
                "%{customdata[3]:.3s} s of worker time<extra></extra>"
            ),
        )
    _mark_iterations(figure, summary)
    figure.update_xaxes(title_text="relaxations paid for", range=[0, total * 1.02], showgrid=False)
    top = max([a.expected_high for a in (arm,) if a] + [len(found), 1])
    figure.update_yaxes(
        title_text="distinct discoveries", range=[0, 1.12 * min(top, 2.2 * max(len(found), 3))]
    )
    return figure


def arms_figure(summary: CampaignSummary) -> go.Figure | None:
    """Return discoveries per 100 relaxations of each arm with Wilson intervals; None without."""
    rows = list(reversed(summary.arms))
    if not rows:
        return None
    figure = blank_figure(90 + 46 * len(rows), showlegend=False)
    colours = {
        "all": LIGHT["blue"],
        "feedback": LIGHT["blue"],
        "first": LIGHT["orange"],
        "random": LIGHT["amber"],
        "campaign": LIGHT["orange"],
    }
    figure.add_scatter(
        x=[100 * arm.rate for arm in rows],
        y=[_short(arm) for arm in rows],
        mode="markers",
        marker={"size": 12, "color": [colours[arm.kind] for arm in rows]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100 * (arm.high - arm.rate) for arm in rows],
            "arrayminus": [100 * (arm.rate - arm.low) for arm in rows],
            "color": LIGHT["soft"],
            "thickness": 1.6,
            "width": 5,
        },
        customdata=[
            [arm.discoveries, arm.relaxations, 100 * arm.low, 100 * arm.high] for arm in rows
        ],
        hovertemplate=(
            "%{customdata[0]} discoveries in %{customdata[1]} relaxations<br>"
            "%{x:.1f} per 100 (95 %: %{customdata[2]:.1f} to %{customdata[3]:.1f})<extra></extra>"
        ),
    )
    figure.update_xaxes(title_text="discoveries per 100 relaxations", rangemode="tozero")
    figure.update_yaxes(showgrid=False, ticks="")
    return figure


def generators_figure(summary: CampaignSummary) -> go.Figure | None:
    """Return each generator's proposals per iteration, and its discoveries; None without any."""
    rows = [row for row in summary.generators if row.proposed or row.share]
    if not rows:
        return None
    labels = list(dict.fromkeys(row.generator for row in rows))
    iterations = sorted({row.iteration for row in rows})
    totals = {k: sum(row.proposed for row in rows if row.iteration == k) for k in iterations}
    figure = blank_figure(360, barmode="stack", bargap=0.35)
    for number, label in enumerate(labels):
        own = {row.iteration: row for row in rows if row.generator == label}
        proposed = [own[k].proposed if k in own else 0 for k in iterations]
        figure.add_bar(
            x=[k + 1 for k in iterations],
            y=[
                100 * n / totals[k] if totals[k] else 0
                for n, k in zip(proposed, iterations, strict=True)
            ],
            name=label,
            marker={
                "color": CATEGORIES[number % len(CATEGORIES)],
                "line": {"color": LIGHT["card"], "width": 1},
            },
            text=[
                f"{own[k].discoveries} ◆" if k in own and own[k].discoveries else ""
                for k in iterations
            ],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": "#ffffff", "size": 12},
            customdata=[
                [own[k].proposed, own[k].relaxed, own[k].discoveries] if k in own else [0, 0, 0]
                for k in iterations
            ],
            hovertemplate=(
                f"<b>{label}</b>, iteration %{{x}}<br>%{{y:.0f}} % of proposals "
                "(%{customdata[0]})<br>%{customdata[1]} relaxed<br>"
                "%{customdata[2]} discoveries<extra></extra>"
            ),
        )
    figure.update_xaxes(title_text="iteration", dtick=1, showgrid=False)
    figure.update_yaxes(title_text="share of proposals (%)", range=[0, 100])
    return figure


def _add_band(figure: go.Figure, arm: Arm, total: int) -> None:
    figure.add_scatter(
        x=[0, total, total, 0],
        y=[0, arm.expected_high, arm.expected_low, 0],
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=LIGHT["wash"],
        name="95 % interval",
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=[0, total],
        y=[0, arm.expected],
        mode="lines",
        line={"color": LIGHT["faint"], "width": 1.5, "dash": "dash"},
        name=f"rate of the {_short(arm)}, 95 % interval",
        hoverinfo="skip",
    )


def _mark_iterations(figure: go.Figure, summary: CampaignSummary) -> None:
    ends: dict[int, int] = {}
    for point in summary.progress:
        ends[point.iteration] = point.spent.relaxations
    start = 0
    for iteration, end in ends.items():
        if end == start:
            continue
        if start:
            figure.add_vline(x=start, line={"color": LIGHT["line"], "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=(start + end) / 2,
            y=1,
            yref="y domain",
            text=str(iteration + 1),
            showarrow=False,
            yanchor="top",
            font={"size": 11, "color": LIGHT["faint"]},
        )
        start = end


def _short(arm: Arm) -> str:
    return {
        "all": "whole campaign",
        "feedback": "with feedback",
        "first": "first iteration",
        "random": "drawn by lot",
        "campaign": "baseline",
    }[arm.kind]
