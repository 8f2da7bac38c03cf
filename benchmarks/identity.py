"""Duplicates and novelty: what finding them costs, and how many are found, by `StructureMatcher`.

The other side is `matloop.structures.identity`.

Run ``OMP_NUM_THREADS=1 python -m benchmarks.identity --data FOLDER [--json]``. The folder holds
``mp_structures.csv.gz`` (Materials Project crystals) and ``carbon24_val.csv.gz`` (relaxed carbon
from random search), both with a column ``cif``.

- *duplicates*: `StructureMatcher.group_structures` and `KnownIndex` on the same crystals, in turns,
  processor time, preparation included. Recall: of the crystals that the former counts as
  duplicates, the share that the latter finds. Sets: ``diverse``, crystals of all formulas;
  ``one formula``, relaxed carbon, filled up beyond what there is with copies rattled by 0.01 Å in
  another cell; ``unrelaxed``, random crystals of one formula.
- *novelty*: candidates against 10^4 to 10^6 references in segments. References are Materials
  Project crystals, of at most 20 atoms, whose elements are exchanged by a permutation: another one
  for each copy of the set, so that buckets are as large as real ones. Half of the candidates are
  references, rattled; half are crystals that no reference was made from, of formulas that occur.
  `StructureMatcher` alone compares a candidate with every reference.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Element, Lattice, Structure

from matloop.structures.identity import KnownIndex
from matloop.structures.matching import IncomparableError, Matcher
from matloop.structures.segments import _SCHEMA, LARGEST, Entry, Segment, _key, _written, pack

MATCHER = Matcher()
CRYSTALS, CARBON = "mp_structures.csv.gz", "carbon24_val.csv.gz"


def main() -> None:
    """Measure, print, and store the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the two tables")
    parser.add_argument("--diverse", type=int, nargs="*", default=[1000, 3000])
    parser.add_argument("--one-formula", type=int, nargs="*", default=[375, 750, 1500, 3000])
    parser.add_argument("--unrelaxed", type=int, nargs="*", default=[100, 200])
    parser.add_argument("--references", type=int, nargs="*", default=[10**4, 10**5, 10**6])
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--alone", type=int, default=3, help="candidates judged without an index")
    parser.add_argument("--repeats", type=int, default=2, help="turns, where one takes a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/identity.json"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    rng = np.random.default_rng(options.seed)
    result: dict[str, Any] = {"duplicates": [], "novelty": []}
    sets: list[tuple[str, Sequence[int], Callable[[int], list[Structure]], bool]] = [
        ("diverse", options.diverse, lambda n: crystals(options.data, n, rng), True),
        ("one formula", options.one_formula, lambda n: carbon(options.data, n, rng), True),
        ("unrelaxed", options.unrelaxed, lambda n: [random_crystal(rng) for _ in range(n)], False),
    ]
    for name, counts, make, relaxed in sets:
        everything = make(max(counts, default=0))
        for count in counts:
            row = duplicates(everything[:count], relaxed=relaxed, repeats=options.repeats)
            result["duplicates"].append({"set": name, **row})
            print(f"  {result['duplicates'][-1]}", flush=True)
    result["novelty"] = list(
        novelty(options.data, options.references, options.candidates, options.alone, rng)
    )
    text = json.dumps(result, indent=2)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text + "\n", encoding="utf-8")
    print(text if options.json else readable(result))


def duplicates(structures: list[Structure], *, relaxed: bool, repeats: int) -> dict[str, Any]:
    """Return what both sides take and find."""
    judge = StructureMatcher(ltol=MATCHER.ltol, stol=MATCHER.stol, angle_tol=MATCHER.angle_tol)
    theirs, ours = [], []
    for _ in range(repeats):
        started = time.process_time()
        groups = judge.group_structures(structures)
        theirs.append(time.process_time() - started)
        started = time.process_time()
        kept = _distinct(structures, relaxed)
        ours.append(time.process_time() - started)
        if theirs[-1] > 60:
            break
    place = {id(structure): number for number, structure in enumerate(structures)}
    first = {place[id(group[0])] for group in groups}
    known = set(range(len(structures))) - first
    found = known - kept
    ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return {
        "count": len(structures),
        "distinct": len(groups),
        "group_structures_s": round(float(np.median(theirs)), 2),
        "index_s": round(float(np.median(ours)), 2),
        "ratio": round(float(np.median(ratios)), 1),
        "ratios": [round(ratio, 1) for ratio in ratios],
        "duplicates": len(known),
        "found": len(found),
        "recall": round(len(found) / max(1, len(known)), 4),
        "more": len(set(range(len(structures))) - kept - known),
    }


