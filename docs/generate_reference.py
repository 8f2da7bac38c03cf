"""Write campaign-file.md and plugins.md from the code: `python docs/generate_reference.py`.

With ``--check`` nothing is written, and the exit code says whether the pages are up to date.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from matloop import registry
from matloop.campaign_file import template
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
from matloop.documents.diversity import Watch
from matloop.documents.expression import FUNCTIONS
from matloop.documents.objective import Objective
from matloop.documents.space import ChemicalSpace

HERE = Path(__file__).parent
SECTIONS: dict[str, type[BaseModel]] = {
    "space": ChemicalSpace,
    "objective": Objective,
    "references": References,
    "references.tasks": TaskCollection,
    "generators": GeneratorEntry,
    "stages": Stage,
    "feedback": Feedback,
    "budget": Budget,
    "stop": Stop,
    "watch": Watch,
}
LISTS = ("generators", "stages")
INTRODUCTION = """\
# Campaign file

A campaign file declares a closed loop: which chemical space is searched, for what, who proposes,
who judges, and what it may cost. `matloop new --system Ca-Ti-O` writes one with comments,
`matloop validate` names every mistake in it with its line, and `matloop run` starts it.

It is YAML. A field that is not listed here is refused, and so is one given twice. Words such as
`off`, `no` or `N` are words, not truth values. Paths start from the folder of the file.

This page is generated from the code.
"""
EXPRESSIONS = """\
## Expressions

`objective` holds expressions of *quantities*, which the evaluators of the stages find: see
[Plugins](plugins.md). Numbers are followed by their unit: `0.05 eV/atom`, `3 g/cm^3`,
`150 GPa`. `meV` and `eV`, `Å` and `nm` mix; an energy compared with a density is refused. There are
`+ - * / ^`, parentheses, one comparison (`<= >= < >`), and {functions}.

```yaml
objective:
  maximize: bulk_modulus
  constraints: [e_above_hull <= 0.1 eV/atom, density <= 8 g/cm^3]
  discovery: bulk_modulus >= 250 GPa
```

