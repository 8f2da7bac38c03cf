"""Distances to the hull: facet planes against a cached pymatgen `PhaseDiagram`, and their equality.

Run ``OMP_NUM_THREADS=1 python -m benchmarks.hull_distance --data FOLDER [--json]``. The folder
holds ``mp_groundstates_formation_energy.csv.gz`` (columns formula, Ef in eV/atom; Bartel et al.,
npj Comput. Mater. 6, 97 (2020)). Of the chemical systems with many phases some are drawn; in each,
both sides hold the hull ready and judge the same candidates, in turns. Candidates are compositions
of the system with small whole numbers; `PhaseDiagram` has them as entries, the hull as a table of
fractions, as `Composition` objects, and as crystals with one site per atom. Ratios are those of
processor time.

At the end the evaluator `hull_distance` judges candidates of one system of each size, mixed with
each other, as a campaign has them judged: documents in, documents out. No batch is judged twice.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure

from matloop.documents.candidate import Candidate, Origin, Quantity
from matloop.documents.phase import Phase, PhaseSet
from matloop.documents.theory import LevelOfTheory
from matloop.evaluators.stability import HullDistance
from matloop.protocols import Resources
from matloop.structures.phase_diagram import Hull, Point

_ENTRIES = ("table", "compositions", "crystals")  # what the hull is asked with
FORMATION = "mp_groundstates_formation_energy.csv.gz"


def main() -> None:
    """Measure, print, and store the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the table")
    parser.add_argument("--elements", type=int, nargs="*", default=[3, 4, 5, 6])
    parser.add_argument("--systems", type=int, default=4, help="chemical systems of each size")
    parser.add_argument("--candidates", type=int, default=10_000, help="judged by planes")
    parser.add_argument("--crystals", type=int, default=2_000, help="of the candidates")
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
        crystals=options.crystals,
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
    crystals: int,
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
    systems, candidates, crystals, sample, repeats, seed
        As the options of the command.
    """
    chance = random.Random(seed)
    points = {name: Point(name, Composition(name), energy) for name, energy in phases.items()}
    blocks: dict[frozenset[str], list[Point]] = defaultdict(list)
    for point in points.values():
        blocks[frozenset(e.symbol for e in point.composition)].append(point)
    rows, first = [], {}
    for size in sizes:
        for system in _systems(blocks, size, systems, chance):
            inside = [point for part in _parts(system) for point in blocks.get(part, [])]
            known = {p.composition.elements[0].symbol for p in inside if len(p.composition) == 1}
            inside += [Point(e, Composition(e), 0.0) for e in system if e not in known]
            first.setdefault(size, (system, inside))
            rows.append(_compare(system, inside, candidates, crystals, sample, repeats, chance))
            print(f"  {'-'.join(system)}: {rows[-1]['ratio_table']:.0f}", flush=True)
    return {
        "sample": sample,
        "candidates": candidates,
        "crystals": crystals,
        "repeats": repeats,
        "systems": rows,
        "evaluator": judged(dict(first.values()), crystals, repeats, chance),
    }


def judged(
    systems: Mapping[tuple[str, ...], Sequence[Point]],
    candidates: int,
    repeats: int,
    chance: random.Random,
) -> dict[str, Any]:
    """Return what the evaluator `hull_distance` takes per candidate (microseconds).

    Parameters
    ----------
    systems
        Phases by chemical system.
    candidates
        Candidates of a batch.
    repeats
        Batches judged at once, and as many candidate by candidate.
    chance
        Draws the candidates.
    """
    theory = LevelOfTheory(kind="stated", code="benchmark", version="1", model="table")
    known = {point.phase_id: point for points in systems.values() for point in points}
    phases = tuple(
        Phase(
            phase_id=p.phase_id, structure=_crystal(p.composition), energy=p.energy, theory=theory
        )
        for p in known.values()
    )
    names = list(systems)

    def batch() -> list[Candidate]:
        contents = [_drawn(names[i % len(names)], chance) for i in range(candidates)]
        energies = [
            Quantity(value=chance.uniform(-2, 1), unit="eV/atom", theory=theory.key)
            for _ in contents
        ]
        return [
            Candidate(
                candidate_id=f"candidate-{i}",
                structure=_crystal(content),
                origin=Origin(generator="benchmark"),
                quantities={"energy_per_atom": energy},
            )
            for i, (content, energy) in enumerate(zip(contents, energies, strict=True))
        ]

    times: dict[str, list[float]] = {"together": [], "alone": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phases"
        path.write_bytes(PhaseSet(theory=theory, phases=phases).to_bytes())
        resources, evaluator = Resources({"phases": path}, {"phases": "benchmark"}), HullDistance()
        evaluator.evaluate(batch(), resources)  # the hull is ready
        for _ in range(repeats):
            members = batch()
            found, seconds = _timed(lambda: evaluator.evaluate(members, resources))  # noqa: B023
            assert all(one.verdict == "pass" for one in found)
            times["together"].append(1e6 * seconds / candidates)
            members = batch()
            _, seconds = _timed(
                lambda: [evaluator.evaluate([one], resources) for one in members]  # noqa: B023
            )
            times["alone"].append(1e6 * seconds / candidates)
    return {
        "systems": ["-".join(name) for name in names],
        "candidates": candidates,
        "us": {name: float(np.median(values)) for name, values in times.items()},
        "us_range": {name: [min(values), max(values)] for name, values in times.items()},
    }


def _drawn(system: Iterable[str], chance: random.Random) -> Composition:
    return Composition({element: chance.randint(1, 6) for element in system})


def _crystal(content: Composition) -> Structure:
    sites = [element for element, amount in content.items() for _ in range(round(amount))]
    places = np.linspace(0, 1, len(sites), endpoint=False)[:, None] * np.ones(3)
    return Structure(Lattice.cubic(10), sites, places)


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
    crystals: int,
    sample: int,
    repeats: int,
    chance: random.Random,
) -> dict[str, Any]:
    contents = [_drawn(system, chance) for _ in range(candidates)]
    structures = [_crystal(content) for content in contents[:crystals]]
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
    times: dict[str, list[float]] = {"pymatgen": []} | {name: [] for name in _ENTRIES}
    for _ in range(repeats):
        theirs, seconds = _timed(
            lambda: [diagram.get_e_above_hull(e, allow_negative=True) for e in entries]
        )
        times["pymatgen"].append(1e6 * seconds / sample)
        ours, seconds = _timed(lambda: energies - hull.energies(contents))
        times["compositions"].append(1e6 * seconds / candidates)
        solid, seconds = _timed(lambda: energies[:crystals] - hull.crystal_energies(structures))
        times["crystals"].append(1e6 * seconds / crystals)
        table, seconds = _timed(lambda: energies - hull.energies_at(system, fractions))
        times["table"].append(1e6 * seconds / candidates)
    assert np.allclose(ours, table, rtol=0, atol=1e-12)
    assert np.allclose(solid, table[:crystals], rtol=0, atol=1e-12)
    ratios = {
        name: sorted(a / b for a, b in zip(times["pymatgen"], times[name], strict=True))
        for name in _ENTRIES
    }
    planes = hull._section(tuple(sorted(system))).hull.planes
    return {
        "system": "-".join(system),
        "elements": len(system),
        "phases": len(points),
        "facets": None if planes is None else len(planes),
        "us": {name: round(float(np.median(values)), 3) for name, values in times.items()},
        **{f"ratio_{name}": found[repeats // 2] for name, found in ratios.items()},
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
        f"{'system':22}{'phases':>7}{'facets':>7}{'pymatgen':>10}{'table':>8}{'composit.':>10}"
        f"{'crystals':>10}{'ratios':>8}{'(range)':>16}{'':18}{'difference':>12}"
    ]
    for row in result["systems"]:
        us, (low, high) = row["us"], row["ratio_table_range"]
        lines.append(
            f"{row['system']:22}{row['phases']:7}{row['facets']!s:>7}{us['pymatgen']:10.0f}"
            f"{us['table']:8.3f}{us['compositions']:10.2f}{us['crystals']:10.2f}"
            f"{row['ratio_table']:8.0f}{f'({low:.0f}, {high:.0f})':>16}"
            f"{row['ratio_compositions']:9.0f}{row['ratio_crystals']:9.0f}"
            f"{row['largest_difference']:12.1e}"
        )
    found = result["evaluator"]
    lines.append(
        f"hull_distance, {found['candidates']} candidates of {', '.join(found['systems'])}: "
        + ", ".join(
            f"{name} {us:.1f} us ({', '.join(f'{one:.1f}' for one in found['us_range'][name])})"
            for name, us in found["us"].items()
        )
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
