"""YAML with line numbers: every value of a campaign file together with the line it stands in.

Campaign files follow the core schema of YAML 1.2, so that ``off``, ``no`` and ``N`` are words
(nitrogen among them) and ``1e-3`` is a number. Anchors, merges and tags are refused: a campaign
file says what it means where it means it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from matloop.errors import ConfigurationError, Mistake

FieldPath = tuple[str | int, ...]

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MOST_BYTES = 1_000_000
_MOST_DIGITS = 18
_STANDARD = "tag:yaml.org,2002:"
_TAGS = {f"{_STANDARD}{kind}" for kind in ("map", "seq", "str")}


@dataclass(frozen=True)
class Source:
    """What a file holds.

    Attributes
    ----------
    value
        Mappings, lists and scalars as written; None where nothing could be read.
    lines
        Line of every field and list item, counted from 1, by its path.
    mistakes
        What could not be read.
    """

    value: Any
    lines: Mapping[FieldPath, int]
    mistakes: list[Mistake]

    def line(self, path: FieldPath) -> int | None:
        """Return the line of a field, or of the nearest field around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def get(self, path: FieldPath) -> Any:
        """Return the value at a path; None where there is none."""
        value = self.value
        for part in path:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def mistake(self, path: FieldPath, message: str) -> Mistake:
        """Return a mistake that knows its line."""
        return Mistake(dotted(path), message, self.line(path))


def dotted(path: FieldPath) -> str:
    """Return a path as people write it: ``stages[2].select.use``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def text_of(path: Path, what: str = "campaign file") -> str:
    """Return the text of a file that people write.

    Parameters
    ----------
    path
        The file.
    what
        What it is meant to be, for the message.

    Raises
    ------
    ConfigurationError
        If it cannot be read, is no text, or far too large.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigurationError(f"this is too large for a {what}", path)
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"this is no UTF-8 text: byte {error.start}; save it as plain text in UTF-8"
        raise ConfigurationError(message, path) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"cannot be read: {reason}", path) from None


def read(text: str) -> Source:
    """Read a campaign file without judging what it says."""
    walk = _Walk()
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return Source(None, {}, [Mistake("", "the file is empty", 1)])
        value = walk.value(node, ())
    except yaml.YAMLError as error:
        return Source(None, {}, [_syntax_mistake(error, text)])
    except RecursionError:
        return Source(None, {}, [Mistake("", "the file nests too deeply", 1)])
    return Source(value, walk.lines, walk.mistakes)


class _Loader(yaml.SafeLoader):
    """Composes nodes; plain scalars keep their text and are resolved below."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


class _Walk:
    """Turns nodes into values and remembers lines and mistakes on the way."""

    def __init__(self) -> None:
        self.lines: dict[FieldPath, int] = {(): 1}
        self.mistakes: list[Mistake] = []
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, path: FieldPath) -> Any:
        if id(node) in self._seen:
            self._refuse(node, path, "anchors are not understood here; write the value out")
            return None
        self._seen.add(id(node))
        if node.tag not in _TAGS:
            tag = node.tag.replace(_STANDARD, "!!")
            self._refuse(node, path, f"the tag {tag} is not understood; leave it out")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = _line(item)
                items.append(self.value(item, (*path, index)))
            return items
        return self._scalar(node, path) if isinstance(node, yaml.ScalarNode) else None

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, path, "a field name must be a plain word")
                continue
            key = str(key_node.value)
            place = (*path, key)
            if key in values:
                first = self.lines[place]
                message = f"given twice (first in line {first}); keep one"
                self.mistakes.append(Mistake(dotted(place), message, _line(key_node)))
                continue
            self.lines[place] = _line(key_node)
            values[key] = self.value(value_node, place)
        return values

    def _scalar(self, node: yaml.ScalarNode, path: FieldPath) -> Any:
        text = str(node.value)
        if node.style is not None:  # quoted
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text):
            if len(text) > _MOST_DIGITS:
                self._refuse(node, path, f"{text[:8]}... has too many digits")
                return None
            return int(text)
        number = float(text) if _FLOAT.fullmatch(text) else None
        if _NOT_FINITE.fullmatch(text) or (number is not None and not math.isfinite(number)):
            message = f"{text} is not a finite number; where no limit is meant, leave the field out"
            self._refuse(node, path, message)
            return None
        return text if number is None else number

    def _refuse(self, node: yaml.Node, path: FieldPath, message: str) -> None:
        self.mistakes.append(Mistake(dotted(path), message, _line(node)))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax_mistake(error: yaml.YAMLError, text: str) -> Mistake:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        return Mistake("", f"this is no text file: it holds the character U+{code:04X}", line)
    if not isinstance(error, yaml.MarkedYAMLError):
        return Mistake("", f"this is no YAML: {error}")
    problem, mark = error.problem or "cannot be read", error.problem_mark or error.context_mark
    if "\\t" in problem:
        return Mistake("", "a tab stands here; YAML is indented with spaces", _marked(mark))
    if "another document" in problem:
        problem = "a second document begins here; the file may hold one"
    elif "end" in problem and "stream" in problem and error.context_mark:
        problem, mark = "what begins here never ends: ' or \" or ] or }", error.context_mark
    elif problem == "mapping values are not allowed here":
        problem = "a colon where none may stand; check the indentation, or quote the text"
    elif problem.startswith("expected <block end>"):
        problem = "the indentation does not fit the lines above"
    elif problem.startswith("could not find expected ':'"):
        problem = "a field name without a colon and a space after it"
        mark = error.context_mark or mark
    return Mistake("", f"this is no YAML: {problem}", _marked(mark))


def _marked(mark: yaml.Mark | None) -> int | None:
    return mark.line + 1 if mark else None