Several goals are a list, and have their units in the reference point; see
[several goals](loop.md#several-goals).

```yaml
objective:
  minimize: [e_above_hull, density]
  reference: {{e_above_hull: 0.3 eV/atom, density: 9 g/cm^3}}
```

## Plugins in a campaign file

Where a plugin is expected its bare name stands for its defaults; parameters are written `with`.

```yaml
evaluate:
  - uniqueness
  - use: relaxation
    with: {{model: chgnet, fmax: 0.05}}
```
"""
PLUGINS = """\
# Plugins

Everything that may stand behind `use` in a campaign file and comes with matloop. `matloop plugins`
lists what is installed, other packages' plugins included; [write your own](write-a-plugin.md).

This page is generated from the code.
"""
KINDS = {
    "generators": "propose crystals; they stand under `generators`.",
    "evaluators": "judge crystals; they stand under `evaluate` in a stage.",
    "models": "are the potentials of evaluators that need one, as their parameter `model`.",
    "selectors": "decide who goes on; they stand under `select` in a stage.",
    "learners": "learn from all results after an iteration; they stand under `feedback.learn`.",
    "allocators": "share proposals between generators; one stands under `feedback.allocate`.",
}


def campaign_page() -> str:
    """Return the campaign file reference as Markdown."""
    parts = [INTRODUCTION, "## Top level\n", _fields(Campaign)]
    for name, model in SECTIONS.items():
        note = " (a list)" if name in LISTS else ""
        parts += [f"## `{name}`{note}\n", _summary(model.__doc__), _fields(model)]
    functions = ", ".join(f"`{name}`" for name in FUNCTIONS)
    parts.append(EXPRESSIONS.format(functions=functions))
    example = template("Ca-Ti-O")
    parts.append(f"## A whole file\n\nAs `matloop new` writes it:\n\n```yaml\n{example}```\n")
    return "\n".join(parts)


def plugins_page() -> str:
    """Return the plugin reference as Markdown: what matloop itself registers."""
    parts = [PLUGINS]
    for kind, purpose in KINDS.items():
        parts.append(f"## {kind.capitalize()}\n\n{kind.capitalize()} {purpose}\n")
        for name, entry in registry.names(kind).items():  # type: ignore[arg-type]
            if entry.dist is not None and entry.dist.name == "matloop":
                parts += _plugin(kind, name)  # type: ignore[arg-type]
    return "\n".join(parts)


def _plugin(kind: registry.Kind, name: str) -> list[str]:
    plugin = registry.load(kind, name)
    parts = [f"### `{name}` ({kind[:-1]})\n", _prose(plugin.__doc__ or "")]
    produces = getattr(plugin, "produces", {})
    if produces:
        found = ", ".join(
            f"`{key}`" + (f" ({unit})" if unit else "") for key, unit in produces.items()
        )
        parts.append(f"Finds {found}.\n")
    requires = getattr(plugin, "requires", ())
    if requires:
        parts.append(f"Needs {', '.join(f'`{key}`' for key in requires)} from before it.\n")
    rows = []
    hints = get_type_hints(plugin)
    for item in registry.parameters(kind, name):
        hint = hints[item.name]
        made = isinstance(item.default, str) and get_origin(hint) in (list, tuple, dict)
        default = item.default if made else json.dumps(item.default, ensure_ascii=False)
        shown = "required" if item.required else f"`{default}`"
        rows.append((f"`{item.name}`", _type_text(hint), shown, item.doc))
    if rows:
        parts.append(_table(("parameter", "type", "default", "meaning"), rows))
    return parts


def _fields(model: type[BaseModel]) -> str:
    docs = registry.attribute_docs(model.__doc__ or "")
    hints = get_type_hints(model, include_extras=True)
    rows = []
    for name, info in model.model_fields.items():
        label = info.alias or name
        doc = docs.get(name, "")
        if label in SECTIONS and model is Campaign:
            anchor = f"{label}-a-list" if label in LISTS else label
            doc = f"{doc} See [`{label}`](#{anchor})."
        rows.append((f"`{label}`", _type_text(hints[name], info), _default(info), doc))
    return _table(("field", "type", "default", "meaning"), rows)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, PluginUse):
        return f"`{value.use}`"
    if isinstance(value, tuple) and value and isinstance(value[0], PluginUse):
        return f"`[{', '.join(item.use for item in value)}]`"
    if isinstance(value, BaseModel):
        return "as below"
    if value in (None, "", (), {}):
        return "empty"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _type_text(hint: Any, info: FieldInfo | None = None) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    limits = _limits(info.metadata) if info else ""
    if origin is Annotated:
        inner = _type_text(arguments[0])
        return inner + (limits or _limits(arguments[1:]))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        texts = [_type_text(part) for part in arguments if part is not NoneType]
        return " or ".join(dict.fromkeys(texts)) + limits
    if origin in (tuple, list):
        return f"list of {_plural(_type_text(arguments[0]))}"
    if origin is dict:
        return "mapping"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "plugin" if hint is PluginUse else "fields"
    names = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    return names.get(hint, "any value") + limits


def _plural(text: str) -> str:
    return {
        "plugin": "plugins",
        "text": "texts",
        "number": "numbers",
        "whole number": "whole numbers",
    }.get(text, text)


def _limits(metadata: Any) -> str:
    texts = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            return _limits(item.metadata)
        match item:
            case annotated_types.Ge(ge=bound):
                texts.append(f"≥ {bound}")
            case annotated_types.Gt(gt=bound):
                texts.append(f"> {bound}")
            case annotated_types.Le(le=bound):
                texts.append(f"≤ {bound}")
    return f", {', '.join(texts)}" if texts else ""


def _summary(docstring: str | None) -> str:
    return (docstring or "").strip().splitlines()[0].replace("``", "`") + "\n"


def _prose(docstring: str) -> str:
    """Return a docstring up to its first section, and its references."""
    lines = [line.strip() for line in docstring.strip().splitlines()]
    heads = [i for i, line in enumerate(lines[:-1]) if lines[i + 1] and set(lines[i + 1]) == {"-"}]
    text = "\n".join(lines[: heads[0] if heads else len(lines)]).strip() + "\n"
    for start in heads:
        if lines[start] == "References":
            end = next((head for head in heads if head > start), len(lines))
            text += "\n*References.* " + " ".join(filter(None, lines[start + 2 : end])) + "\n"
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = (cell.replace("``", "`").replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the pages, or check them; return the exit code."""
    stale = []
    for name, page in (("campaign-file.md", campaign_page()), ("plugins.md", plugins_page())):
        path = HERE / name
        if "--check" not in arguments:
            path.write_text(page, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != page:
            stale.append(name)
    if stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run docs/generate_reference.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
