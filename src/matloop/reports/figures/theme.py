"""Colours and layout that all figures share, for a light and a dark page.

Figures are drawn in the light colours; the page swaps each for its dark counterpart where the
reader prefers a dark page. The categorical colours are those of Okabe and Ito, which readers with
any common colour-vision deficiency can tell apart (jfly.uni-koeln.de/color), darkened or lightened
for contrast with the page.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

LIGHT = {
    "paper": "#fcfcfa",
    "card": "#ffffff",
    "ink": "#1b1e23",
    "soft": "#565d68",
    "faint": "#8d939d",
    "line": "#e3e4e1",
    "wash": "#f1f2ef",
    "blue": "#0067a8",
    "orange": "#c85200",
    "green": "#00805c",
    "amber": "#d79300",
    "purple": "#b3588d",
    "sky": "#4ba3d8",
    "grey": "#a4a9b0",
    "tint": "#8fc4e8",
    "scale-near": "#00306b",
    "scale-nearer": "#2f7fb8",
    "scale-farther": "#d6a23a",
    "scale-far": "#f0d896",
}
DARK = {
    "paper": "#14161a",
    "card": "#1c1f25",
    "ink": "#eceef1",
    "soft": "#b1b7c0",
    "faint": "#828995",
    "line": "#32363e",
    "wash": "#242830",
    "blue": "#58aef0",
    "orange": "#ff8a42",
    "green": "#2fc79a",
    "amber": "#f2b632",
    "purple": "#de8fbe",
    "sky": "#8fd0f7",
    "grey": "#6d7480",
    "tint": "#2a6496",
    "scale-near": "#8accff",
    "scale-nearer": "#4593cb",
    "scale-farther": "#b5852d",
    "scale-far": "#6b5426",
}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

OUTCOMES = {
    "passed": LIGHT["blue"],
    "rejected": LIGHT["grey"],
    "failed": LIGHT["orange"],
    "held": LIGHT["amber"],
    "pending": LIGHT["line"],
}
CATEGORIES = tuple(LIGHT[name] for name in ("blue", "orange", "green", "amber", "purple", "sky"))


def blank_figure(height: int = 380, **layout: Any) -> go.Figure:
    """Return an empty figure in the house style.

    Parameters
    ----------
    height
        Pixels.
    layout
        Further plotly layout settings.
    """
    axis = {
        "gridcolor": LIGHT["line"],
        "linecolor": LIGHT["faint"],
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": LIGHT["faint"],
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
    }
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 12, "r": 12, "t": 12, "b": 12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": LIGHT["soft"]},
        xaxis=axis,
        yaxis=axis,
        legend={
            "orientation": "h",
            "traceorder": "normal",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "xanchor": "left",
        },
        hoverlabel={
            "bgcolor": LIGHT["card"],
            "bordercolor": LIGHT["faint"],
            "font": {"color": LIGHT["ink"], "family": FONT},
            "align": "left",
        },
    )
    figure.update_layout(**layout)
    return figure


def mixed(start: str, end: str, share: float) -> str:
    """Return the hex colour that lies `share` of the way from one to another."""
    a, b = (tuple(int(text[i : i + 2], 16) for i in (1, 3, 5)) for text in (start, end))
    return "#" + "".join(f"{round(x + (y - x) * share):02x}" for x, y in zip(a, b, strict=True))


def html_formula(formula: str) -> str:
    """Return a formula with its numbers as subscripts, for plotly text and HTML.

    Only letters, digits, dots and brackets are kept, so the result is safe in a page.
    """
    parts = []
    digits = ""
    for character in formula + " ":
        if character.isdigit() or (character == "." and digits):
            digits += character
            continue
        if digits:
            parts.append(f"<sub>{digits}</sub>")
            digits = ""
        if character.isalpha() or character in "()-":
            parts.append(character)
    return "".join(parts)
