"""The hull is drawn in the form that suits the system."""

from itertools import pairwise

import pytest

from matloop.documents.objective import Objective
from matloop.reports.contents import HullPoint
from matloop.reports.figures.hull import (
    hull_figure,
    hull_is_subsystems,
    hull_threshold,
    stable_phases,
)
from matloop.reports.figures.labels import placed_labels


def test_each_number_of_elements_has_its_form(summaries):
    """Two elements give axes, three a triangle, four columns per subsystem."""
    types = {
        name: {trace.type for trace in hull_figure(summaries[name]).data}
        for name in ("binary", "finished", "quaternary")
    }
    assert types["binary"] == {"scatter"}
    assert types["finished"] == {"scatterternary"}
    assert types["quaternary"] == {"scatter"}
    assert hull_is_subsystems(summaries["quaternary"])
    columns = hull_figure(summaries["quaternary"]).layout.xaxis.ticktext
    assert {"Li-O", "Li-Mn-O"} <= set(columns)


def test_the_binary_hull_is_convex_and_below_every_point(summaries):
    """The line's slopes rise, and no crystal lies under it."""
    summary = summaries["binary"]
    line = hull_figure(summary).data[0]
    steps = list(zip(line.x, line.y, strict=True))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(steps)]
    assert slopes == sorted(slopes)
    assert all(point.e_above_hull >= -1e-9 for point in summary.hull.points)


def test_the_triangle_ties_stable_phases_only(summaries):
    """Ends of tie lines are compositions of phases on the hull; discoveries are all shown."""
    summary = summaries["finished"]
    figure = hull_figure(summary)
    stable = {
        tuple(round(p.fractions.get(e, 0.0), 6) for e in summary.hull.elements)
        for p in stable_phases(summary.hull.points)
    }
    lines = figure.data[0]
    ends = {
        (round(b, 6), round(c, 6), round(a, 6))
        for a, b, c in zip(lines.a, lines.b, lines.c, strict=True)
        if a is not None
    }
    assert ends == stable
    shown = sum(len(t.a) for t in figure.data if t.name in ("discovery", "rediscovered"))
    assert shown == len(summary.discoveries)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("e_above_hull <= 0.05 eV/atom", 0.05),
        ("e_above_hull < 25 meV/atom", 0.025),
        ("bulk_modulus > 300 GPa", None),
    ],
)
def test_the_threshold_is_read_from_the_criterion(criterion, expected):
    """A distance in eV or meV per atom is drawn as a line, another criterion is not."""
    objective = Objective(minimize="e_above_hull", discovery=criterion)
    assert hull_threshold(objective) == (pytest.approx(expected) if expected else None)


def test_labels_do_not_cover_each_other():
    """Of many crowded phases some stay unnamed, and every element is named."""

    def point(a: float, b: float) -> HullPoint:
        fractions = {"Sr": a, "Ti": b, "O": 1 - a - b}
        return HullPoint(
            point_id=f"{a}{b}",
            formula="Sr10Ti11O12",
            fractions={name: x for name, x in fractions.items() if x > 0},
            e_form=-3.0,
            e_above_hull=0.0,
            source="found",
        )

    crowd = [point(0.2 + 0.01 * i, 0.2) for i in range(10)]
    corners = [point(1, 0), point(0, 1), point(0, 0)]
    placed = placed_labels([*crowd, *corners], [], "Ti", "O")
    named = [p.point_id for labels in placed.values() for p, _ in labels]
    assert {p.point_id for p in corners} <= set(named)
    assert len(corners) < len(named) < len(crowd) + len(corners)
