"""What pydantic finds wrong in a campaign, said as a person would say it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from matloop.campaign_file.reading import FieldPath, Source
from matloop.documents.campaign import (
    Budget,
    Campaign,
    Feedback,
    GeneratorEntry,
    PluginUse,
    References,
    Stage,
    Stop,
)
from matloop.documents.faults import fault, is_no_number, shown
from matloop.documents.objective import Objective
from matloop.documents.space import ChemicalSpace
from matloop.errors import Mistake

# The model behind every mapping of the file; list positions are left out of the paths.
MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Campaign,
    ("space",): ChemicalSpace,
    ("objective",): Objective,
    ("references",): References,
    ("generators",): GeneratorEntry,
    ("stages",): Stage,
    ("stages", "evaluate"): PluginUse,
    ("stages", "select"): PluginUse,
    ("feedback",): Feedback,
    ("feedback", "learn"): PluginUse,
    ("feedback", "allocate"): PluginUse,
    ("budget",): Budget,
    ("stop",): Stop,
}


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` if one of the known words is near, else nothing."""
    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def choice(word: str, known: Iterable[str], what: str) -> str:
    """Return the near word if there is one, else all that are accepted."""
    names = sorted(known)
    near = suggestion(word, names)
    return near or f"; {what}: {', '.join(names) or 'none'}"


def field_names(model: type[BaseModel]) -> list[str]:
    """Return the fields of a model as a campaign file spells them."""
    return [info.alias or name for name, info in model.model_fields.items()]


def mistakes(error: ValidationError, source: Source) -> list[Mistake]:
    """Return what pydantic found, with lines and in plain words."""
    found: dict[FieldPath, list[str]] = {}
    words: dict[FieldPath, str] = {}
    for detail in error.errors():
        path = _path(detail["loc"], source)
        value = source.get(path)
        if detail["type"] == "literal_error":
            words[path] = detail["ctx"]["expected"]
        elif detail["type"] != "too_short" or not value:  # its items are wrong, it is not short
            found.setdefault(path, []).append(_message(detail, path, value))
    for path, accepted in words.items():
        value = source.get(path)
        if path in found:
            found[path][-1] += f"; or write {accepted}"
        elif not isinstance(value, dict):
            found[path] = [fault("literal_error", {"expected": accepted}, value)]
    return [source.mistake(path, message) for path in found for message in found[path]]


def truth_values(source: Source) -> list[Mistake]:
    """Return a mistake for every ``true`` or ``false`` that stands where a number belongs."""
    found = []
    for path in source.lines:
        value = source.get(path)
        if not isinstance(value, bool) or _names(path[:-1]) not in MODELS:
            continue
        for name, info in _model(path[:-1]).model_fields.items():
            if path[-1] == (info.alias or name) and is_no_number(info.annotation, value):
                found.append(source.mistake(path, fault("float", {}, value)))
    return found


def _path(location: FieldPath, source: Source) -> FieldPath:
    """Drop the steps that pydantic adds for the members of a union, such as ``literal['off']``."""
    path: FieldPath = ()
    for part in location:
        value = source.get(path)
        known = field_names(_model(path)) if _names(path) in MODELS else []
        is_field = isinstance(value, dict) and (part in value or part in known)
        if is_field or (isinstance(value, list) and isinstance(part, int)):
            path = (*path, part)
    return path


def _message(detail: ErrorDetails, path: FieldPath, value: Any) -> str:
    match detail["type"]:
        case "extra_forbidden":
            known = field_names(_model(path[:-1]))
            return f"there is no such field here{choice(str(path[-1]), known, 'fields are')}"
        case "missing":
            return f"missing; {_purpose(path)}"
        case "too_short":
            return "is empty; give at least one"
        case "string_pattern_mismatch":
            return (
                f"{shown(value)} must start with a letter or digit and hold only a-z, 0-9, - and _"
            )
        case "value_error":
            return str(detail["ctx"]["error"])
    return fault(detail["type"], detail.get("ctx", {}), value)


def _model(path: FieldPath) -> type[BaseModel]:
    return MODELS[_names(path)]


def _names(path: FieldPath) -> tuple[str, ...]:
    return tuple(part for part in path if isinstance(part, str))


def _purpose(path: FieldPath) -> str:
    """Say what a missing field is for, from the documentation of its model."""
    from matloop.registry import attribute_docs

    docs = attribute_docs(_model(path[:-1]).__doc__ or "")
    name = str(path[-1])
    text = docs.get(name, "").rstrip(".")
    return f"it says: {text[:1].lower() + text[1:]}" if text else f"add `{name}:`"
