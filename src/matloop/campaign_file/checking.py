"""What a campaign file says that no single field shows wrong: plugins, quantities, units, files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pymatgen.core import Composition, Element

from matloop import registry
from matloop.campaign_file.fields import choice, suggestion
from matloop.campaign_file.reading import FieldPath, Source
from matloop.documents.candidate import PREDICTED
from matloop.documents.expression import DimensionError, Expression, unit_hint
from matloop.documents.objective import Objective
from matloop.documents.space import ISOTOPES
from matloop.errors import ConfigurationError, MissingDependencyError, Mistake


def check(source: Source, base: Path) -> list[Mistake]:
    """Return every mistake beyond the types of single fields.

    The file need not be valid otherwise: whatever part can be read is checked, so that a user sees
    all mistakes at once.

    Parameters
    ----------
    source
        What the file holds.
    base
        Folder against which relative paths are read.
    """
    checks = _Checks(source, base)
    checks.elements()
    checks.portfolio()
    checks.ladder()
    checks.objective()
    checks.feedback()
    checks.references()
    checks.budget()
    return checks.mistakes


@dataclass
class _Checks:
    source: Source
    base: Path
    mistakes: list[Mistake] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    outlived: set[str] = field(default_factory=set)  # found before the atoms moved
    ladder_is_known: bool = True

    def note(self, path: FieldPath, message: str) -> None:
        self.mistakes.append(self.source.mistake(path, message))

    def items(self, *path: str | int) -> list[tuple[FieldPath, Any]]:
        """Return the items of a list with their paths; none if it is no list."""
        value = self.source.get(path)
        return [((*path, i), item) for i, item in enumerate(value)] if _is_list(value) else []

    def elements(self) -> None:
        named = self.system()
        for key in ("elements", "deny"):
            named += [(path, item) for path, item in self.items("space", key) if _is_text(item)]
        for path, name in named:
            if name in ISOTOPES:
                self.note(path, f"{name!r} is an isotope; write {ISOTOPES[name]}")
            elif not Element.is_valid_symbol(name):
                self.note(path, f"{name!r} is no chemical element{_near_element(name)}")

    def system(self) -> list[tuple[FieldPath, str]]:
        value = self.source.get(("space", "system"))
        if not isinstance(value, str) or not value:
            return []
        parts = value.split("-")
        # CuAu, Cu Au, Cu,Au, Cu–Au: nothing but symbols, joined otherwise
        symbols = re.findall(r"[A-Z][a-z]?", value)
        joined = re.fullmatch(r"(?:[A-Z][a-z]?[^A-Za-z]*)+", value) and len(symbols) > 1
        if joined and symbols != parts and all(map(Element.is_valid_symbol, symbols)):
            message = f"{value!r} is no chemical system; write {'-'.join(symbols)}"
            self.note(("space", "system"), message)
            return []
        return [(("space", "system"), part) for part in parts]

    def portfolio(self) -> None:
        self.distinct("generators", "use")
        for path, item in self.items("generators"):
            self.plugin("generators", path, item)
            for place, name in self.items(*path, "with", "paths"):
                self.exists(place, name)

    def distinct(self, field: str, otherwise: str = "name") -> None:
        """Check that no two generators or stages have the same name."""
        seen: set[str] = set()
        for path, item in self.items(field):
            given = item.get("name") or item.get(otherwise) if isinstance(item, dict) else item
            if isinstance(given, str) and given in seen:
                where = (*path, "name") if isinstance(item, dict) and "name" in item else path
                self.note(where, f"two {field} are called {given!r}; give each its own name")
            elif isinstance(given, str):
                seen.add(given)

    def ladder(self) -> None:
        self.distinct("stages")
        stages = self.items("stages")
        self.ladder_is_known = bool(stages)  # without any, what follows is not told again
        for path, stage in stages:
            if not isinstance(stage, dict):
                self.ladder_is_known = False
                continue
            if stage.get("calculate") is not None:
                self.engine((*path, "calculate"), stage["calculate"])
            for place, item in self.items(*path, "evaluate"):
                evaluator = self.plugin("evaluators", place, item)
                if evaluator is None:
                    self.ladder_is_known = False
                else:
                    self.evaluator(place, evaluator)
            if "select" in stage:
                self.plugin("selectors", (*path, "select"), stage["select"])

    def engine(self, path: FieldPath, item: Any) -> None:
        """Check an engine; what was found of the crystal before does not outlive it."""
        engine = self.plugin("engines", path, item)
        if engine is None:
            self.ladder_is_known = False
            return
        kept = {name: unit for name, unit in self.units.items() if name.startswith(PREDICTED)}
        self.outlived |= self.units.keys() - kept.keys()
        self.units = {**kept, **engine.produces}

    def evaluator(self, path: FieldPath, evaluator: type[Any]) -> None:
        """Check that what an evaluator reads was found before it; add what it finds."""
        missing = [name for name in evaluator.requires if name not in self.units]
        if missing and self.ladder_is_known:
            makers = _makers(missing[0])
            hint = f"; put {' or '.join(makers)} before it" if makers else ""
            self.note(path, f"needs {missing[0]!r}, which nothing before it finds{hint}")
            self.ladder_is_known = False  # what follows from this mistake is not told again
        if getattr(evaluator, "moves_atoms", False):
            kept = {n: unit for n, unit in self.units.items() if n.startswith(PREDICTED)}
            self.outlived |= self.units.keys() - kept.keys()
            self.units = kept
        self.units |= evaluator.produces

    def objective(self) -> None:
        if self.ladder_is_known and "energy_per_atom" not in self.units:
            hint = " or ".join(_makers("energy_per_atom"))
            self.note(("stages",), f"no stage finds the energies of the convex hull; add {hint}")
        given = self.source.get(("objective",))
        if not isinstance(given, dict):
            return
        default = Objective.model_fields["discovery"].default
        texts: list[tuple[FieldPath, Any]] = []
        for key in ("minimize", "maximize"):
            texts += self.items("objective", key) or [(("objective", key), given.get(key) or None)]
        texts += self.items("objective", "constraints")
        texts.append((("objective", "discovery"), given.get("discovery", default)))
        units = {name: u for name, u in self.units.items() if not name.startswith(PREDICTED)}
        for path, text in texts:
            if not _is_text(text):
                continue
            try:
                expression = Expression(text)
            except ValueError:
                continue  # the model says so
            if expression.is_comparison != (path[1] in ("minimize", "maximize")):
                for message in self.expression(expression, units):
                    self.note(path, message)
        self.several(given, units)

    def several(self, given: Mapping[str, Any], units: Mapping[str, str]) -> None:
        """Check what only an objective with several goals has, and the selectors that need one."""
        try:
            objective = Objective.model_validate(given)
        except ValueError:
            return  # the model says so
        for goal in objective.goals if objective.reference else ():
            text = objective.reference[goal.text]
            try:
                Expression(text).constant(objective.unit(goal, units))
            except DimensionError as error:
                self.note(("objective", "reference", goal.text), f"{error} for {goal.text!r}")
            except (ValueError, KeyError):
                continue  # told where the goal is
        for path, stage in self.items("stages"):
            use = stage.get("select") if isinstance(stage, dict) else None
            use = {"use": use} if isinstance(use, str) else use
            if not isinstance(use, dict) or not _is_text(use.get("use")):
                continue
            try:
                selector = registry.build("selectors", use["use"], use.get("with") or {})
            except (ConfigurationError, MissingDependencyError):
                continue  # told before
            if hasattr(selector, "objection") and (reason := selector.objection(objective)):
                self.note((*path, "select"), reason)

    def expression(self, expression: Expression, units: Mapping[str, str]) -> Iterator[str]:
        text = expression.text
        if not expression.names:
            yield f"{text!r} names no quantity; known are: {', '.join(sorted(units))}"
        unknown = sorted(expression.names - units.keys())
        for name in unknown:
            makers = _makers(name)
            where = "after the relaxation" if name in self.outlived else "to a stage"
            if name in expression.units_in_doubt:
                yield f"{name!r} is neither a unit nor a quantity; {unit_hint(name)}"
            elif self.ladder_is_known:
                hint = f"; add {' or '.join(makers)} {where}" if makers else ""
                yield f"no stage finds {name!r}{hint or choice(name, units, 'they find')}"
            elif not makers and (near := suggestion(name, _quantities())):
                yield f"no stage finds {name!r}{near}"
        if unknown:
            return
        try:
            expression.check_units(units)
        except DimensionError:
            named = ", ".join(
                f"{name} is in {units[name] or '1'}" for name in sorted(expression.names)
            )
            yield f"units do not fit in {text!r}: {named}; write numbers with units, 0.05 eV/atom"
        except ValueError as error:
            yield str(error)

    def feedback(self) -> None:
        feedback = self.source.get(("feedback",))
        for path, item in self.items("feedback", "learn"):
            self.plugin("learners", path, item)
        if isinstance(feedback, dict) and "allocate" in feedback:
            self.plugin("allocators", ("feedback", "allocate"), feedback["allocate"])

    def references(self) -> None:
        for key in ("files", "known", "entries"):
            for path, name in self.items("references", key):
                self.exists(path, name)
        named = [name for _, name in self.system() + self.items("space", "elements")]
        allowed = {name for name in named if _is_text(name) and Element.is_valid_symbol(name)}
        space_is_known = len(allowed) == len(named)
        for path, formula in self.items("references", "withhold"):
            if not _is_text(formula):
                continue
            try:
                composition = Composition(formula)
            except ValueError:
                composition = Composition()
            names = {str(element) for element in composition}
            if not names or not all(Element.is_valid_symbol(name) for name in names):
                self.note(path, f"{formula!r} is no chemical formula; write SrTiO3")
            elif space_is_known and names - allowed:
                stranger = sorted(names - allowed)[0]
                self.note(path, f"{formula} holds {stranger}, outside the chemical space")

    def budget(self) -> None:
        candidates = self.source.get(("budget", "candidates"))
        members = len(self.items("generators"))
        if isinstance(candidates, int) and 1 <= candidates < members:
            message = f"{candidates} per iteration cannot be shared by {members} generators"
            self.note(("budget", "candidates"), message)

    def exists(self, path: FieldPath, name: Any) -> None:
        if not _is_text(name):
            return
        if not name.strip():
            self.note(path, "is empty; name a file or folder")
        elif not (self.base / name).exists():
            self.note(path, f"there is no file or folder {str(self.base / name)!r}")

    def plugin(self, kind: registry.Kind, path: FieldPath, item: Any) -> type[Any] | None:
        """Check a plugin and its parameters; return its class, None if there is none."""
        bare = isinstance(item, str)
        name = item if bare else item.get("use") if isinstance(item, dict) else None
        if not isinstance(name, str):
            return None
        place = path if bare else (*path, "use")
        if name not in registry.names(kind):
            article = "an" if kind[0] in "aeiou" else "a"
            hint = _other_kind(name) or choice(name, registry.names(kind), "registered are")
            self.note(place, f"{name!r} is not {article} {kind[:-1]}{hint}")
            return None
        plugin = _load(kind, name)
        if plugin is None:
            self.note(place, f"{name!r} cannot be loaded: {_why_not(kind, name)}")
            return None
        given = {} if bare else item.get("with") or {}
        if isinstance(given, dict):
            self._parameters(kind, name, (path, place), given)
        return plugin

    def _parameters(
        self,
        kind: registry.Kind,
        name: str,
        places: tuple[FieldPath, FieldPath],
        given: Mapping[str, Any],
    ) -> None:
        path, place = places
        known = [parameter.name for parameter in registry.parameters(kind, name)]
        for key in given:
            if key not in known:
                near = choice(key, known, "it takes")
                self.note((*path, "with", key), f"{name} has no such parameter{near}")
        try:
            registry.build(kind, name, {key: given[key] for key in given if key in known})
        except ConfigurationError as error:
            for mistake in error.mistakes:
                where = (*path, "with", mistake.field) if mistake.field in given else place
                subject = f"{mistake.field}: " if mistake.field and where == place else ""
                self.note(where, subject + mistake.message)
        if "model" in known and kind != "models":
            self._model(kind, name, (*path, "with"), given)

    def _model(
        self, kind: registry.Kind, name: str, path: FieldPath, given: Mapping[str, Any]
    ) -> None:
        """Check the potential that a plugin names by its parameter ``model``."""
        defaults = {item.name: item.default for item in registry.parameters(kind, name)}
        model = given.get("model", defaults["model"])
        options = given.get("model_parameters", {})
        if not isinstance(model, str) or not isinstance(options, dict):
            return
        if model not in registry.names("models"):
            near = choice(model, registry.names("models"), "registered are")
            self.note((*path, "model"), f"{model!r} is not a model{near}")
            return
        if _load("models", model) is None:
            self.note((*path, "model"), f"{model!r} cannot be loaded: {_why_not('models', model)}")
            return
        try:
            registry.build("models", model, options)
        except ConfigurationError as error:
            for mistake in error.mistakes:
                where = (mistake.field,) if mistake.field else ()
                self.note((*path, "model_parameters", *where), mistake.message)


def _other_kind(name: str) -> str:
    for kind in get_args(registry.Kind):
        if name in registry.names(kind):
            return f" but one of the {kind}"
    return ""


def _load(kind: registry.Kind, name: str) -> type[Any] | None:
    try:
        return registry.load(kind, name)
    except (ImportError, AttributeError, MissingDependencyError):
        return None


def _why_not(kind: registry.Kind, name: str) -> str:
    try:
        registry.load(kind, name)
    except (ImportError, AttributeError, MissingDependencyError) as error:
        return str(error)
    return ""


def _quantities() -> set[str]:
    """Return what evaluators find."""
    produced = [
        getattr(_load("evaluators", name), "produces", {}) for name in registry.names("evaluators")
    ]
    return set().union(*produced)


def _makers(quantity: str) -> list[str]:
    """Return the evaluators that find a quantity."""
    return [
        name
        for name in registry.names("evaluators")
        if quantity in getattr(_load("evaluators", name), "produces", {})
    ]


def _near_element(name: str) -> str:
    """Suggest a symbol: by the element's English name, by its case, or by likeness."""
    symbols = {str(element).lower(): str(element) for element in Element}
    symbols |= {element.long_name.lower(): str(element) for element in Element}
    near = get_close_matches(name.lower(), symbols, n=1, cutoff=0.75)
    return f"; write {symbols[near[0]]}" if near else "; write symbols such as Ti"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
