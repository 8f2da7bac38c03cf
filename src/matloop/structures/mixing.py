"""Published schemes that put energies of several levels of theory on one scale, by name."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, get_args

from pymatgen.core.entries import ComputedEntry, ComputedStructureEntry

from matloop.documents.theory import DftSettings, LevelOfTheory
from matloop.errors import ConfigurationError

Scheme = Literal["mp2020", "mp-gga-r2scan"]

SCHEMES: dict[Scheme, str] = {
    "mp2020": "MaterialsProject2020Compatibility",
    "mp-gga-r2scan": "MaterialsProjectDFTMixingScheme",
}
"""Names, and the classes of pymatgen behind them.

References
----------
mp2020: Wang et al., Sci. Rep. 11, 15496 (2021); Jain et al., Phys. Rev. B 84, 045115 (2011).
mp-gga-r2scan: Kingsbury et al., npj Comput. Mater. 8, 195 (2022).
"""


@dataclass(frozen=True)
class Mixed:
    """What a scheme made of some entries.

    Attributes
    ----------
    energies
        Energy of each entry on the common scale (eV/atom), in order; None where the scheme leaves
        an entry out.
    reasons
        Why it was left out; empty for the others.
    theory
        The common level of theory, with the scheme and the version of pymatgen.
    """

    energies: tuple[float | None, ...]
    reasons: tuple[str, ...]
    theory: LevelOfTheory


def mix(entries: Sequence[ComputedEntry], scheme: str) -> Mixed:
    """Put entries on the scale of a published scheme, corrections applied anew.

    Both schemes are made for VASP calculations with the settings of the Materials Project. They
    check run types, U values and pseudopotentials, and nothing else: the rest is the user's word.

    Parameters
    ----------
    entries
        All entries that will share a hull, with distinct ids; they are not changed. The scheme
        ``mp-gga-r2scan`` matches crystals and needs structures.
    scheme
        A name among `SCHEMES`.

    Raises
    ------
    ConfigurationError
        If there is no scheme of that name, or it cannot treat these entries.
    """
    require_scheme(scheme)
    copies = [copy.deepcopy(entry) for entry in entries]
    reasons = _mp2020(copies) if scheme == "mp2020" else _gga_r2scan(copies)
    return Mixed(
        energies=tuple(
            None if reason else float(entry.energy_per_atom)
            for entry, reason in zip(copies, reasons, strict=True)
        ),
        reasons=tuple(reasons),
        theory=mixed_theory(scheme),
    )


def require_scheme(scheme: str) -> None:
    """Refuse a name that no scheme has.

    Raises
    ------
    ConfigurationError
        Naming the schemes there are.
    """
    if scheme not in get_args(Scheme):
        known = ", ".join(SCHEMES)
        raise ConfigurationError(f"no mixing scheme is called {scheme!r}; there are {known}")


def mixed_theory(scheme: str) -> LevelOfTheory:
    """Return the level of theory of energies on a scheme's scale."""
    return LevelOfTheory(
        kind="dft",
        code="vasp",
        version="",
        model="GGA" if scheme == "mp2020" else "GGA/r2SCAN",
        dft=DftSettings(
            mixing=scheme,
            corrections={_class_name(scheme): f"pymatgen {version('pymatgen')}"},
        ),
    )


def _class_name(scheme: str) -> str:
    return next(made_by for name, made_by in SCHEMES.items() if name == scheme)


def _mp2020(entries: list[ComputedEntry]) -> list[str]:
    from pymatgen.analysis.compatibility import (
        CompatibilityError,
        MaterialsProject2020Compatibility,
    )

    scheme = MaterialsProject2020Compatibility()
    reasons = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # guesses at oxidation states, one warning per entry
        for entry in entries:
            try:
                kept = scheme.process_entries(entry, clean=True, on_error="raise")
                reasons.append("" if kept else "the scheme leaves it out")
            except CompatibilityError as error:
                reasons.append(_plain(str(error)))
            except (KeyError, IndexError, AttributeError, ValueError):
                reasons.append("its pseudopotentials are not stated, or cannot be read")
    return reasons


def _gga_r2scan(entries: list[ComputedEntry]) -> list[str]:
    from pymatgen.analysis.compatibility.mixing_scheme import MaterialsProjectDFTMixingScheme

    if not all(isinstance(entry, ComputedStructureEntry) for entry in entries):
        raise ConfigurationError(
            "mp-gga-r2scan matches crystals: every entry needs a structure (ComputedStructureEntry)"
        )
    silent = [
        entry
        for entry in entries
        if not (entry.parameters.get("potcar_spec") or entry.parameters.get("potcar_symbols"))
    ]
    if silent:
        raise ConfigurationError(
            f"mp-gga-r2scan checks pseudopotentials: entry {silent[0].entry_id} states none"
        )
    if len(entries) < 2:
        raise ConfigurationError("mp-gga-r2scan cannot place a single entry; give the whole system")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        kept = {id(entry) for entry in MaterialsProjectDFTMixingScheme().process_entries(entries)}
    notes = [str(warning.message) for warning in said]
    return ["" if id(entry) in kept else _note(entry, notes) for entry in entries]


def _note(entry: ComputedEntry, notes: Sequence[str]) -> str:
    about = [note for note in notes if f" {entry.entry_id} " in note]
    incomplete = [note for note in notes if "complete PhaseDiagram" in note]
    return _plain((about or incomplete or ["the scheme leaves it out"])[0])


def _plain(message: str) -> str:
    # pymatgen repeats whole entries in its errors
    first = message.removeprefix("WARNING! ").split(" for {")[0]
    return " ".join(first.split())[:300]
