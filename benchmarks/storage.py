"""Bytes and time of crystals in columns against dictionaries as JSON.

Structures as relaxed, as proposed by chance, and in the small batches that workers record. Both
sides take turns; times are of the processor. ``python -m benchmarks.storage --structures
mp_structures.csv.gz`` adds crystals of a table with a ``cif`` column.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from matloop.documents.candidate import structure_digest
from matloop.documents.space import ChemicalSpace
from matloop.generators.random_symmetric import RandomSymmetric
from matloop.protocols import ProposalRequest
from matloop.structures.columns import pack, unpack

T = TypeVar("T")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=Path, help="CSV with a cif column, gzip or not")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    space = ChemicalSpace(system="Sr-Ti-O", max_atoms=20)
    request = ProposalRequest(space, options.count, 1)
    sets = {"proposed at random": [p.structure for p in RandomSymmetric().propose(request)]}
    if options.structures:
        known = _read(options.structures, options.count)
        sets["Materials Project"] = known
        sets["the same, rattled by 0.1 Å"] = _rattled(known)
    sets |= {f"{name}, by 64": some[:64] for name, some in list(sets.items())[-1:]}
    print("crystals  sites  bytes: columns, JSON, ratio  µs: write, read; JSON: write, read")
    for name, structures in sets.items():
        print(name, measure(structures, options.repeats))


def measure(structures: Sequence[Structure], repeats: int) -> str:
    """Return a line of numbers per crystal, and refuse a side that loses a bit."""
    times = np.zeros((repeats, 4))
    for turn in range(repeats):
        content, times[turn, 0] = _timed(lambda: pack(structures))
        texts, times[turn, 2] = _timed(lambda: [json.dumps(s.as_dict()) for s in structures])
        again, times[turn, 1] = _timed(lambda content=content: unpack(content))
        _, times[turn, 3] = _timed(
            lambda texts=texts: [Structure.from_dict(json.loads(text)) for text in texts]
        )
    for before, after in zip(structures, again, strict=True):
        if before.as_dict() != after.as_dict() or (
            structure_digest(before) != structure_digest(after)
        ):
            raise RuntimeError("a crystal came back changed")
    count = len(structures)
    ours, theirs = len(content) / count, sum(map(len, texts)) / count
    each = 1e6 * np.median(times, axis=0) / count
    sites = np.mean([len(structure) for structure in structures])
    return (
        f"{count} {sites:.1f}  {ours:.0f} {theirs:.0f} {theirs / ours:.1f}  "
        f"{each[0]:.0f} {each[1]:.0f}; {each[2]:.0f} {each[3]:.0f}"
    )


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def _read(path: Path, count: int) -> list[Structure]:
    texts = pd.read_csv(path, nrows=count)["cif"]
    given = [Structure.from_str(text, fmt="cif") for text in texts]
    return [Structure(one.lattice, one.atomic_numbers, one.frac_coords) for one in given]


def _rattled(structures: Sequence[Structure]) -> list[Structure]:
    rng = np.random.default_rng(0)
    moved = []
    for structure in structures:
        shift = rng.normal(scale=0.1, size=(len(structure), 3))
        positions = structure.cart_coords + shift
        moved.append(
            Structure(
                structure.lattice, structure.atomic_numbers, positions, coords_are_cartesian=True
            )
        )
    return moved


if __name__ == "__main__":
    main()
