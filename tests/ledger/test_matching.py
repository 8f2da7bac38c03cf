"""Filters, projections and sorting in memory follow MongoDB."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from maggma.core import StoreError
from maggma.stores import MemoryStore

from matloop.ledger.matching import check_criteria, in_utc, matches, project, sort_documents

DOCUMENT = {"a": {"b": 1, "c": [2, 3]}, "list": [{"x": 1, "y": 2}, {"x": 3}], "z": None}


@pytest.mark.parametrize(
    "properties",
    [["a"], ["a.b", "z"], ["list.x"], {"a.c": 1, "_id": 0}, {"a": 0}, {"list.x": 0, "a.b": 0}],
)
def test_projections_agree_with_the_memory_store(properties):
    """Choosing and leaving out fields gives what maggma's memory store gives."""
    store = MemoryStore(key="z")
    store.connect()
    store.update([DOCUMENT])
    wanted = properties if isinstance(properties, dict) else dict.fromkeys(properties, 1)
    expected = store.query_one(properties={**wanted, "_id": 0})
    assert project(DOCUMENT, properties) == expected


def test_unclear_projections_are_refused():
    """Including some fields and excluding others has no meaning."""
    with pytest.raises(StoreError, match="exclude"):
        project(DOCUMENT, {"a": 1, "z": 0})
    with pytest.raises(StoreError, match="projection"):
        project(DOCUMENT, {"a": "$z"})


@pytest.mark.parametrize(
    "criteria",
    [{"a": {"$grater": 1}}, {"$where": "True"}, {"$xor": [{}]}, {"$or": [{"a": {"$near": 1}}]}],
)
def test_unknown_operators_are_refused_before_reading(criteria):
    """A misspelt operator is an error even where no document would meet it; no code is run."""
    with pytest.raises(StoreError):
        check_criteria(criteria)


def test_sorting_is_stable_and_puts_missing_first():
    """Ties keep their order; null and missing values come first, as in MongoDB."""
    documents = [{"n": 0, "a": 2}, {"n": 1, "a": 1}, {"n": 2}, {"n": 3, "a": 1}]
    assert [d["n"] for d in sort_documents(documents, [("a", 1)])] == [2, 1, 3, 0]
    assert [d["n"] for d in sort_documents(documents, [("a", -1), ("n", -1)])] == [0, 3, 1, 2]


def test_dates_in_filters_may_have_any_zone():
    """A date with a time zone finds the instant it names."""
    date = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    stored = date.astimezone(UTC).replace(tzinfo=None)
    assert matches(in_utc({"at": {"$in": [date]}}), {"at": stored})
    assert not matches(in_utc({"at": {"$gt": date}}), {"at": stored})
