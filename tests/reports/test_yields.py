"""Yields, their intervals and comparisons."""

import pytest

from matloop.reports.contents import ProgressPoint, Spent
from matloop.reports.yields import versus, wilson_interval


def curve(*steps: tuple[int, int]) -> tuple[ProgressPoint, ...]:
    return tuple(
        ProgressPoint(iteration=0, spent=Spent(relaxations=n), discoveries=k) for n, k in steps
    )


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval_agrees_with_published_values(successes, trials, low, high):
    """Wilson intervals at 95 % are those of the closed formula, exact at the ends."""
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)
    if successes == 0:
        assert wilson_interval(successes, trials)[0] == 0.0


def test_progress_ends_with_the_cost_and_discoveries_of_the_campaign(summaries):
    """The curve starts at nothing, never falls, and ends at the totals."""
    for summary in summaries.values():
        points = summary.progress
        assert points[0].discoveries == points[0].spent.relaxations == 0
        assert [p.discoveries for p in points] == sorted(p.discoveries for p in points)
        assert [p.spent.work for p in points] == sorted(p.spent.work for p in points)
        assert points[-1].discoveries == len(summary.discoveries)
        assert points[-1].spent.relaxations == summary.spent.relaxations


def test_arms_split_the_campaign_without_overlap(summaries):
    """First iteration and the rest add up to the whole, and the rate is within its interval."""
    arms = {arm.kind: arm for arm in summaries["finished"].arms}
    for field in ("discoveries", "hits", "relaxations"):
        parts = getattr(arms["first"], field) + getattr(arms["feedback"], field)
        assert parts == getattr(arms["all"], field)
    assert arms["all"].expected == pytest.approx(len(summaries["finished"].discoveries))
    assert arms["random"].relaxations == 8  # four by lot in each iteration after the first
    for arm in arms.values():
        assert arm.low <= arm.rate <= arm.high


def test_generator_rows_add_up_to_the_campaign(summaries):
    """Proposals, discoveries and work of all generators are those of the campaign."""
    summary = summaries["finished"]
    assert sum(row.proposed for row in summary.generators) == summary.totals[0].entered
    assert sum(row.discoveries for row in summary.generators) == len(summary.discoveries)
    assert sum(row.relaxed for row in summary.generators) == summary.spent.relaxations
    assert sum(row.spent.work for row in summary.generators) == summary.spent.work
    for iteration in range(summary.iterations):
        shares = [row.share for row in summary.generators if row.iteration == iteration]
        assert sum(shares) == pytest.approx(1.0)


def test_comparison_is_made_at_equal_cost(summaries):
    """Enhancement counts both at the smaller budget; acceleration at the baseline's last count."""
    own = curve((0, 0), (10, 4), (20, 8), (100, 9))
    base = summaries["finished"].model_copy(update={"progress": curve((0, 0), (30, 2), (40, 4))})
    result = versus(own, base)
    assert (result.relaxations, result.own, result.baseline) == (40, 8, 4)
    assert result.enhancement == 2.0
    assert result.acceleration == 4.0


def test_a_count_never_reached_accelerates_nothing(summaries):
    """Acceleration is 0 where the baseline found more, and unknown where it found nothing."""
    own = curve((0, 0), (50, 1))
    better = summaries["finished"].model_copy(update={"progress": curve((0, 0), (50, 3))})
    nothing = summaries["finished"].model_copy(update={"progress": curve((0, 0), (50, 0))})
    assert versus(own, better).acceleration == 0.0
    assert versus(own, nothing).acceleration is None
    assert versus(own, nothing).enhancement is None
