"""What pydantic finds wrong with a single value, said as a person would say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

_LONGEST = 80

_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_WANTED = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "tuple": "must be a list",
    "list": "must be a list",
    "model": "must hold fields, one `name: value` per line",
    "dict": "must hold fields, one `name: value` per line",
}


def fault(kind: str, context: Mapping[str, Any], value: Any) -> str:
    """Say what is wrong with a value and what would be right.

    Parameters
    ----------
    kind
        Type of the error, as pydantic calls it.
    context
        What pydantic adds to it.
    value
        The value that was given.
    """
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"must be {words} {context[key]:.15g}, got {shown(value)}"
    if kind == "literal_error":
        return f"{shown(value)} is not accepted; write {context['expected']}"
    if kind == "string_too_long":
        return f"must have at most {context['max_length']} characters, has {len(value)}"
    wanted = next(
        (words for start, words in _WANTED.items() if kind.startswith(start)),
        kind.replace("_", " "),
    )
    if wanted == "must be a list" and isinstance(value, str):
        return f"{wanted}; write [{shown(value)[1:-1]}]"
    return f"{wanted}, got {shown(value)}"


def shown(value: Any) -> str:
    """Return a value as a message quotes it."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def is_no_number(annotation: Any, value: Any) -> bool:
    """Whether a truth value is given for a number, which Python itself would take for 0 or 1."""
    types = set(_members(annotation))
    return isinstance(value, bool) and bool not in types and not types.isdisjoint({int, float})


def _members(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    else:
        yield annotation
