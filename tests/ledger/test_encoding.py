"""Documents come back as they were written."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st
from maggma.core import StoreError
from pymatgen.core import Lattice

from matloop.ledger.encoding import date_text, decode, encode

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.datetimes(min_value=datetime(1000, 1, 1)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text().filter(lambda k: not k.startswith("$")), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.text().filter(lambda k: not k.startswith("$")), VALUES, max_size=4))
def test_documents_come_back_equal(document):
    """Any document of JSON values and dates comes back equal, and is valid JSON."""
    text = encode(document)
    json.loads(text, parse_constant=pytest.fail)
    assert decode(text) == document


@given(st.floats())
def test_floats_keep_their_bits(value):
    """Every double, NaN and infinities included, comes back as the same number."""
    back = decode(encode({"value": value}))["value"]
    if math.isnan(value):
        assert math.isnan(back)
    else:
        assert struct.pack("<d", back) == struct.pack("<d", value)


def test_dates_are_instants():
    """A date with a time zone comes back as the same instant in UTC, and texts sort as time."""
    date = datetime(2026, 1, 1, 0, 30, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    back = decode(encode({"at": date}))["at"]
    assert back.replace(tzinfo=UTC) == date
    assert back.tzinfo is None
    days = [datetime(2026, 1, 1), datetime(2026, 1, 1, 0, 0, 0, 1), datetime(2026, 1, 2)]
    assert sorted(map(date_text, days)) == list(map(date_text, days))


def test_other_objects_are_stored_in_json_form():
    """Object ids and bytes come back; numpy values and MSONable objects become JSON."""
    oid = ObjectId()
    document = {
        "_ref": oid,
        "raw": b"\x00\xff",
        "array": np.array([1.5, np.nan]),
        "number": np.float64(0.1),
        "integer": np.int64(7),
        "lattice": Lattice.cubic(3.0),
        1: "a key that is no text",
    }
    back = decode(encode(document))
    assert back["_ref"] == oid
    assert back["raw"] == b"\x00\xff"
    assert back["array"][0] == 1.5
    assert math.isnan(back["array"][1])
    assert (back["number"], back["integer"]) == (0.1, 7)
    assert Lattice.from_dict(back["lattice"]) == Lattice.cubic(3.0)
    assert back["1"] == "a key that is no text"


def test_what_cannot_be_stored_is_refused():
    """Objects without JSON form, and keys that would be read back as something else, are named."""
    with pytest.raises(StoreError, match="object"):
        encode({"value": object()})
    with pytest.raises(StoreError, match=r"\$date"):
        encode({"value": {"$date": "tomorrow"}})
    assert decode(encode({"value": "$date", "query": {"$gt": 1}})) == {
        "value": "$date",
        "query": {"$gt": 1},
    }
