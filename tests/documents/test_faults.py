"""Wrong values, said in plain words."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from matloop.documents.faults import fault, is_no_number


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, "six", "must be a whole number, got 'six'"),
        (int, 1.5, "must be a whole number, got 1.5"),
        (float, None, "must be a number, got nothing"),
        (bool, "perhaps", "must be true or false, got 'perhaps'"),
        (str, 3, "must be text, got 3"),
        (list[str], "a.cif", "must be a list; write [a.cif]"),
        (tuple[str, ...], 3, "must be a list, got 3"),
        (dict[str, int], 3, "must hold fields, one `name: value` per line, got 3"),
        (Literal["fire", "bfgs"], "lbfgs", "'lbfgs' is not accepted; write 'fire' or 'bfgs'"),
        (Annotated[int, Field(le=1_000_000)], 10**7, "must be at most 1000000, got 10000000"),
        (Annotated[float, Field(gt=0)], -0.5, "must be more than 0, got -0.5"),
        (Annotated[str, Field(max_length=2)], "abc", "must have at most 2 characters, has 3"),
        (int, "x" * 500, f"must be a whole number, got '{'x' * 79}..."),
    ],
)
def test_a_fault_says_what_would_be_right(annotation: object, value: object, expected: str) -> None:
    """Each kind of error that pydantic finds becomes one short sentence."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(annotation).validate_python(value)
    (detail,) = caught.value.errors()
    assert fault(detail["type"], detail.get("ctx", {}), value) == expected


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, True, True),
        (float | None, False, True),
        (Literal["auto"] | Annotated[int, Field(ge=0)], True, True),
        (bool, True, False),
        (bool | int, True, False),
        (int, 1, False),
        (str, True, False),
    ],
)
def test_truth_is_no_number(annotation: object, value: object, expected: bool) -> None:
    """Python counts True as 1; a campaign file does not."""
    assert is_no_number(annotation, value) is expected
