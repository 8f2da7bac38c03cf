"""Distances to the hull: facet planes against a cached pymatgen `PhaseDiagram`, and their equality.

Run ``OMP_NUM_THREADS=1 python -m benchmarks.hull_distance --data FOLDER [--json]``. The folder
holds ``mp_groundstates_formation_energy.csv.gz`` (columns formula, Ef in eV/atom; Bartel et al.,
npj Comput. Mater. 6, 97 (2020)). Of the chemical systems with many phases some are drawn; in each,
both sides hold the hull ready and judge the same candidates, in turns. Candidates are compositions
of the system with small whole numbers. Ratios are those of processor time.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from matloop.structures.phase_diagram import Hull, Point

FORMATION = "mp_groundstates_formation_energy.csv.gz"


def main() -> None:
    """Measure, print, and store the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the table")
    parser.add_argument("--elements", type=int, nargs="*", default=[3, 4, 5, 6])
    parser.add_argument("--systems", type=int, default=4, help="chemical systems of each size")
    parser.add_argument("--candidates", type=int, default=10_000, help="judged by planes")
    parser.add_argument("--sample", type=int, default=200, help="judged by pymatgen as well")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results/hull_distance.json")
    )
    options = parser.parse_args()
    table = pd.read_csv(options.data / FORMATION, keep_default_na=False)
    phases = dict(zip(table["formula"], table["Ef"].astype(float), strict=True))
    result = measure(
        phases,
        options.elements,
        systems=options.systems,
        candidates=options.candidates,
        sample=options.sample,
        repeats=options.repeats,
        seed=options.seed,
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2) if options.json else readable(result))


def measure(
    phases: Mapping[str, float],
    sizes: Sequence[int],
    *,
    systems: int,
    candidates: int,
    sample: int,
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    """Return times per candidate (microseconds) and differences (eV/atom) by number of elements.

    Parameters
    ----------
    phases
        Formation energy of each known phase (eV/atom); elements are 0.
    sizes
        Numbers of elements.
    systems, candidates, sample, repeats, seed
        As the options of the command.
    """
    chance = random.Random(seed)
    points = {name: Point(name, Composition(name), energy) for name, energy in phases.items()}
    blocks: dict[frozenset[str], list[Point]] = defaultdict(list)
    for point in points.values():
        blocks[frozenset(e.symbol for e in point.composition)].append(point)
    rows = []
    for size in sizes:
        for system in _systems(blocks, size, systems, chance):
            inside = [point for part in _parts(system) for point in blocks.get(part, [])]
            known = {p.composition.elements[0].symbol for p in inside if len(p.composition) == 1}
            inside += [Point(e, Composition(e), 0.0) for e in system if e not in known]
            rows.append(_compare(system, inside, candidates, sample, repeats, chance))
            print(f"  {'-'.join(system)}: {rows[-1]['ratio_table']:.0f}", flush=True)
    return {"sample": sample, "candidates": candidates, "repeats": repeats, "systems": rows}


def _systems(
    blocks: Mapping[frozenset[str], list[Point]], size: int, count: int, chance: random.Random
) -> list[tuple[str, ...]]:
    # Systems that a known phase spans: as a campaign that starts from known chemistry has them.
    spanned = sorted(tuple(sorted(part)) for part in blocks if len(part) == size)
    return chance.sample(spanned, min(count, len(spanned)))


def _parts(system: Iterable[str]) -> list[frozenset[str]]:
    names = sorted(system)
    return [frozenset(p) for n in range(1, len(names) + 1) for p in combinations(names, n)]


def _compare(
    system: tuple[str, ...],
    points: list[Point],
    candidates: int,
    sample: int,
    repeats: int,
    chance: random.Random,
) -> dict[str, Any]:
    contents = [
        Composition({element: chance.randint(1, 6) for element in system})
        for _ in range(candidates)
    ]
    energies = np.array([chance.uniform(-2, 1) for _ in contents])
    fractions = np.array([[c.get_atomic_fraction(e) for e in system] for c in contents])
    entries = [
        PDEntry(content, energy * content.num_atoms)
        for content, energy in zip(contents[:sample], energies[:sample], strict=True)
    ]
    known = [PDEntry(p.composition, p.energy * p.composition.num_atoms) for p in points]
    diagram, theirs_built = _timed(lambda: PhaseDiagram(known))

    def build() -> Hull:
        hull = Hull.from_points(points, "table")
        hull.energies(contents[:1])
        return hull

    hull, ours_built = _timed(build)
    times: dict[str, list[float]] = {"pymatgen": [], "compositions": [], "table": []}
    for _ in range(repeats):
        theirs, seconds = _timed(
            lambda: [diagram.get_e_above_hull(e, allow_negative=True) for e in entries]
        )
        times["pymatgen"].append(1e6 * seconds / sample)
        ours, seconds = _timed(lambda: energies - hull.energies(contents))
        times["compositions"].append(1e6 * seconds / candidates)
        table, seconds = _timed(lambda: energies - hull.energies_at(system, fractions))
        times["table"].append(1e6 * seconds / candidates)
    assert np.allclose(ours, table, atol=1e-12)
    ratios = {
        name: sorted(a / b for a, b in zip(times["pymatgen"], times[name], strict=True))
        for name in ("compositions", "table")
    }
    planes = hull._section(tuple(sorted(system))).hull.planes
    return {
        "system": "-".join(system),
        "elements": len(system),
        "phases": len(points),
        "facets": None if planes is None else len(planes),
        "us": {name: round(float(np.median(values)), 3) for name, values in times.items()},
        "ratio_compositions": ratios["compositions"][repeats // 2],
        "ratio_table": ratios["table"][repeats // 2],
        "ratio_table_range": [ratios["table"][0], ratios["table"][-1]],
        "build_ms": {"pymatgen": 1e3 * theirs_built, "matloop": 1e3 * ours_built},
        "largest_difference": float(np.abs(np.array(theirs) - ours[:sample]).max()),
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def readable(result: Mapping[str, Any]) -> str:
    """Return the result as a table."""
    lines = [
        f"{'system':22}{'phases':>7}{'facets':>7}{'pymatgen':>10}{'composit.':>10}{'table':>8}"
        f"{'ratio':>8}{'(range)':>16}{'composit.':>10}{'difference':>12}"
    ]
    for row in result["systems"]:
        us, (low, high) = row["us"], row["ratio_table_range"]
        lines.append(
            f"{row['system']:22}{row['phases']:7}{row['facets']!s:>7}{us['pymatgen']:10.0f}"
            f"{us['compositions']:10.2f}{us['table']:8.3f}{row['ratio_table']:8.0f}"
            f"{f'({low:.0f}, {high:.0f})':>16}{row['ratio_compositions']:10.0f}"
            f"{row['largest_difference']:12.1e}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
