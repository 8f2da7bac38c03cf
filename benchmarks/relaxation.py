"""Relaxation throughput: matloop against atomate2 jobs, chgnet's own optimiser, and ASE with MACE.

Run ``OMP_NUM_THREADS=1 python -m benchmarks.relaxation --count 32 --repeats 3``. All sides relax
the same crystals with the same model, optimiser (FIRE, cell and atoms) and limit (0.1 eV/Å), in
turns. The crystals are real ones when ``--structures`` names a CSV file with a column ``cif``, and
otherwise prototypes built here, perturbed by 0.1 Å and a few per cent of strain either way. Ratios
are those of processor time, which other load on the machine disturbs less than wall time; of wall
time for sides called ``*-cores``, which use all cores. The side ``fresh`` starts a process for each
of its crystals, of which it takes only the first ``--fresh``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element, Lattice, Structure

from benchmarks.relaxation_sides import Ends, Limits, side

Time = tuple[float, float, int]
"""Wall time (s), processor time (s), crystals."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=Path, help="CSV file with a column cif")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", nargs="*", default=["atomate2", "chgnet", "fire", "bfgs"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-atoms", type=int, default=384)
    parser.add_argument("--fmax", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--fresh", type=int, default=3, help="crystals of the side fresh")
    parser.add_argument("--mace", default="", help="model file of the sides mace-*")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    crystals = perturbed(options.structures, options.count, options.max_atoms)
    if options.mace:
        crystals = _known_to_mace(crystals, options.mace)
    atoms = sum(len(crystal) for crystal in crystals)
    print(f"{len(crystals)} crystals, {atoms / len(crystals):.1f} atoms on average")

    limits = Limits(options.fmax, options.steps, options.device, options.batch_atoms, options.mace)
    sides = {name: side(name, limits, options.cores) for name in options.sides}
    times: dict[str, list[Time]] = {name: [] for name in sides}
    ends: dict[str, Ends] = {}
    for name, run in sides.items():
        if name != "fresh":  # load models, start processes, measure nothing
            run(crystals[: options.cores if name.endswith("-cores") else 1])
    for _ in range(options.repeats):
        for name, run in sides.items():
            given = crystals[: options.fresh] if name == "fresh" else crystals
            wall, cpu = time.perf_counter(), _processor_time()
            ends[name] = run(given)
            wall, cpu = time.perf_counter() - wall, _processor_time() - cpu
            times[name].append((wall, cpu, len(given)))
            print(f"  {name}: {wall:.1f} s wall, {cpu:.1f} s cpu", flush=True)
    report(times, ends)


def _processor_time() -> float:
    """Return the processor time of this process and of its children, dead or alive (s)."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _known_to_mace(crystals: list[Structure], path: str) -> list[Structure]:
    from matloop.evaluators.mlip.mace import MaceModel

    known = {Element.from_Z(number) for number in MaceModel(path).load().elements}
    return [crystal for crystal in crystals if set(crystal.elements) <= known]


def report(times: dict[str, list[Time]], ends: dict[str, Ends]) -> None:
    """Print throughput, ratios to the first side with their spread, and how the ends compare."""
    first = next(iter(times))
    clock = 0 if first.endswith("-cores") else 1
    print(f"\n{'side':14} {'wall s':>8} {'cpu s':>8} {'per second':>10}  ratio to {first} (range)")
    for name, measured in times.items():
        wall, cpu = (float(np.median([t[k] for t in measured])) for k in (0, 1))
        pairs = zip(times[first], measured, strict=True)
        ratios = [(a[clock] / a[2]) / (b[clock] / b[2]) for a, b in pairs]
        rate = measured[0][2] / (wall if clock == 0 else cpu)
        print(
            f"{name:14} {wall:8.1f} {cpu:8.1f} {rate:10.2f}  "
            f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    matcher = StructureMatcher()
    print("\nEnds compared with", first)
    for name in list(times)[1:]:
        pairs = list(zip(ends[name], ends[first], strict=False))
        differences = np.array([a[0] - b[0] for a, b in pairs])
        same = sum(matcher.fit(a[1], b[1]) for a, b in pairs)
        print(
            f"{name:14} |dE| median {np.median(np.abs(differences)) * 1e3:.4f}, largest "
            f"{np.abs(differences).max() * 1e3:.3f} meV/atom; same crystal {same} of {len(pairs)}; "
            f"within 0.1 meV/atom {int((np.abs(differences) < 1e-4).sum())}; "
            f"worse by over 5 meV/atom {int((differences > 5e-3).sum())}, "
            f"better by over 5 {int((differences < -5e-3).sum())}"
        )


def perturbed(path: Path | None, count: int, max_atoms: int) -> list[Structure]:
    """Return the same perturbed crystals each time."""
    rng = np.random.default_rng(0)
    crystals = _real(path, count, max_atoms) if path else _built(count)
    for crystal in crystals:
        strain = np.eye(3) + rng.normal(0.0, 0.02, (3, 3))
        fractional = crystal.frac_coords.copy()
        crystal.lattice = Lattice(crystal.lattice.matrix @ strain)
        moves = rng.normal(0.0, 0.1 / np.sqrt(3.0), (len(crystal), 3))
        for site, position, move in zip(crystal, fractional, moves, strict=True):
            site.frac_coords = position + crystal.lattice.get_fractional_coords(move)
    return crystals


def _real(path: Path, count: int, max_atoms: int) -> list[Structure]:
    import pandas as pd

    table = pd.read_csv(path)
    if "n_sites" in table:
        table = table[table["n_sites"] <= max_atoms]
    texts = table["cif"].sample(count, random_state=0)
    return [Structure.from_str(text, fmt="cif") for text in texts]


def _built(count: int) -> list[Structure]:
    def rocksalt(a: float, pair: Sequence[str]) -> Structure:
        places = [[0, 0, 0], [0.5, 0.5, 0.5]]
        return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), pair, places)

    def perovskite(a: float, triple: Sequence[str]) -> Structure:
        places = [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0]]
        return Structure.from_spacegroup("Pm-3m", Lattice.cubic(a), triple, places)

    crystals = [
        rocksalt(4.2, ["Mg", "O"]),
        rocksalt(5.6, ["Na", "Cl"]),
        rocksalt(4.8, ["Ca", "O"]),
        perovskite(3.9, ["Sr", "Ti", "O"]),
        perovskite(4.0, ["Ba", "Ti", "O"]),
        Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]]),
        Structure.from_spacegroup(
            "F-43m", Lattice.cubic(5.65), ["Ga", "As"], [[0, 0, 0], [0.25, 0.25, 0.25]]
        ),
        Structure.from_spacegroup(
            "P4_2/mnm", Lattice.tetragonal(4.6, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
        ),
    ]
    return [crystals[k % len(crystals)].copy() for k in range(count)]


if __name__ == "__main__":
    main()
