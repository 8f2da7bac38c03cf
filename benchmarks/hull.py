"""Hull code against 72,261 published decomposition energies, with pymatgen as the judge.

Where the two differ by more than 1 meV/atom, the energy is computed a third time with a general
minimiser at a loose tolerance (SciPy's SLSQP, 1e-4), to see whether that explains the difference.

Run it with ``python -m benchmarks.hull --data FOLDER [--json]``. The folder holds the tables of
Bartel et al., npj Comput. Mater. 6, 97 (2020): ``mp_groundstates_formation_energy.csv.gz`` (columns
formula, Ef) and ``mp_groundstates_decomposition_energy.csv.gz`` (formula, Ed), in eV/atom.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from scipy.optimize import minimize

from matloop.structures.decomposition import Competitors, Decomposition
from matloop.structures.phase_diagram import Point

FORMATION = "mp_groundstates_formation_energy.csv.gz"
DECOMPOSITION = "mp_groundstates_decomposition_energy.csv.gz"
ON_THE_HULL = 1e-6
"""Decomposition energies up to this (eV/atom) count as stable: tables are written to 1e-6."""


def main() -> None:
    """Measure, print, and store the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the two tables")
    parser.add_argument("--sample", type=int, help="judge so many compounds, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample and the audit")
    parser.add_argument("--audit", type=int, default=200, help="compounds pymatgen judges as well")
    parser.add_argument("--worst", type=int, default=20, help="outliers listed and judged again")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/hull.json"))
    options = parser.parse_args()
    formation = _table(options.data / FORMATION, "Ef")
    published = _table(options.data / DECOMPOSITION, "Ed")
    result = measure(
        formation,
        published,
        sample=options.sample,
        seed=options.seed,
        audit=options.audit,
        worst=options.worst,
    )
    text = json.dumps(result, indent=2)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text + "\n", encoding="utf-8")
    print(text if options.json else _readable(result))


def measure(
    formation: Mapping[str, float],
    published: Mapping[str, float],
    *,
    sample: int | None,
    seed: int,
    audit: int,
    worst: int,
) -> dict[str, Any]:
    """Return how far decomposition energies agree with the published ones.

    Parameters
    ----------
    formation
        Formation energy of each known phase (eV/atom); elements are 0.
    published
        Published decomposition energies (eV/atom).
    sample, seed
        How many of them to judge, chosen at random; None for all.
    audit, worst
        How many compounds pymatgen judges as well: chosen at random, and the furthest off.
    """
    started = time.perf_counter()
    chance = random.Random(seed)
    points = {name: Point(name, Composition(name), energy) for name, energy in formation.items()}
    names = [name for name in published if name in points]
    if sample is not None:
        names = sorted(chance.sample(names, min(sample, len(names))))
    competitors = Competitors(points.values(), elements_are_zero=True)
    ours = dict(zip(names, competitors.judge([points[name] for name in names]), strict=True))
    seconds = time.perf_counter() - started

    theirs = np.array([published[name] for name in names])
    mine = np.array([ours[name].decomposition_energy for name in names], dtype=float)
    off = mine - theirs
    order = np.argsort(-np.abs(off))
    disagreed = np.flatnonzero((mine <= ON_THE_HULL) != (theirs <= ON_THE_HULL))
    systems = _Judge(points.values())
    off_by_1_mev = [names[place] for place in order if abs(off[place]) > 1e-3]
    loose = [systems.loose(ours[name]) - published[name] for name in off_by_1_mev]
    outliers = [names[place] for place in order[:worst]]
    audited = chance.sample(names, min(audit, len(names)))
    return {
        "phases": len(points),
        "published": len(published),
        "judged": len(names),
        "without_formation_energy": len(published) - sum(name in points for name in published),
        "seconds": round(seconds, 1),
        "within_1_meV": _share(np.abs(off) <= 1e-3),
        "within_0.01_meV": _share(np.abs(off) <= 1e-5),
        "same_sign": _share((mine <= ON_THE_HULL) == (theirs <= ON_THE_HULL)),
        "largest_difference": float(np.abs(off).max()),
        "published_above_ours": int((off < -ON_THE_HULL * 2).sum()),
        "published_below_ours": int((off > ON_THE_HULL * 2).sum()),
        "pymatgen": {
            "audited": len(audited),
            "largest_difference": systems.largest_difference([ours[name] for name in audited]),
            "worst_outliers": len(outliers),
            "largest_difference_on_outliers": systems.largest_difference(
                [ours[name] for name in outliers]
            ),
        },
        "slsqp_at_1e-4": {
            "off_by_more_than_1_meV": len(loose),
            "published_value_reproduced": sum(abs(difference) <= 1e-4 for difference in loose),
            "within": 1e-4,
        },
        "other_sign": [_row(ours[names[i]], theirs[i]) for i in disagreed],
        "outliers": [_row(ours[name], published[name]) for name in outliers],
    }


