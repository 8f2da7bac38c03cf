"""Levels of theory of computed entries: what an entry says of itself, and whether two agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pymatgen.core import Composition, Element

from matloop.documents.theory import DftSettings, LevelOfTheory
from matloop.errors import TheoryMismatchError

UNSTATED = LevelOfTheory(kind="stated", code="unknown", version="", model="unstated")
"""Theory of energies that came without a word about how they were computed. One table of them is
taken to be of one level; nothing else may join it."""

_BY_ELEMENT = {"u_values", "pseudopotentials"}
_PER_CRYSTAL = {"k_density", "smearing"}  # chosen crystal by crystal in published protocols
_LOCAL = _BY_ELEMENT | _PER_CRYSTAL | {"corrections"}


def theory_of(
    composition: Composition,
    parameters: Mapping[str, Any],
    adjustments: Iterable[Mapping[str, Any]] = (),
    *,
    version: str = "",
    incar: Mapping[str, Any] | None = None,
) -> LevelOfTheory:
    """Return the level of theory that a computed entry states.

    Parameters
    ----------
    composition
        Its composition: U values and pseudopotentials are those of its elements.
    parameters
        `ComputedEntry.parameters`: ``run_type``, ``hubbards``, ``is_hubbard``, ``potcar_spec`` or
        ``potcar_symbols``, ``software``.
    adjustments
        Its energy adjustments, as their dictionaries in the file.
    version
        Version of the code, where it is known.
    incar
        VASP's input, where it is known: cutoff, k-point spacing and smearing are read from it.
    """
    run_type = str(parameters.get("run_type") or "")
    potentials = _pseudopotentials(parameters)
    software = parameters.get("software")
    if not run_type and not potentials and not software:
        return UNSTATED
    elements = [str(element) for element in composition.element_composition]
    corrections = _corrections(adjustments)
    if not corrections and len(elements) == 1:
        corrections = None
    cutoff = (incar or {}).get("ENCUT")
    spacing = (incar or {}).get("KSPACING")
    smearing = (incar or {}).get("ISMEAR")
    settings = DftSettings(
        u_values=_u_values(run_type, parameters, elements),
        pseudopotentials={e: potentials[e] for e in sorted(elements) if e in potentials} or None,
        basis="plane waves" if cutoff is not None else None,
        cutoff=None if cutoff is None else float(cutoff),
        k_density=None if spacing is None else f"KSPACING {spacing:g}",
        smearing=None
        if smearing is None
        else f"ISMEAR {smearing}, SIGMA {incar.get('SIGMA')} eV"
        if incar
        else None,
        corrections=corrections,
    )
    return LevelOfTheory(
        kind="dft",
        code=str(software or "vasp").lower(),
        version=version,
        model=_functional(run_type),
        dft=settings,
    )


def one_theory(energies: Iterable[tuple[str, LevelOfTheory]]) -> LevelOfTheory:
    """Return the level of theory that all energies share.

    U values and pseudopotentials are compared element by element: an oxide of cobalt says nothing
    of the U of iron. What one calculation states and another leaves open counts as a difference.
    Recorded but not compared are the version of a DFT code, and k-points and smearing, which
    published protocols choose crystal by crystal (metal or insulator); where they vary, the result
    leaves them open.

    Parameters
    ----------
    energies
        Name of each energy, as an error should call it, with its level of theory; at least one.

    Raises
    ------
    TheoryMismatchError
        Naming the first two energies that disagree, where they do, and the published scheme for
        such a pair.
    """
    remaining = iter(energies)
    first_name, first = next(remaining)
    merged = _Merged(first_name, first)
    seen = {first.key}
    objects = {id(first): first}
    for name, theory in remaining:
        if id(theory) in objects:
            continue
        objects[id(theory)] = theory  # kept alive, so that no other takes its id
        if theory.key not in seen:
            merged.add(name, theory)
            seen.add(theory.key)
    return merged.result()


def short(theory: LevelOfTheory) -> str:
    """Return a level of theory in a few words, such as ``vasp GGA, U Fe 5.3 eV``."""
    if theory.kind == "stated":
        return "an unstated method" if theory == UNSTATED else theory.model
    words = [f"{theory.code} {theory.model}"]
    if theory.dft is not None:
        if theory.dft.mixing:
            words.append(f"mixed by {theory.dft.mixing}")
        used = {e: u for e, u in (theory.dft.u_values or {}).items() if u}
        if used:
            words.append("U " + ", ".join(f"{e} {u:g} eV" for e, u in used.items()))
        words += [f"{name} {v}".strip() for name, v in (theory.dft.corrections or {}).items()]
    elif theory.model_sha256:
        words.append(theory.model_sha256[:8])
    return ", ".join(words)


class _Merged:
    # What is known so far of the one level of theory, and which energy said it first.

    def __init__(self, name: str, theory: LevelOfTheory) -> None:
        self.name, self.first = name, theory
        self.versions = {theory.version}
        self.maps: dict[str, dict[str, tuple[str, LevelOfTheory, str | float]]] = {
            field: {} for field in sorted(_BY_ELEMENT)
        }
        self.crystal: dict[str, str | None] = {}
        self.corrections: tuple[str, LevelOfTheory] | None = None
        if theory.dft is not None:
            self.crystal = {field: getattr(theory.dft, field) for field in sorted(_PER_CRYSTAL)}
            self._add_elements(name, theory, theory.dft)

    def add(self, name: str, theory: LevelOfTheory) -> None:
        difference = _difference(self.first, theory)
        if difference:
            _refuse(self.name, self.first, name, theory, difference)
        self.versions.add(theory.version)
        if theory.dft is not None:
            self._add_elements(name, theory, theory.dft)
            for field, value in self.crystal.items():
                if getattr(theory.dft, field) != value:
                    self.crystal[field] = None

    def result(self) -> LevelOfTheory:
        dft = self.first.dft
        if dft is None:
            return self.first
        stated = {
            field: {element: held[2] for element, held in sorted(values.items())} or None
            for field, values in self.maps.items()
        }
        corrections: dict[str, str] | None = {}
        if self.corrections is not None and self.corrections[1].dft is not None:
            corrections = self.corrections[1].dft.corrections
        return self.first.model_copy(
            update={
                "version": ", ".join(sorted(version for version in self.versions if version)),
                "dft": DftSettings.model_validate(
                    {**dft.model_dump(), **stated, **self.crystal, "corrections": corrections}
                ),
            }
        )

    def _add_elements(self, name: str, theory: LevelOfTheory, dft: DftSettings) -> None:
        for field, held in self.maps.items():
            for element, value in (getattr(dft, field) or {}).items():
                other = held.get(element)
                if other is not None and not _same(other[2], value):
                    what = "U" if field == "u_values" else "pseudopotential"
                    unit = " eV" if field == "u_values" else ""
                    text = f"the {what} of {element} ({other[2]}{unit} and {value}{unit})"
                    _refuse(other[0], other[1], name, theory, text)
                if other is None or len(str(value)) > len(str(other[2])):
                    held[element] = name, theory, value
        if dft.corrections is None:
            return
        if self.corrections is None:
            self.corrections = name, theory
        elif self.corrections[1].dft and self.corrections[1].dft.corrections != dft.corrections:
            _refuse(*self.corrections, name, theory, "the energy corrections already applied")


def _difference(one: LevelOfTheory, other: LevelOfTheory) -> str:
    # The first thing in which two theories differ as a whole; empty if there is none.
    ignored = {"dft"} if one.dft is None and other.dft is None else {"dft", "version"}
    for field in ("kind", "code", "model", "version", "model_sha256", "settings"):
        if field not in ignored and getattr(one, field) != getattr(other, field):
            return {"kind": "how they were computed", "model": "the functional or model"}.get(
                field, f"the {field}"
            )
    if one.dft is None or other.dft is None:
        return "" if one.dft is other.dft else "whether DFT settings are stated"
    for field in DftSettings.model_fields:
        mine, theirs = getattr(one.dft, field), getattr(other.dft, field)
        if field in _BY_ELEMENT and (mine is None) != (theirs is None):
            said = "U values" if field == "u_values" else field
            return f"the {said}, which one leaves open"
        if field not in _LOCAL and mine != theirs:
            return f"the {field} ({_or_open(mine)} and {_or_open(theirs)})"
    return ""


def _or_open(value: object) -> str:
    return "not stated" if value in (None, "") else str(value)


def _refuse(
    one_name: str, one: LevelOfTheory, other_name: str, other: LevelOfTheory, difference: str
) -> None:
    raise TheoryMismatchError(
        f"one hull needs one level of theory: {one_name} is {short(one)}, {other_name} is "
        f"{short(other)}; they differ in {difference}. {_advice(one, other)}"
    )


def _advice(one: LevelOfTheory, other: LevelOfTheory) -> str:
    # Only a scheme that was made for such a pair is named.
    if {one.kind, other.kind} == {"dft"} and one.code == other.code == "vasp":
        functionals = {one.model, other.model}
        proper = _proper_u(one) and _proper_u(other)
        if functionals <= {"GGA", "r2SCAN"} and len(functionals) == 2:
            return "For MP-compatible calculations: --mixing mp-gga-r2scan"
        if functionals == {"GGA"} and proper and _same_potentials(one, other):
            return "For MP-compatible calculations: --mixing mp2020"
    if "stated" in {one.kind, other.kind}:
        return "Only energies of one kind, computed alike, can be compared"
    return "No published scheme mixes these (mp2020 and mp-gga-r2scan do not): recompute one"


def _proper_u(theory: LevelOfTheory) -> bool:
    # Whether U is none, or what the Materials Project takes for some anion.
    from pymatgen.io.vasp.sets import MPRelaxSet

    if theory.dft is None or theory.dft.u_values is None:
        return False
    tables = MPRelaxSet.CONFIG["INCAR"]["LDAUU"].values()
    allowed = {
        (e, float(u)) for table in tables if isinstance(table, dict) for e, u in table.items()
    }
    return all(u == 0 or (e, u) in allowed for e, u in theory.dft.u_values.items())


def _same_potentials(one: LevelOfTheory, other: LevelOfTheory) -> bool:
    mine = (one.dft and one.dft.pseudopotentials) or {}
    theirs = (other.dft and other.dft.pseudopotentials) or {}
    return all(_same(mine[e], theirs[e]) for e in mine.keys() & theirs.keys())


def _same(one: str | float, other: str | float) -> bool:
    # Two names of one data set may differ in that only one carries its date.
    if isinstance(one, str) and isinstance(other, str):
        return all(a == b for a, b in zip(one.split(), other.split(), strict=False))
    return one == other


def _functional(run_type: str) -> str:
    name = run_type.removesuffix("+U")
    return "r2SCAN" if name.upper() == "R2SCAN" else name or "unstated"


def _u_values(
    run_type: str, parameters: Mapping[str, Any], elements: Iterable[str]
) -> dict[str, float] | None:
    stated = parameters.get("hubbards") or {}
    if not stated and (run_type.endswith("+U") or parameters.get("is_hubbard")):
        return None
    return {element: float(stated.get(element, 0.0)) for element in sorted(elements)}


def _pseudopotentials(parameters: Mapping[str, Any]) -> dict[str, str]:
    # Titles such as "PAW_PBE Fe_pv 06Sep2000", or symbols such as "PBE Fe_pv".
    titles = [str(spec.get("titel") or "") for spec in parameters.get("potcar_spec") or [] if spec]
    titles = [title for title in titles if title] or list(parameters.get("potcar_symbols") or [])
    potentials = {}
    for title in titles:
        words = str(title).removeprefix("PAW_").split()
        if len(words) > 1 and Element.is_valid_symbol(words[1].split("_")[0]):
            potentials[words[1].split("_")[0]] = " ".join(words)
    return potentials


def _corrections(adjustments: Iterable[Mapping[str, Any]]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for adjustment in adjustments:
        made_by = adjustment.get("cls")
        made_by = made_by if isinstance(made_by, Mapping) else {}
        version = made_by.get("@version")
        name = str(made_by.get("@class") or adjustment.get("name") or "unnamed")
        found[name] = f"pymatgen {version}" if version else ""
    return dict(sorted(found.items()))
