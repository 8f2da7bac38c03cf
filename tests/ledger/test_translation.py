"""SQL finds exactly the documents that the matcher finds."""

from __future__ import annotations

import random
from datetime import datetime

import pytest
from maggma.core import StoreError
from maggma.stores import MemoryStore

from matloop.ledger.sqlite import SQLiteStore
from matloop.ledger.translation import translate

PLAIN = [
    *(None, 0, 1, 1.0, -1, 2.5, 0.1 + 0.2, 0.3, -0.3, 2**60, 1e300),
    *("", "a", "b", "1", "{", '{"$date":"2026-01-01T00:00:00.000000"}', "\u00e9"),
    *(datetime(2026, 1, 1), datetime(2026, 1, 1, 0, 0, 0, 1000)),
]
ODD = [True, False, float("inf"), "a\0b", [], ["a"], [0.3, None], {"b": 1}, [{"b": 1}, {"b": "a"}]]
OPERATORS = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]


@pytest.fixture
def stores(tmp_path):
    indexed = SQLiteStore(tmp_path / "s.sqlite", "things", key="n")
    reference = MemoryStore(key="n")
    with indexed:
        reference.connect()
        for fields in ("a", "a.b", ["c", "a"]):
            indexed.ensure_index(fields)
        yield indexed, reference


def _fill(stores, documents):
    for store in stores:
        store.update([{**document, "n": n} for n, document in enumerate(documents)])


def _check(stores, criteria):
    indexed, reference = stores
    expected = sorted(document["n"] for document in reference.query(criteria))
    assert [document["n"] for document in indexed.query(criteria)] == expected, criteria
    assert indexed.count(criteria) == len(expected)


@pytest.mark.parametrize("odd", [[], *[[value] for value in ODD]])
def test_indexes_change_no_answer(stores, odd):
    """Every operator with every value finds what maggma's memory store finds.

    Whether the indexed field holds only values that SQL compares, or also one that it cannot.
    """
    _fill(stores, [{}, *[{"a": value} for value in PLAIN + odd]])
    assert stores[0]._indexes.usable("a") == (not odd)
    for value in [*PLAIN, True, float("inf"), "a\0b", ["a"], {"b": 1}]:
        for criteria in [value, {"$in": [value]}, *[{operator: value} for operator in OPERATORS]]:
            _check(stores, {"a": criteria})
    _check(stores, {"a": {"$in": PLAIN}})
    _check(stores, {"a": {"$exists": False}})


@pytest.mark.parametrize("inner", [PLAIN, [*PLAIN, True, ["a"]]])
def test_nested_fields(stores, inner):
    """The same holds below a field, also where a list or a plain value is in between."""
    _fill(stores, [{"a": {"b": value}} for value in inner] + [{"a": 1}, {}])
    for value in PLAIN:
        _check(stores, {"a.b": value})
    stores[0].update({"n": 99, "a": [{"b": "a"}, {"b": 7}]})
    stores[1].update({"n": 99, "a": [{"b": "a"}, {"b": 7}]})
    for value in [*PLAIN, 7]:
        _check(stores, {"a.b": value})


def test_combinations(stores):
    """Filters of several fields, ranges and alternatives find the same documents."""
    chance = random.Random(1)
    _fill(stores, [{"a": chance.choice(PLAIN), "c": chance.randrange(4)} for _ in range(200)])

    def clause() -> dict[str, object]:
        low, high = chance.sample([-1, 0, 0.3, 1, 2.5, 3, "a", "b"], 2)
        return chance.choice(
            [
                {"a": {"$gte": low, "$lt": high}},
                {"c": chance.randrange(4), "a": {"$in": chance.sample(PLAIN, 3)}},
                {"c": {"$in": [1, 2]}, "a": {"$ne": low}},
                {"a": chance.choice(PLAIN)},
            ]
        )

    for _ in range(40):
        _check(stores, clause())
        _check(stores, {"$and": [clause(), clause()]})
        _check(stores, {"$or": [clause(), clause()], "c": {"$gt": 0}})


def test_what_is_exact_is_left_to_sql():
    """Equality of texts and integers needs no matcher; ranges and fractions are checked again."""
    exact = translate({"a": "x", "b": 7, "c": {"$in": ["x", 3]}}, lambda field: True)
    assert not exact.rest
    assert len(exact.conditions) == 3
    nearly = translate({"a": 0.5, "b": {"$gt": 3}}, lambda field: True)
    assert nearly.rest == {"a": 0.5, "b": {"$gt": 3}}
    assert nearly.conditions
    assert translate({"a": "x"}, lambda field: False).conditions == []


def test_field_names_cannot_carry_sql():
    """A field name with quotes is refused, not executed."""
    with pytest.raises(StoreError, match="cannot index"):
        translate({"a') OR ('1'='1": 1}, lambda field: True)