class _Judge:
    # Decomposition energies by other means: pymatgen's phase diagrams, and a general minimiser.

    def __init__(self, points: Iterable[Point]) -> None:
        self.known: dict[frozenset[str], list[tuple[Composition, float]]] = defaultdict(list)
        for point in points:
            self.known[_elements(point.composition)].append((point.composition, point.energy))

    def largest_difference(self, judged: Sequence[Decomposition]) -> float:
        return max((self._difference(one) for one in judged), default=0.0)

    def loose(self, one: Decomposition) -> float:
        phases = self._competing(one)
        amounts = np.array([[phase[str(e)] for e in one.point.composition] for phase, _ in phases])
        energies = np.array([energy * phase.num_atoms for phase, energy in phases])
        wanted = np.array(list(one.point.composition.values()))
        found = minimize(
            lambda n: n @ energies,
            np.full(len(phases), 0.01),
            jac=lambda _: energies,
            method="SLSQP",
            bounds=[(0, None)] * len(phases),
            constraints={
                "type": "eq",
                "fun": lambda n: amounts.T @ n - wanted,
                "jac": lambda _: amounts.T,
            },
            tol=1e-4,
            options={"maxiter": 1000},
        )
        return float(one.point.energy - found.fun / one.point.composition.num_atoms)

    def _difference(self, one: Decomposition) -> float:
        diagram = PhaseDiagram([PDEntry(c, e * c.num_atoms) for c, e in self._competing(one)])
        energy = float(diagram.get_hull_energy_per_atom(one.point.composition))
        assert one.decomposition_energy is not None
        return abs(one.point.energy - energy - one.decomposition_energy)

    def _competing(self, one: Decomposition) -> list[tuple[Composition, float]]:
        elements = sorted(_elements(one.point.composition))
        parts = (
            frozenset(part)
            for size in range(2, len(elements) + 1)
            for part in combinations(elements, size)
        )
        compounds = [
            phase
            for part in parts
            for phase in self.known.get(part, [])
            if phase[0].reduced_formula != one.formula
        ]
        return [(Composition(element), 0.0) for element in elements] + compounds


def _elements(composition: Composition) -> frozenset[str]:
    return frozenset(str(element) for element in composition)


def _table(path: Path, column: str) -> dict[str, float]:
    # NaN is a formula here: sodium nitride
    table = pd.read_csv(path, keep_default_na=False)
    return dict(zip(table["formula"], table[column].astype(float), strict=True))


def _share(fulfilled: Any) -> dict[str, float | int]:
    return {"count": int(fulfilled.sum()), "share": round(float(fulfilled.mean()), 6)}


def _row(one: Decomposition, published: float) -> dict[str, Any]:
    return {
        "formula": one.formula,
        "published": float(published),
        "ours": one.decomposition_energy,
        "products": " + ".join(f"{share.atoms:.3f} {share.formula}" for share in one.products),
    }


def _readable(result: dict[str, Any]) -> str:
    lines = [
        f"{result['judged']} of {result['published']} decomposition energies, {result['phases']} "
        f"phases, {result['seconds']} s",
    ]
    for name in ("within_1_meV", "within_0.01_meV", "same_sign"):
        part = result[name]
        lines.append(f"{name:20}{part['count']:8} {100 * part['share']:8.2f} %")
    lines += [
        f"largest difference {1000 * result['largest_difference']:.2f} meV/atom; published above "
        f"ours {result['published_above_ours']}, below ours {result['published_below_ours']}",
        f"pymatgen: {result['pymatgen']}",
        f"SLSQP at 1e-4: {result['slsqp_at_1e-4']}",
        "",
        f"{'furthest off':24}{'published':>12}{'ours':>12}  products",
    ]
    lines += [
        f"{row['formula']:24}{row['published']:12.6f}{row['ours']:12.6f}  {row['products']}"
        for row in result["outliers"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
