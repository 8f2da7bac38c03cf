"""WBM: find stable crystals, with potentials as cheap fidelities and DFT as the paid oracle."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pymatgen.core import Composition, Structure

from benchmarks.discovery.known import KnownHull
from benchmarks.discovery.problem import (
    Array,
    Problem,
    candidate,
    composition,
    numbers,
    placeholder,
    read_table,
)
from matloop.errors import ConfigurationError, MatloopError
from matloop.structures.symmetry import space_group

LABEL = "e_above_hull_dft"
FORMATION = "e_form_dft"
FIDELITY = "e_form_"
HULL_FILE = "mp_groundstates_formation_energy.csv.gz"


def load(data: Path, hull: Path | None, threshold: float) -> Problem:
    """Return the problem in a table of crystals.

    Columns: ``formula`` and ``e_above_hull_dft`` (eV/atom, signed: negative below the hull that was
    known before). Optional: ``e_form_*``, formation energies by cheap methods (eV/atom); ``cif``,
    without which only the composition describes a crystal; ``material_id``.

    The energy of the known hull turns formation energies into distances. It comes from the table of
    known compounds where there is one, and otherwise is the difference of ``e_form_dft`` and
    ``e_above_hull_dft``, which is a property of the composition and of the known compounds, not of
    the candidate.

    Parameters
    ----------
    data
        CSV file.
    hull
        CSV file of known compounds with the columns ``formula`` and ``Ef``; None to look beside the
        data.
    threshold
        Distance up to which a crystal is a discovery (eV/atom).

    Raises
    ------
    ConfigurationError
        In one line, what the file lacks.
    """
    table = read_table(data, ("formula", LABEL))
    truth = numbers(table, LABEL, data)
    fidelities = [
        name for name in table if str(name).startswith(FIDELITY) and str(name) != FORMATION
    ]
    structures = _structures(table, data)
    crystals = structures is not None
    if structures is None:
        formulas = table["formula"].astype(str)
        structures = [
            placeholder(composition(text, data, row + 2)) for row, text in enumerate(formulas)
        ]
    names = table["material_id"].astype(str) if "material_id" in table else map(str, table.index)
    candidates = [candidate(n, s) for n, s in zip(names, structures, strict=True)]
    if len({item.candidate_id for item in candidates}) < len(candidates):
        raise ConfigurationError(f"{data}: material_id names some crystals twice")
    estimates: dict[str, Array] = {}
    source = "not needed: no cheap fidelities"
    if fidelities:
        known, source = _hull_energies(table, structures, truth, data, hull)
        for name in fidelities:
            values = numbers(table, name, data, gaps=True)
            estimates[name.removeprefix(FIDELITY)] = values - known
    return Problem(
        name="wbm",
        candidates=candidates,
        truth=truth,
        stable=truth <= threshold,
        estimates=estimates,
        representation="crystal" if crystals else "composition",
        prototypes=[_prototype(structure, crystals) for structure in structures],
        threshold=threshold,
        notes={"hull": source, "fidelities": list(estimates)},
    )


def known_compounds(path: Path) -> list[tuple[Composition, float]]:
    """Return composition and formation energy (eV/atom) of known compounds."""
    table = read_table(path, ("formula", "Ef"))
    energies = numbers(table, "Ef", path)
    return [
        (composition(str(formula), path, row + 2), float(energy))
        for row, (formula, energy) in enumerate(zip(table["formula"], energies, strict=True))
    ]


def _structures(table: pd.DataFrame, data: Path) -> list[Structure] | None:
    if "cif" not in table:
        return None
    structures = []
    for row, text in enumerate(table["cif"]):
        try:
            structures.append(Structure.from_str(str(text), fmt="cif"))
        except (ValueError, IndexError, KeyError) as error:
            raise ConfigurationError(f"{data}, row {row + 1}: the cif cannot be read") from error
    return structures


def _hull_energies(
    table: pd.DataFrame, structures: list[Structure], truth: Array, data: Path, hull: Path | None
) -> tuple[Array, str]:
    """Return the energy of the known hull at each crystal's composition, and where it is from."""
    beside = data.parent / HULL_FILE
    if hull is not None or beside.is_file():
        path = hull or beside
        known = KnownHull(known_compounds(path))
        return known.energies([structure.composition for structure in structures]), path.name
    if FORMATION not in table:
        raise ConfigurationError(
            f"{data}: has no column {FORMATION}, and no table of known compounds is given (--hull)"
        )
    if not (truth < 0).any():
        raise ConfigurationError(
            f"{data}: {LABEL} is nowhere negative, so a crystal counts among its own competitors "
            "and its distance gives its energy away; give the known compounds with --hull"
        )
    return numbers(table, FORMATION, data) - truth, f"{FORMATION} minus {LABEL}"


def _prototype(structure: Structure, crystals: bool) -> str:
    label = structure.composition.anonymized_formula
    if not crystals:
        return label
    try:
        return f"{label} {space_group(structure).number}"
    except MatloopError:
        return f"{label} ?"
