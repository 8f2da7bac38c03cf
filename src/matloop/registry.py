"""Plugins by name: found through entry points, built-in ones exactly as an outsider's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any, Literal, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from matloop.documents.base import Scalar
from matloop.documents.faults import fault, is_no_number
from matloop.errors import ConfigurationError, Mistake

Kind = Literal[
    "generators",
    "evaluators",
    "engines",
    "selectors",
    "learners",
    "allocators",
    "models",
    "architectures",
]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a plugin, as `matloop plugins` shows it."""

    name: str
    type: str
    default: Scalar
    required: bool
    doc: str


@cache
def names(kind: Kind) -> dict[str, EntryPoint]:
    """Return the entry points of one kind, by name, sorted."""
    found = sorted(entry_points(group=f"matloop.{kind}"), key=lambda entry: entry.name)
    return {entry.name: entry for entry in found}


@cache
def load(kind: Kind, name: str) -> type[Any]:
    """Return the plugin class registered under a name.

    Raises
    ------
    ConfigurationError
        If nothing is registered under it; the message lists what is.
    """
    registered = names(kind)
    if name not in registered:
        known = ", ".join(registered) or "none"
        raise ConfigurationError(f"{name!r} is no {kind[:-1]}; registered are: {known}")
    return registered[name].load()  # type: ignore[no-any-return]


def name_of(kind: Kind, plugin: object) -> str:
    """Return the name a plugin is registered under; its class name if it is not."""
    cls = type(plugin)
    for name, entry in names(kind).items():
        if entry.value == f"{cls.__module__}:{cls.__qualname__}":
            return name
    return cls.__name__


def version_of(kind: Kind, name: str) -> str:
    """Return package and version that brought a plugin; empty if it came without a package."""
    entry = names(kind)[name]
    if entry.dist is None:
        return ""
    try:
        return f"{entry.dist.name} {version(entry.dist.name)}"
    except PackageNotFoundError:
        return ""


def build(kind: Kind, name: str, parameters: Mapping[str, Any]) -> Any:
    """Return a plugin made with checked parameters.

    Raises
    ------
    ConfigurationError
        With one mistake per parameter: unknown, missing, or of the wrong type or value.
    """
    plugin = load(kind, name)
    hints = get_type_hints(plugin)
    own = {item.name: item for item in fields(plugin) if item.init}
    mistakes: list[Mistake] = []
    values: dict[str, Any] = {}
    for key, value in parameters.items():
        if key not in own:
            known = ", ".join(own) or "none"
            mistakes.append(Mistake(key, f"{name} has no such parameter; it takes: {known}"))
            continue
        try:
            values[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            where, given = _inner(first["loc"], value)
            message = fault(first["type"], first.get("ctx", {}), given)
            mistakes.append(Mistake(key, f"{where}{message}"))
        else:
            if is_no_number(hints[key], value):
                mistakes.append(Mistake(key, fault("float", {}, value)))
    for key, item in own.items():
        if item.default is MISSING and item.default_factory is MISSING and key not in parameters:
            mistakes.append(Mistake(key, f"{name} needs this parameter"))
    if mistakes:
        raise ConfigurationError(mistakes)
    try:
        return plugin(**values)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def _inner(location: tuple[int | str, ...], value: Any) -> tuple[str, Any]:
    """Return which part of a value is wrong, and that part."""
    where = ""
    for step in location:
        if isinstance(value, Mapping) and step in value:
            value, where = value[step], f"{where}{step}: "
        elif isinstance(value, list | tuple) and isinstance(step, int):
            value, where = value[step], f"{where}item {step + 1} "
    return where, value


def parameters(kind: Kind, name: str) -> list[Parameter]:
    """Return the parameters of a plugin with their documentation."""
    plugin = load(kind, name)
    hints = get_type_hints(plugin)
    docs: dict[str, str] = {}
    for cls in reversed(plugin.__mro__):  # fields of a base are described there
        docs |= attribute_docs(cls.__doc__ or "")
    found = []
    for item in fields(plugin):
        if not item.init:
            continue
        default = item.default if item.default is not MISSING else None
        required = item.default is MISSING and item.default_factory is MISSING
        if item.default_factory is not MISSING:
            default = str(item.default_factory())
        found.append(
            Parameter(
                item.name, _type_name(hints[item.name]), default, required, docs.get(item.name, "")
            )
        )
    return found


def summary(kind: Kind, name: str) -> str:
    """Return the first line of a plugin's documentation."""
    return (load(kind, name).__doc__ or "").strip().splitlines()[0]


def _type_name(hint: Any) -> str:
    if getattr(hint, "__origin__", None) is Literal:
        return " | ".join(repr(value) for value in get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint)


def attribute_docs(docstring: str) -> dict[str, str]:
    """Return the documentation of each name in the Attributes section of a NumPy docstring."""
    docs: dict[str, str] = {}
    lines = docstring.splitlines()
    try:
        start = next(i for i, line in enumerate(lines) if line.strip() == "Attributes") + 2
    except StopIteration:
        return docs
    indent = len(lines[start]) - len(lines[start].lstrip()) if start < len(lines) else 0
    current: list[str] = []
    for index, line in enumerate(lines[start:], start):
        following = lines[index + 1].strip() if index + 1 < len(lines) else ""
        if following and set(following) == {"-"}:
            break
        if line.strip() and len(line) - len(line.lstrip()) == indent:
            current = [name.strip() for name in line.split(":")[0].split(",")]
        elif line.strip():
            for name in current:
                docs[name] = f"{docs.get(name, '')} {line.strip()}".strip()
    return docs
