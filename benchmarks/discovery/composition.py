"""Compositions in withheld chemical systems, with composition models as cheap fidelities."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pymatgen.core import Composition

from benchmarks.discovery.known import KnownHull, system_of
from benchmarks.discovery.problem import Problem, candidate, numbers, placeholder, read_table
from benchmarks.discovery.wbm import known_compounds
from matloop.errors import ConfigurationError

FORMATION = "mp_groundstates_formation_energy.csv.gz"
PREDICTIONS = "mp_groundstates_ml_predictions.csv.gz"
PREFIX = "Ef_pred_"
POOL = 1000
ON_THE_HULL = 1e-6  # eV/atom; energies are written to 1e-6


def load(
    data: Path,
    predictions: Path | None,
    seeds: Sequence[int],
    pool: int,
    elements: int,
    threshold: float,
) -> list[Problem]:
    """Return one problem per seed: chemical systems whose compounds nobody knows yet.

    Systems of so many elements are drawn until the pool is full. Their compounds that hold all
    these elements are withheld, all others are known. A compound is a discovery if it lies on the
    hull of everything, withheld compounds included. What is bought joins the hull, and every
    distance is taken to the hull as it stands.

    Parameters
    ----------
    data
        CSV file with the columns ``formula`` and ``Ef`` (formation energy, eV/atom, elements are
        0), or a folder that holds `FORMATION`.
    predictions
        CSV file with ``formula`` and any number of ``Ef_pred_*``; None to look beside the data, and
        do without.
    seeds
        Which systems are withheld.
    pool
        Compounds per pool, at least; the last system is not cut.
    elements
        Elements of a withheld system.
    threshold
        Distance to the final hull up to which a compound is a discovery (eV/atom).

    Raises
    ------
    ConfigurationError
        In one line, what the files lack.
    """
    path = data / FORMATION if data.is_dir() else data
    compounds = known_compounds(path)
    estimates = _predictions(path, predictions, compounds)
    by_system: dict[tuple[str, ...], list[int]] = {}
    for row, (formula, _) in enumerate(compounds):
        by_system.setdefault(system_of(formula), []).append(row)
    systems = sorted(system for system in by_system if len(system) == elements)
    available = sum(len(by_system[system]) for system in systems)
    if available < 2:
        raise ConfigurationError(f"{path}: holds {available} compounds of {elements} elements")
    everything = KnownHull(compounds)
    problems = []
    for seed in seeds:
        withheld: list[int] = []
        drawn = 0
        for index in np.random.default_rng(seed).permutation(len(systems)):
            if len(withheld) >= pool:
                break
            withheld += by_system[systems[int(index)]]
            drawn += 1
        formulas = [compounds[row][0] for row in withheld]
        energies = np.array([compounds[row][1] for row in withheld])
        hidden = set(withheld)
        known = [item for row, item in enumerate(compounds) if row not in hidden]
        hull = partial(_near, known, formulas)
        start = hull().energies(formulas)
        problems.append(
            Problem(
                name="composition",
                candidates=[
                    candidate(f"{formula.reduced_formula} {row}", placeholder(formula))
                    for row, formula in zip(withheld, formulas, strict=True)
                ],
                truth=energies - start,
                stable=energies - everything.energies(formulas) <= threshold + ON_THE_HULL,
                estimates={name: values[withheld] - start for name, values in estimates.items()},
                representation="composition",
                prototypes=[formula.anonymized_formula for formula in formulas],
                threshold=threshold,
                hull=hull,
                formation=energies,
                notes={"fidelities": list(estimates), "systems_withheld": drawn},
            )
        )
    return problems


def _near(known: list[tuple[Composition, float]], formulas: Sequence[Composition]) -> KnownHull:
    """Return a hull of those known compounds that can compete with any of the formulas."""
    wanted = {frozenset(system_of(formula)) for formula in formulas}
    elements = {element: [w for w in wanted if element in w] for w in wanted for element in w}
    useful = []
    for formula, energy in known:
        system = system_of(formula)
        own = set(system)
        if any(own <= other for other in elements.get(system[0], [])):
            useful.append((formula, energy))
    return KnownHull(useful)


def _predictions(
    path: Path, predictions: Path | None, compounds: Sequence[tuple[Composition, float]]
) -> dict[str, np.ndarray]:
    beside = path.parent / PREDICTIONS
    if predictions is None and not beside.is_file():
        return {}
    source = predictions or beside
    table = read_table(source, ("formula",))
    names = [str(name) for name in table if str(name).startswith(PREFIX)]
    if not names:
        raise ConfigurationError(f"{source}: has no column {PREFIX}*")
    rows = {str(formula): row for row, formula in enumerate(table["formula"])}
    given = read_table(path, ("formula",))["formula"].astype(str)
    places = np.array([rows.get(formula, -1) for formula in given])
    found = {}
    for name in names:
        values = numbers(table, name, source, gaps=True)
        found[name.removeprefix(PREFIX)] = np.where(places >= 0, values[places], np.nan)
    return found
