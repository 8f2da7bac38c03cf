"""The funnel adds up, and reasons are merged without losing any."""

from itertools import pairwise

from matloop.reports.funnel import merge_reasons


def test_every_row_accounts_for_all_who_entered(summaries):
    """Entered = passed + rejected + failed + held + pending, and reasons cover the decided."""
    for summary in summaries.values():
        assert summary.funnel
        for row in (*summary.funnel, *summary.totals):
            decided = row.passed + row.rejected + row.failed + row.held
            assert row.entered == decided + row.pending
            assert sum(reason.count for reason in row.reasons) == decided


def test_what_passed_one_stage_entered_the_next(summaries):
    """Within an iteration no candidate vanishes between two stages."""
    for summary in summaries.values():
        for before, after in pairwise(summary.funnel):
            if before.iteration == after.iteration:
                assert after.entered == before.passed
        for before, after in pairwise(summary.totals):
            assert after.entered == before.passed


def test_totals_are_the_sums_of_iterations(summaries):
    """Counts and cost over all iterations are those of the single ones."""
    summary = summaries["finished"]
    for total in summary.totals:
        rows = [row for row in summary.funnel if row.stage == total.stage]
        assert len(rows) == summary.iterations
        for field in ("entered", "passed", "rejected", "failed", "held", "pending"):
            assert getattr(total, field) == sum(getattr(row, field) for row in rows)
        assert total.spent.work == sum(row.spent.work for row in rows)


def test_a_running_iteration_has_pending_candidates_only_after_its_last_decision(summaries):
    """Candidates of an unfinished iteration wait at the stage that has not decided."""
    rows = [row for row in summaries["running"].funnel if row.iteration == 1]
    assert [row.pending for row in rows] == [0, rows[0].passed, 0]
    assert rows[0].passed > 0


def test_reasons_differing_in_numbers_are_one_with_a_range():
    """A number common to all stays, one that differs becomes a range; the count is kept."""
    (merged,) = merge_reasons(
        [
            ("rejected", "two sites are 0.31 Å apart, nearer than 0.5 Å"),
            ("rejected", "two sites are 0.48 Å apart, nearer than 0.5 Å"),
        ]
    )
    assert merged.count == 2
    assert merged.reason == "two sites are 0.31 to 0.48 Å apart, nearer than 0.5 Å"


def test_reasons_differing_in_identifiers_are_one():
    """Names of other candidates do not split a reason, units with digits stay."""
    merged = merge_reasons(
        [
            ("rejected", "repeats SrTiO3-142e4de4 of the archive, density 5.1 g/cm^3"),
            ("rejected", "repeats Sr2TiO4-8176aefd of the archive, density 5.1 g/cm^3"),
            ("failed", "repeats Sr2TiO4-8176aefd of the archive, density 5.1 g/cm^3"),
        ]
    )
    assert [(item.outcome, item.count) for item in merged] == [("rejected", 2), ("failed", 1)]
    assert merged[0].reason == "repeats … of the archive, density 5.1 g/cm^3"
