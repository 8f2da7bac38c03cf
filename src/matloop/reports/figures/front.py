"""The Pareto front, and the volume it dominates after each iteration."""

from __future__ import annotations

import plotly.graph_objects as go

from matloop.reports.figures.theme import LIGHT, blank_figure
from matloop.reports.front import Front, FrontPoint, GoalShown


def front_figure(front: Front) -> go.Figure:
    """Return the first two goals of every judged crystal; a third one is the colour of the front.

    Parameters
    ----------
    front
        The front.
    """
    first, second, *third = front.goals
    figure = blank_figure(430)
    if front.others:
        figure.add_scatter(
            x=[values[0] for values in front.others],
            y=[values[1] for values in front.others],
            mode="markers",
            marker={"size": 5, "color": LIGHT["grey"]},
            name=f"dominated, {len(front.others)}",
            hoverinfo="skip",
        )
    if not third:
        _stairs(figure, front)
    for label, symbol, own in (
        ("discovery", "star", [p for p in front.points if p.discovery]),
        ("on the front", "circle", [p for p in front.points if not p.discovery]),
    ):
        if not own:
            continue
        colour = [p.values[2] for p in own] if third else LIGHT["blue"]
        figure.add_scatter(
            x=[p.values[0] for p in own],
            y=[p.values[1] for p in own],
            mode="markers",
            marker={
                "symbol": symbol,
                "size": 13 if symbol == "star" else 9,
                "color": colour,
                "line": {"color": LIGHT["card"], "width": 1.2},
                **({"coloraxis": "coloraxis"} if third else {}),
            },
            name=f"{label}, {len(own)}",
            text=[_told(p, front) for p in own],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.add_scatter(
        x=[first.reference],
        y=[second.reference],
        mode="markers",
        marker={"symbol": "x-thin", "size": 10, "line": {"color": LIGHT["soft"], "width": 1.6}},
        name="reference point",
        hoverinfo="skip",
    )
    if third:
        figure.update_layout(
            coloraxis={"colorscale": "Viridis", "colorbar": {"title": axis_title(third[0])}}
        )
    figure.update_xaxes(title_text=axis_title(first))
    figure.update_yaxes(title_text=axis_title(second))
    return figure


def volume_figure(front: Front) -> go.Figure | None:
    """Return the dominated volume after each iteration; None for a single iteration."""
    if len(front.volumes) < 2:
        return None
    figure = blank_figure(430, showlegend=False)
    figure.add_scatter(
        x=list(range(1, len(front.volumes) + 1)),
        y=list(front.volumes),
        mode="lines+markers",
        line={"color": LIGHT["blue"], "width": 3, "shape": "hv"},
        marker={"size": 7},
        hovertemplate="after iteration %{x}: %{y:.4g}<extra></extra>",
    )
    figure.update_xaxes(title_text="iteration", dtick=max(len(front.volumes) // 10, 1))
    figure.update_yaxes(title_text=f"volume dominated ({front.unit})", rangemode="tozero")
    return figure


def axis_title(goal: GoalShown) -> str:
    """Return what stands at the axis of a goal."""
    name = goal.text.replace("_", " ")
    return f"{name} ({goal.unit})" if goal.unit else name


def _stairs(figure: go.Figure, front: Front) -> None:
    """Draw the edge of what two goals dominate, within the reference point."""
    first, second = front.goals
    corners = [p.values for p in front.points]
    if not corners:
        return
    ordered = sorted(corners, key=lambda v: v[0], reverse=first.direction == "maximize")
    x, y = [ordered[0][0]], [second.reference]
    for values, following in zip(ordered, [*ordered[1:], None], strict=True):
        x += [values[0], following[0] if following else first.reference]
        y += [values[1], values[1]]
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": LIGHT["tint"], "width": 1.6},
        hoverinfo="skip",
        showlegend=False,
    )


def _told(point: FrontPoint, front: Front) -> str:
    values = "<br>".join(
        f"{axis_title(goal)}: {value:.4g}"
        for goal, value in zip(front.goals, point.values, strict=True)
    )
    return (
        f"<b>{point.formula}</b> {point.space_group}<br>{values}<br>iteration {point.iteration + 1}"
    )