def _distinct(structures: Sequence[Structure], relaxed: bool) -> set[int]:
    index, kept = KnownIndex(MATCHER), set()
    for number, structure in enumerate(structures):
        reduced = MATCHER.reduce(structure)
        if index.find(reduced, relaxed=relaxed) is None:
            index.add(str(number), reduced, relaxed=relaxed)
            kept.add(number)
    return kept


def novelty(
    data: Path, sizes: Sequence[int], count: int, alone: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Yield what a candidate takes against so many references, in rising order."""
    real = crystals(data, 4_000, rng)
    parents, others = real[: len(real) * 9 // 10], real[len(real) * 9 // 10 :]
    first = Segment(pack(_entries(parents)))
    with tempfile.TemporaryDirectory() as folder:
        files: list[Path] = []
        held = 0
        for size in sorted(sizes):
            while held < size:
                table = _exchanged(first, min(LARGEST, size - held), rng)
                files.append(Path(folder) / str(len(files)))
                files[-1].write_bytes(_written(table))
                held += len(table)
            yield _novelty(files, held, others, count, alone, rng)


def _novelty(
    files: Sequence[Path],
    held: int,
    others: Sequence[Structure],
    count: int,
    alone: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    started = time.process_time()
    segments = [Segment(file) for file in files]
    opened = time.process_time() - started
    known = [_any(segments[int(rng.integers(len(segments)))], rng) for _ in range(count // 2)]
    candidates = [rattled(structure, rng) for structure in known]
    # Crystals that no reference was made from, under the names of elements of one that was.
    for model in rng.permutation(len(others))[: count - len(candidates)]:
        candidates.append(others[model])
    index = KnownIndex(MATCHER, segments=segments)
    times, found = [], []
    for structure in candidates:
        started = time.process_time()
        found.append(index.find(structure))
        times.append(1e3 * (time.process_time() - started))
    judge = StructureMatcher(ltol=MATCHER.ltol, stol=MATCHER.stol, angle_tol=MATCHER.angle_tol)
    naive = []
    some = [_any(segments[0], rng) for _ in range(500)]
    for structure in candidates[:alone]:
        started = time.process_time()
        for reference in some:
            judge.fit(reference, structure)
        naive.append(1e3 * (time.process_time() - started) * held / len(some))
    row = {
        "references": held,
        "segments": len(files),
        "megabytes": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        "candidates": len(candidates),
        "formulas": len({c.composition.reduced_formula for c in candidates}),
        "open_s": round(opened, 3),
        "ms_mean": round(float(np.mean(times[5:])), 2),
        "ms_median": round(float(np.median(times)), 2),
        "ms_95": round(float(np.quantile(times, 0.95)), 2),
        "known_found": sum(match is not None for match in found[: len(known)]) / len(known),
        "others_found": sum(match is not None for match in found[len(known) :]),
        "alone_ms": round(float(np.median(naive)), 0) if naive else None,
        "resident_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(f"  {row}", flush=True)
    return row


def crystals(data: Path, count: int, rng: np.random.Generator) -> list[Structure]:
    """Return Materials Project crystals of at most 20 atoms, drawn at random."""
    table = pd.read_csv(data / CRYSTALS)
    small = table[table["n_sites"] <= 20]
    chosen = rng.permutation(len(small))[:count]
    return [Structure.from_str(cif, fmt="cif") for cif in small["cif"].iloc[chosen]]


def carbon(data: Path, count: int, rng: np.random.Generator) -> list[Structure]:
    """Return relaxed carbon in random order, with rattled copies where there is too little."""
    table = pd.read_csv(data / CARBON)
    real = [Structure.from_str(cif, fmt="cif") for cif in table["cif"][:count]]
    copies = rng.integers(len(real), size=count - len(real))
    everything = real + [rattled(real[copy], rng) for copy in copies]
    return [everything[place] for place in rng.permutation(len(everything))]


def rattled(structure: Structure, rng: np.random.Generator) -> Structure:
    """Return the crystal in another cell and origin, its sites moved by 0.01 Å."""
    steps = rng.normal(size=(len(structure), 3))
    steps *= 0.01 / np.linalg.norm(steps, axis=1)[:, None]
    moved = Structure(
        structure.lattice,
        structure.species,
        structure.cart_coords + steps + rng.normal(size=3),
        coords_are_cartesian=True,
    )
    axes = np.eye(3, dtype=int)
    axes[0, 1], axes[1, 2] = rng.integers(-1, 2, size=2)
    return moved * axes


def random_crystal(rng: np.random.Generator) -> Structure:
    """Return random sites of Ti4O8 in a random cell, none nearer than 1.2 Å to another."""
    while True:
        lattice = Lattice.from_parameters(*rng.uniform(4, 8, 3), *rng.uniform(70, 110, 3))
        structure = Structure(lattice.scale(130), ["Ti"] * 4 + ["O"] * 8, rng.random((12, 3)))
        if structure.distance_matrix[~np.eye(12, dtype=bool)].min() > 1.2:
            return structure


def _entries(structures: Sequence[Structure]) -> Iterator[Entry]:
    for number, structure in enumerate(structures):
        try:
            yield Entry(f"r{number}", 1, MATCHER.reduce(structure))
        except IncomparableError:
            continue


def _any(segment: Segment, rng: np.random.Generator) -> Structure:
    row = int(rng.integers(len(segment)))
    columns = segment._columns
    return Structure(
        Lattice(np.array(columns["lattice"][row].as_py()).reshape(3, 3)),
        columns["numbers"][row].as_py(),
        np.array(columns["coords"][row].as_py()).reshape(-1, 3),
    )


def _exchanged(segment: Segment, count: int, rng: np.random.Generator) -> Any:
    # Copies of a segment's table, each with the elements exchanged by a permutation of its own.
    parts, total = [], 0
    elements = np.arange(1, 90)
    while total < count:
        table = segment._table.slice(0, min(len(segment), count - total))
        mapped = np.arange(128)
        mapped[elements] = rng.permutation(elements)
        numbers = pa.ListArray.from_arrays(
            _whole(table["numbers"]).offsets,
            pa.array(mapped[_whole(table["numbers"]).values.to_numpy()], pa.uint8()),
        )
        buckets, prints = [], []
        for old, new, vector in zip(
            table["numbers"].to_pylist(),
            numbers.to_pylist(),
            table["fingerprint"].to_numpy(),
            strict=True,
        ):
            formula = Composition.from_dict(_counted(new)).reduced_formula
            buckets.append((formula, len(new)))
            prints.append(_reordered(vector, old, mapped))
        columns = {name: table[name] for name in _SCHEMA.names}
        columns["key"] = pa.array([_key(bucket) for bucket in buckets], pa.uint64())
        columns["formula"] = pa.array([bucket[0] for bucket in buckets])
        columns["numbers"] = numbers
        columns["fingerprint"] = pa.array(prints, pa.list_(pa.float16()))
        parts.append(pa.table(columns, schema=_SCHEMA))
        total += len(table)
    return pa.concat_tables(parts)


def _counted(numbers: Sequence[int]) -> dict[str, int]:
    return {Element.from_Z(z).symbol: numbers.count(z) for z in set(numbers)}


def _reordered(vector: np.ndarray, old: Sequence[int], mapped: np.ndarray) -> np.ndarray:
    # Fingerprints are ordered by symbol: exchanged elements come in another order.
    kinds = sorted(set(old), key=lambda z: Element.from_Z(z).symbol)
    order = sorted(range(len(kinds)), key=lambda k: Element.from_Z(int(mapped[kinds[k]])).symbol)
    blocks = vector.reshape(len(kinds), 3, len(kinds), -1)
    return blocks[order][:, :, order].ravel()


def _whole(column: Any) -> Any:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def readable(result: dict[str, Any]) -> str:
    """Return the result as two tables."""
    lines = [
        f"{'set':12}{'crystals':>9}{'distinct':>9}{'group_structures s':>19}{'index s':>9}"
        f"{'ratio':>8}{'recall':>8}"
    ]
    for row in result["duplicates"]:
        lines.append(
            f"{row['set']:12}{row['count']:9}{row['distinct']:9}{row['group_structures_s']:19.1f}"
            f"{row['index_s']:9.1f}{row['ratio']:8.1f}{row['recall']:8.4f}"
        )
    for name in sorted({row["set"] for row in result["duplicates"]}):
        rows = [row for row in result["duplicates"] if row["set"] == name]
        if len(rows) > 1:
            growth = [_growth(rows, side) for side in ("group_structures_s", "index_s")]
            lines.append(f"{name}: time grows as N^{growth[0]:.2f} and N^{growth[1]:.2f}")
    lines.append(f"\n{'references':>10}{'MB':>8}{'ms':>8}{'median':>8}{'95 %':>8}{'alone ms':>12}")
    for row in result["novelty"]:
        lines.append(
            f"{row['references']:10}{row['megabytes']:8.0f}{row['ms_mean']:8.2f}"
            f"{row['ms_median']:8.2f}{row['ms_95']:8.2f}{row['alone_ms'] or 0:12.0f}"
        )
    return "\n".join(lines)


def _growth(rows: Sequence[dict[str, Any]], side: str) -> float:
    counts, times = ([row[key] for row in rows] for key in ("count", side))
    return float(np.polyfit(np.log(counts), np.log(times), 1)[0])


if __name__ == "__main__":
    main()
