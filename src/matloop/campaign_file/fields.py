"""What pydantic finds wrong in a campaign, said as a person would say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    TaskCollection,
)
from matloop.documents.faults import fault, is_no_number, shown
from matloop.documents.objective import Objective
from matloop.documents.space import ChemicalSpace
from matloop.errors import Mistake

Models = Mapping[tuple[str, ...], type[BaseModel]]
"""The model behind every mapping of a file.

List positions are left out of the paths; ``*`` stands for names that the user chooses.
"""

MODELS: Models = {
    (): Campaign,
    ("space",): ChemicalSpace,
    ("objective",): Objective,
    ("references",): References,
    ("references", "tasks"): TaskCollection,
    ("generators",): GeneratorEntry,
    ("stages",): Stage,
    ("stages", "evaluate"): PluginUse,
    ("stages", "select"): PluginUse,
    ("stages", "calculate"): PluginUse,
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


def mistakes(error: ValidationError, source: Source, models: Models = MODELS) -> list[Mistake]:
    """Return what pydantic found, with lines and in plain words.

    Parameters
    ----------
    error
        What pydantic found.
    source
        The file.
    models
        The models behind the file; by default those of a campaign file.
    """
    found: dict[FieldPath, list[str]] = {}
    words: dict[FieldPath, str] = {}
    for detail in error.errors():
        path = _path(detail["loc"], source, models)
        value = path[-1] if detail["loc"][-1:] == ("[key]",) else source.get(path)
        if detail["type"] == "literal_error":
            words[path] = detail["ctx"]["expected"]
        elif detail["type"] != "too_short" or not value:  # its items are wrong, it is not short
            found.setdefault(path, []).append(_message(detail, path, value, models))
    for path, accepted in words.items():
        value = source.get(path)
        if path in found:
            found[path][-1] += f"; or write {accepted}"
        elif not isinstance(value, dict):
            found[path] = [fault("literal_error", {"expected": accepted}, value)]
    return [source.mistake(path, message) for path in found for message in found[path]]


def truth_values(source: Source, models: Models = MODELS) -> list[Mistake]:
    """Return a mistake for every ``true`` or ``false`` that stands where a number belongs."""
    found = []
    for path in source.lines:
        value = source.get(path)
        model = _model(path[:-1], models)
        if not isinstance(value, bool) or model is None:
            continue
        for name, info in model.model_fields.items():
            if path[-1] == (info.alias or name) and is_no_number(info.annotation, value):
                found.append(source.mistake(path, fault("float", {}, value)))
    return found


def _path(location: FieldPath, source: Source, models: Models) -> FieldPath:
    """Drop the steps that pydantic adds for the members of a union, such as ``literal['off']``."""
    path: FieldPath = ()
    for part in location:
        value = source.get(path)
        model = _model(path, models)
        known = field_names(model) if model else []
        is_field = isinstance(value, dict) and (part in value or part in known)
        if is_field or (isinstance(value, list) and isinstance(part, int)):
            path = (*path, part)
    return path


def _message(detail: ErrorDetails, path: FieldPath, value: Any, models: Models) -> str:
    model = _model(path[:-1], models)
    match detail["type"]:
        case "extra_forbidden" if model:
            known = field_names(model)
            return f"there is no such field here{choice(str(path[-1]), known, 'fields are')}"
        case "missing":
            return f"missing; {_purpose(model, str(path[-1]))}"
        case "too_short":
            return "is empty; give at least one"
        case "string_pattern_mismatch":
            return (
                f"{shown(value)} must start with a letter or digit and hold only a-z, 0-9, - and _"
            )
        case "value_error":
            return str(detail["ctx"]["error"])
    return fault(detail["type"], detail.get("ctx", {}), value)


def _model(path: FieldPath, models: Models) -> type[BaseModel] | None:
    """Return the model behind a mapping, None where the file may say anything."""
    names = tuple(part for part in path if isinstance(part, str))
    for known, model in models.items():
        if len(known) == len(names) and all(
            name in (word, "*") for name, word in zip(known, names, strict=True)
        ):
            return model
    return None


def _purpose(model: type[BaseModel] | None, name: str) -> str:
    """Say what a missing field is for, from the documentation of its model."""
    from matloop.registry import attribute_docs

    docs = attribute_docs(model.__doc__ or "") if model else {}
    text = docs.get(name, "").rstrip(".")
    return f"it says: {text[:1].lower() + text[1:]}" if text else f"add `{name}:`"
